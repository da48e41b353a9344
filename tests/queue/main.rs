//! The queue against a real Redis.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

mod acl;
mod autoscaler_lag;
mod cancel;
mod cluster;
mod connection_loss;
mod dead;
mod dead_command;
mod encrypted;
mod events;
mod fit;
mod fixture;
mod flood;
mod footprint;
mod in_process_worker;
mod intake;
mod large;
mod lease;
mod lifecycle;
mod metrics;
mod namespaces;
mod once;
mod order;
mod outage;
mod place;
mod producing;
mod records;
mod replies;
mod reserve;
mod retained;
mod retry;
mod retry_on;
mod run_command;
mod schedule;
mod schedule_command;
mod scripted_worker;
mod sentinel;
mod server;
mod silent;
mod storm;
mod tenant_command;
mod tenants;
mod tickets;
mod time;
mod tls;
mod together;
mod trace;
mod unique;
mod unroutable;
mod upkeep;
mod verdict;
mod wait_command;
mod warnings;
mod watch;
