//! The engine's containers, as a test sees them: whose they are, and that none is left.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::runtime::Runtime;

/// The label that names a container's worker.
pub const WORKER_LABEL: &str = "sandhog.worker";

/// The label that names a container's namespace.
pub const NAMESPACE_LABEL: &str = "sandhog.namespace";

/// A blocking view of the local engine. Not for use inside an async test.
#[derive(Debug)]
pub struct Engine {
    runtime: Runtime,
    docker: Docker,
}

impl Engine {
    /// Connects to the local engine.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn connect() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let docker = runtime
            .block_on(async { Docker::connect_with_local_defaults()?.negotiate_version().await })
            .unwrap_or_else(|error| {
                panic!("the container engine does not answer: {error}\nhint: start dockerd, or run scripts/test")
            });
        Self { runtime, docker }
    }

    /// The ids of all containers, running or not, with `label` set to `value`.
    ///
    /// # Panics
    /// When the engine does not answer.
    #[must_use]
    pub fn with_label(&self, label: &str, value: &str) -> Vec<String> {
        let filters = HashMap::from([("label", vec![format!("{label}={value}")])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        self.runtime
            .block_on(self.docker.list_containers(Some(options)))
            .expect("the engine lists containers")
            .into_iter()
            .filter_map(|container| container.id)
            .collect()
    }

    /// How many processes run in a container.
    ///
    /// # Panics
    /// When the engine does not answer, or the container is gone.
    #[must_use]
    pub fn processes(&self, id: &str) -> usize {
        self.runtime
            .block_on(self.docker.top_processes(id, None))
            .unwrap_or_else(|error| panic!("the processes of {id} cannot be listed: {error}"))
            .processes
            .map_or(0, |rows| rows.len())
    }

    /// The ids of a container's processes, as the machine counts them.
    ///
    /// # Panics
    /// When the engine does not answer, or the container is gone.
    #[must_use]
    pub fn pids(&self, id: &str) -> Vec<String> {
        let table = self
            .runtime
            .block_on(self.docker.top_processes(id, None))
            .unwrap_or_else(|error| panic!("the processes of {id} cannot be listed: {error}"));
        let titles = table.titles.unwrap_or_default();
        let column = titles.iter().position(|title| title == "PID");
        let column = column.expect("the engine's table has process ids");
        let rows = table.processes.unwrap_or_default();
        rows.into_iter()
            .filter_map(|row| row.into_iter().nth(column))
            .collect()
    }

    /// Kills a running container, as the engine's own operator might.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn kill(&self, id: &str) {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        self.runtime
            .block_on(self.docker.kill_container(id, Some(options)))
            .unwrap_or_else(|error| panic!("container {id} cannot be killed: {error}"));
    }

    /// All that the engine tells of a container, as JSON.
    ///
    /// # Panics
    /// When the engine does not answer, or the container is gone.
    #[must_use]
    pub fn inspect(&self, id: &str) -> String {
        let told = self
            .runtime
            .block_on(self.docker.inspect_container(id, None))
            .unwrap_or_else(|error| panic!("container {id} cannot be inspected: {error}"));
        serde_json::to_string(&told).expect("what came as JSON is JSON")
    }

    /// Runs a shell command as root inside a running container, as its operator might, and returns what it printed.
    ///
    /// # Panics
    /// When the engine refuses.
    #[must_use]
    pub fn shell(&self, id: &str, command: &str) -> String {
        let run = async {
            let words = ["/bin/bash", "-c", command].map(str::to_owned);
            let config = ExecConfig {
                cmd: Some(words.to_vec()),
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                ..ExecConfig::default()
            };
            let exec = self.docker.create_exec(id, config).await?;
            let mut printed = String::new();
            if let StartExecResults::Attached { mut output, .. } =
                self.docker.start_exec(&exec.id, None).await?
            {
                while let Some(piece) = output.next().await {
                    printed.push_str(&piece?.to_string());
                }
            }
            Ok::<_, bollard::errors::Error>(printed)
        };
        self.runtime
            .block_on(run)
            .unwrap_or_else(|error| panic!("{command:?} cannot be run in {id}: {error}"))
    }

    /// Removes every container with `label` set to `value`. One that is already going is left to go.
    pub fn remove_all(&self, label: &str, value: &str) {
        for id in self.with_label(label, value) {
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            let _may_be_going_already = self
                .runtime
                .block_on(self.docker.remove_container(&id, Some(options)));
        }
    }

    /// Creates a container, starts it, waits until its program has ended and removes it: what the engine itself takes
    /// for an isolated program. It prints nothing and has no network.
    ///
    /// # Panics
    /// When the engine refuses a step.
    pub fn run_once(&self, image: &str, argv: &[&str]) {
        let host = HostConfig {
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        };
        self.run_as(host, image, argv);
    }

    /// Runs Python source of which it must be that the memory of these processes of the machine is as it says; `pids`
    /// are its arguments. It may look at any process.
    ///
    /// # Panics
    /// When it ends with anything but 0, or the engine refuses a step.
    pub fn run_beside(&self, image: &str, source: &str, pids: &[String]) {
        let host = HostConfig {
            network_mode: Some("none".to_owned()),
            pid_mode: Some("host".to_owned()),
            cap_add: Some(vec!["SYS_PTRACE".to_owned()]),
            ..HostConfig::default()
        };
        let mut argv = vec!["/usr/bin/python3", "-c", source];
        argv.extend(pids.iter().map(String::as_str));
        let code = self.run_as(host, image, &argv);
        assert_eq!(code, 0, "the exit code of:\n{source}");
    }

    fn run_as(&self, host: HostConfig, image: &str, argv: &[&str]) -> i64 {
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(argv.iter().map(|&word| word.to_owned()).collect()),
            cmd: Some(Vec::new()),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let ran: Result<i64, bollard::errors::Error> = self.runtime.block_on(async {
            let id = self.docker.create_container(None, body).await?.id;
            self.docker.start_container(&id, None).await?;
            let mut ended = Box::pin(self.docker.wait_container(&id, None));
            let mut code = 0;
            while let Some(end) = ended.next().await {
                code = match end {
                    Ok(end) => end.status_code,
                    Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => code,
                    Err(error) => return Err(error),
                };
            }
            self.docker.remove_container(&id, None).await?;
            Ok(code)
        });
        ran.unwrap_or_else(|error| panic!("{image} cannot be run: {error}"))
    }

    /// Builds an image from the text of a Dockerfile alone.
    ///
    /// # Panics
    /// When the engine cannot.
    pub fn build_image(&self, reference: &str, dockerfile: &str) {
        let mut context = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(dockerfile.len() as u64);
        context
            .append_data(&mut header, "Dockerfile", dockerfile.as_bytes())
            .expect("a small archive fits in memory");
        let context = context.into_inner().expect("it is in memory");
        let options = BuildImageOptionsBuilder::new().t(reference).build();
        let body = bollard::body_full(context.into());
        self.runtime.block_on(async {
            let mut progress = Box::pin(self.docker.build_image(options, None, Some(body)));
            while let Some(step) = progress.next().await {
                step.unwrap_or_else(|error| panic!("{reference} cannot be built: {error}"));
            }
        });
    }

    /// Removes an image, if it is there. While a container of it is going, the engine refuses: it is asked again for
    /// a while, and then the image stays.
    pub fn remove_image(&self, reference: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 409, ..
        }) = self.runtime.block_on(self.docker.remove_image(
            reference,
            Some(RemoveImageOptionsBuilder::new().build()),
            None,
        )) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until `enough` holds for the containers with `label` set to `value`, and returns them.
    ///
    /// # Panics
    /// When it does not within a minute.
    #[must_use]
    pub fn wait_for(
        &self,
        label: &str,
        value: &str,
        enough: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let found = self.with_label(label, value);
            if enough(&found) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "after a minute the containers with {label}={value} are {found:?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
