//! A container with a keeper that no worker started.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sandhog_protocol::install::{KEEP_ARGUMENT, RUNNER_CAPABILITIES};

use crate::environment;

/// A container of an image with a keeper. On drop it is removed.
#[derive(Debug)]
pub struct KeeperContainer {
    name: String,
}

impl KeeperContainer {
    /// Starts a keeper of the image `python` whose socket is `python.sock` in this directory. Does
    /// not wait for it.
    ///
    /// # Panics
    /// Panics if Docker does not start the container.
    #[must_use]
    pub fn start(directory: &Path) -> Self {
        Self::of("python", directory)
    }

    /// Starts a keeper of an image, whose socket is named for it. Does not wait for it.
    ///
    /// # Panics
    /// Panics if Docker does not start the container.
    #[must_use]
    pub fn of(image: &str, directory: &Path) -> Self {
        let open_to_all = Permissions::from_mode(0o777);
        std::fs::set_permissions(directory, open_to_all).expect("the directory is the test's own");
        let unique = uuid::Uuid::now_v7().simple();
        let name = format!("sandhog-keeper-{unique}");
        let mut command = Command::new("docker");
        command
            .args(["run", "--detach", "--rm", "--name", &name])
            .args(["--network", "none", "--read-only", "--cgroupns", "private"])
            .args(["--tmpfs", "/tmp:rw,nosuid,nodev,noexec,size=4m,mode=0700"])
            .args(["--memory", "512m", "--memory-swap", "512m"])
            .args(["--security-opt", "no-new-privileges"])
            .args(["--security-opt", "apparmor=unconfined"])
            .args(["--cap-drop", "ALL"]);
        for capability in RUNNER_CAPABILITIES {
            command.args(["--cap-add", capability]);
        }
        let started = command
            .args(["--volume", &format!("{}:/run/sandhog", directory.display())])
            .arg(environment::image_reference().replace("{name}", image))
            .args([KEEP_ARGUMENT, &format!("/run/sandhog/{image}.sock")])
            .output()
            .expect("docker is installed");
        assert!(
            started.status.success(),
            "the image is built and Docker runs: {}",
            String::from_utf8_lossy(&started.stderr)
        );
        Self { name }
    }

    /// The name of the container.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for KeeperContainer {
    fn drop(&mut self) {
        let removed = Command::new("docker")
            .args(["rm", "--force", &self.name])
            .output();
        // A test that failed shows its own error.
        drop(removed);
    }
}
