//! The engine's containers from the point of view of a test: which worker they belong to, and
//! whether any is left.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ContainerTopResponse, ExecConfig, HostConfig};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::runtime::Runtime;

use crate::eventually::eventually;

/// The label that names a container's worker.
pub const WORKER_LABEL: &str = "sandhog.worker";

/// The label that names a container's namespace.
pub const NAMESPACE_LABEL: &str = "sandhog.namespace";

/// The label that names the role of a container, and its value for that of a keeper.
const ROLE_LABEL: &str = "sandhog.role";
const KEEPER_ROLE: &str = "keeper";

/// A blocking client of the local engine. Do not use it inside an async test.
#[derive(Debug)]
pub struct Engine {
    runtime: Runtime,
    docker: Docker,
}

impl Engine {
    /// Connects to the local engine.
    ///
    /// # Panics
    /// Panics if it does not answer.
    #[must_use]
    pub fn connect() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let docker = runtime
            .block_on(async {
                Docker::connect_with_local_defaults()?
                    .negotiate_version()
                    .await
            })
            .unwrap_or_else(|error| {
                panic!(
                    "the container engine does not answer: {error}\n\
                     hint: start dockerd, or run scripts/test"
                )
            });
        Self { runtime, docker }
    }

    /// The ids of all containers, running or not, with `label` set to `value`.
    ///
    /// # Panics
    /// Panics if the engine does not answer.
    #[must_use]
    pub fn containers_with_label(&self, label: &str, value: &str) -> Vec<String> {
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

    /// Returns the number of processes in a container.
    ///
    /// # Panics
    /// Panics if the engine does not answer, or the container is gone.
    #[must_use]
    pub fn processes(&self, id: &str) -> usize {
        self.runtime
            .block_on(self.docker.top_processes(id, None))
            .unwrap_or_else(|error| panic!("the processes of {id} cannot be listed: {error}"))
            .processes
            .map_or(0, |rows| rows.len())
    }

    /// Returns the ids of a container's processes in the host's pid namespace.
    ///
    /// # Panics
    /// Panics if the engine does not answer, or the container is gone.
    #[must_use]
    pub fn pids(&self, id: &str) -> Vec<String> {
        let table = self
            .runtime
            .block_on(self.docker.top_processes(id, None))
            .unwrap_or_else(|error| panic!("the processes of {id} cannot be listed: {error}"));
        pids_in(table)
    }

    /// Returns a name for each sandbox in the containers with `label` set to `value`: the id of its
    /// container, followed by the process id of its runner if a keeper made it.
    ///
    /// # Panics
    /// Panics if the engine does not answer.
    #[must_use]
    pub fn sandboxes_with_label(&self, label: &str, value: &str) -> Vec<String> {
        let keepers = self.containers_with_label(ROLE_LABEL, KEEPER_ROLE);
        let containers = self.containers_with_label(label, value);
        let sandboxes = containers.into_iter().flat_map(|id| {
            if keepers.contains(&id) {
                let runners = self.runners(&id).into_iter();
                runners.map(|pid| format!("{id} {pid}")).collect()
            } else {
                vec![id]
            }
        });
        sandboxes.collect()
    }

    /// Returns the process ids of the runners in a keeper's container: the first processes of the
    /// namespaces directly below that of the keeper. Empty if the container is gone.
    fn runners(&self, id: &str) -> Vec<String> {
        let listed = self
            .runtime
            .block_on(self.docker.top_processes(id, None))
            .unwrap_or_default();
        let firsts: Vec<(String, usize)> = pids_in(listed)
            .into_iter()
            .filter_map(|pid| namespaces_of_first(&pid).map(|depth| (pid, depth)))
            .collect();
        let keeper = firsts.iter().map(|(_, depth)| *depth).min();
        firsts
            .into_iter()
            .filter(|(_, depth)| keeper.is_some_and(|keeper| *depth == keeper + 1))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// Kills a running container, as an operator of the engine could.
    ///
    /// # Panics
    /// Panics if the engine rejects the call.
    pub fn kill(&self, id: &str) {
        assert!(self.try_kill(id), "container {id} cannot be killed");
    }

    /// Kills a container. Returns whether it was running.
    #[must_use]
    pub fn try_kill(&self, id: &str) -> bool {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        let killed = self
            .runtime
            .block_on(self.docker.kill_container(id, Some(options)));
        killed.is_ok()
    }

    /// Returns everything that the engine reports about a container, as JSON.
    ///
    /// # Panics
    /// Panics if the engine does not answer, or the container is gone.
    #[must_use]
    pub fn inspect(&self, id: &str) -> String {
        let told = self
            .runtime
            .block_on(self.docker.inspect_container(id, None))
            .unwrap_or_else(|error| panic!("container {id} cannot be inspected: {error}"));
        serde_json::to_string(&told).expect("what came as JSON is JSON")
    }

    /// Runs a shell command as root inside a running container, as an operator of the engine could,
    /// and returns its output.
    ///
    /// # Panics
    /// Panics if the engine rejects the call.
    #[must_use]
    pub fn shell(&self, id: &str, command: &str) -> String {
        self.try_shell(id, command)
            .unwrap_or_else(|error| panic!("{command:?} cannot be run in {id}: {error}"))
    }

    /// Runs a shell command as root inside a container, and returns its output.
    ///
    /// # Errors
    /// If the engine rejects the call, for example because the container has ended.
    pub fn try_shell(&self, id: &str, command: &str) -> Result<String, bollard::errors::Error> {
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
        self.runtime.block_on(run)
    }

    /// Removes every container with `label` set to `value`. A container whose removal is already in
    /// progress is ignored.
    pub fn remove_all(&self, label: &str, value: &str) {
        for id in self.containers_with_label(label, value) {
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            let _may_be_going_already = self
                .runtime
                .block_on(self.docker.remove_container(&id, Some(options)));
        }
    }

    /// Creates a container, starts it, waits until its program has ended and removes it. This is
    /// the engine's own cost of one isolated program. The container prints nothing and has no
    /// network.
    ///
    /// # Panics
    /// Panics if a step fails.
    pub fn run_once(&self, image: &str, argv: &[&str]) {
        let host = HostConfig {
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        };
        self.run_as(host, image, argv);
    }

    /// Runs Python source in a container that can trace any process of the host. The source gets
    /// `pids`, ids of host processes, as arguments and must check their memory by itself.
    ///
    /// # Panics
    /// Panics if the source exits with another code than 0, or a step fails.
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
    /// Panics if the engine fails to build it.
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

    /// Removes an image if it exists. The engine refuses while a container of the image is being
    /// removed: this retries for 20 s and then leaves the image in place.
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

    /// Waits until `enough` holds for the sandboxes in the containers with `label` set to `value`.
    /// Returns their names.
    ///
    /// # Panics
    /// Panics if it does not hold within a minute.
    #[must_use]
    pub fn wait_for_sandboxes(
        &self,
        label: &str,
        value: &str,
        enough: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        let find = || self.sandboxes_with_label(label, value);
        wait_until(&format!("the sandboxes with {label}={value}"), find, enough)
    }

    /// Waits until `enough` holds for the containers with `label` set to `value`, and returns them.
    ///
    /// # Panics
    /// Panics if it does not hold within a minute.
    #[must_use]
    pub fn wait_for(
        &self,
        label: &str,
        value: &str,
        enough: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        let find = || self.containers_with_label(label, value);
        wait_until(
            &format!("the containers with {label}={value}"),
            find,
            enough,
        )
    }
}

/// Waits until `enough` holds for the names that `find` returns, and returns them.
///
/// # Panics
/// Panics with `subject` and the names if it does not hold within a minute.
fn wait_until(
    subject: &str,
    find: impl Fn() -> Vec<String>,
    enough: impl Fn(&[String]) -> bool,
) -> Vec<String> {
    eventually(Duration::from_secs(60), || {
        let found = find();
        if enough(&found) {
            return Ok(found);
        }
        Err(format!("{subject} are {found:?}"))
    })
}

/// Returns the process ids in the engine's table of a container's processes.
fn pids_in(table: ContainerTopResponse) -> Vec<String> {
    let titles = table.titles.unwrap_or_default();
    let Some(column) = titles.iter().position(|title| title == "PID") else {
        return Vec::new();
    };
    let rows = table.processes.unwrap_or_default();
    rows.into_iter()
        .filter_map(|row| row.into_iter().nth(column))
        .collect()
}

/// Returns the number of process namespaces that a process is in, as seen from here, if it is the
/// first process of the innermost one.
fn namespaces_of_first(pid: &str) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    (ids.last() == Some(&"1")).then_some(ids.len())
}
