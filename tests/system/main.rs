//! Whole lifecycles of jobs: the real `sandhog worker`, a real Redis, real containers.
//!
//! Jobs are submitted as plain stream entries and results are read as plain lists, so the tests
//! exercise the wire contract and not the client library.

mod acl;
mod cancel;
mod chaos;
mod compose;
mod displays;
mod drain;
mod entry;
mod examples;
mod files;
mod given;
mod gpu;
mod humaneval;
mod keeper_faults;
mod keepers;
mod kill9;
mod languages;
mod limits;
mod malformed;
mod metrics;
mod outage;
mod programs;
mod python_client;
mod python_package;
mod readmes;
mod redis_cli;
mod refuse;
mod retry;
mod run_command;
mod secrets;
mod soak;
mod source;
mod stack;
mod trace;
mod up;
mod values;
