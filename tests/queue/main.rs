//! The queue against a real Redis.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

mod acl;
mod cancel;
mod cluster;
mod crew;
mod dead;
mod dead_command;
mod desk;
mod encrypted;
mod events;
mod fit;
mod flood;
mod footprint;
mod in_process;
mod intake;
mod lag;
mod large;
mod lease;
mod metrics;
mod mishaps;
mod namespaces;
mod once;
mod order;
mod outage;
mod place;
mod producing;
mod replies;
mod reserve;
mod retained;
mod retry;
mod retry_on;
mod run_command;
mod schedule;
mod schedule_command;
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
mod way;
