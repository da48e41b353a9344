//! The program of [`sandhog_testkit::noop_worker`]. It is in this crate because Cargo tells only
//! the tests of the same crate where a program is.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    sandhog_testkit::noop_worker::run_noop_worker().await
}
