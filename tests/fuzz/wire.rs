//! Payloads that submitters send and results that they read, in both encodings, and identifiers.

use sandhog_fuzz_bodies::wire::{
    identifier, identifier_seeds, payload, payload_seeds, result, result_seeds,
};

use crate::feed;

#[test]
fn payloads() {
    feed("payloads", &payload_seeds(), payload);
}

#[test]
fn results() {
    feed("results", &result_seeds(), result);
}

#[test]
fn identifiers_are_written_as_they_are_read() {
    feed("identifiers", &identifier_seeds(), identifier);
}
