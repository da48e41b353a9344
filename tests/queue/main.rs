//! The queue against a real Redis.

mod acl;
mod cancel;
mod desk;
mod footprint;
mod intake;
mod lease;
mod once;
mod order;
mod outage;
mod producing;
mod retry;
mod server;
mod tickets;
mod time;
mod way;
