//! A provider under test: the operations that a requirement needs beside the worker's own code.

use std::time::Duration;

use sandhog_core::id::{ImageName, Namespace};
use sandhog_testkit::eventually::eventually_async;
use sandhog_worker::sandbox::{Image, Sandboxes};

/// Timeout of any wait in a test. It decides nothing: a healthy run never gets near it.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A provider under test, in a namespace of its own.
pub(crate) trait ProviderFixture {
    /// Prepares a fresh namespace.
    async fn new() -> Self;

    /// Connects a worker.
    async fn connect(&self, worker: &str) -> Sandboxes;

    /// Returns the name of an image that has `/bin/bash`, or interprets its scripts.
    fn image(&self) -> ImageName;

    /// Returns the sorted names of the namespace's containers, without the code under test.
    async fn containers(&self) -> Vec<String>;

    /// Ends a container on request of a client.
    async fn kill(&self, container: &str);

    /// Ends a container as the kernel does if its memory is used up.
    async fn run_out_of_memory(&self, container: &str);

    /// Waits until nothing of the namespace is left, after all workers have disconnected.
    async fn until_nothing_is_left(&self) {
        self.until_containers(&[]).await;
    }

    /// Connects the worker `one`, and returns the image too.
    async fn connected(&self) -> (Sandboxes, Image) {
        let sandboxes = self.connect("one").await;
        let image = sandboxes.resolve(&self.image()).await;
        let image = image.expect("build the images first: target/debug/sandhog images build");
        (sandboxes, image)
    }

    /// Waits until exactly these containers exist.
    async fn until_containers(&self, wanted: &[&str]) {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        eventually_async(WAIT_TIMEOUT, async || {
            let found = self.containers().await;
            if found == wanted {
                return Ok(());
            }
            Err(format!("containers {found:?} instead of {wanted:?}"))
        })
        .await;
    }
}

/// Returns a namespace that no other test has.
pub(crate) fn new_namespace() -> Namespace {
    let unique = uuid::Uuid::now_v7().simple();
    format!("conformance-{unique}").parse().unwrap()
}
