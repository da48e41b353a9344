//! Findings about keepers: the facts of each, and the features that it lacks.

use std::path::Path;

use sandhog_core::error_chain::error_chain;
use sandhog_core::id::clip;
use sandhog_protocol::frames::CgroupSupport;
use sandhog_protocol::keeper::Hello;

use super::Finding;
use crate::sandbox::keepers::{KeeperReport, survey};

/// Number of characters of a build's digest that are shown.
const BUILD_LENGTH: usize = 12;

/// Maximum length of the list of missing features, in characters.
const MISSING_LENGTH: usize = 400;

/// Reports each keeper in a directory of sockets.
pub(super) async fn check_directory(directory: &Path, found: &mut (dyn FnMut(Finding) + Send)) {
    match survey(directory).await {
        Ok(reports) => reports.iter().map(keeper_finding).for_each(found),
        Err(error) => {
            let detail = format!("{} cannot be read: {error}", directory.display());
            found(Finding::ok("keepers", detail).fail(Some(
                "make the directory and start keepers with their sockets in it, or set \
                 sandbox.engine to the directory of your keepers; the worker's user must be able \
                 to enter it",
            )));
        }
    }
}

/// Returns the finding about one keeper.
pub(super) fn keeper_finding(report: &KeeperReport) -> Finding {
    let subject = format!("keeper {}", report.name);
    let hello = match &report.answer {
        Ok(hello) => hello,
        Err(error) => return Finding::ok(&subject, error_chain(error)).fail(error.hint()),
    };
    let finding = Finding::ok(&subject, detail(hello));
    if hello.stopping {
        finding
            .warn("it is stopping and makes no more sandboxes: start another keeper of the image")
    } else if !hello.missing.is_empty() {
        let missing = clip(&hello.missing.join("; "), MISSING_LENGTH);
        finding.warn(&format!("missing in its container: {missing}"))
    } else if hello.memory_max.is_none() {
        finding.warn(
            "give its container a memory limit: the sandboxes of the image could together use \
             all memory of the machine",
        )
    } else {
        finding
    }
}

fn detail(hello: &Hello) -> String {
    let cgroup = match hello.cgroup {
        CgroupSupport::V2 => "cgroup v2",
        CgroupSupport::V1 => "cgroup v1",
        CgroupSupport::None => "no cgroups",
    };
    let mib = |bytes: u64| bytes >> 20;
    let in_use = (hello.memory_in_use).map_or("?".to_owned(), |bytes| mib(bytes).to_string());
    let memory = match hello.memory_max {
        Some(most) => format!("{in_use} of {} MiB in use", mib(most)),
        None => format!("{in_use} MiB in use, no memory limit"),
    };
    let cpu = match hello.cpu_millis {
        Some(cpu) => format!("{}.{} cores", cpu / 1000, cpu % 1000 / 100),
        None => "all cores".to_owned(),
    };
    let user = if hello.user_namespace {
        ", a user namespace"
    } else {
        ""
    };
    format!(
        "image {}, build {}, {memory}, {cpu}, {cgroup}{user}, sandboxes: {}",
        hello.image,
        clip(&hello.build, BUILD_LENGTH),
        hello.sandboxes,
    )
}

#[cfg(test)]
mod tests {
    use crate::doctor::Severity;
    use crate::sandbox::SandboxError;

    use super::*;

    fn hello() -> Hello {
        Hello {
            image: "python".to_owned(),
            build: "0123456789ab".to_owned(),
            memory_max: Some(4 << 30),
            memory_in_use: Some(12 << 20),
            cpu_millis: Some(1500),
            cgroup: CgroupSupport::V2,
            sandboxes: 3,
            ..Hello::default()
        }
    }

    fn finding(answer: Result<Hello, SandboxError>) -> Finding {
        keeper_finding(&KeeperReport {
            name: "python.sock".to_owned(),
            answer,
        })
    }

    #[test]
    fn a_keeper_is_shown_with_its_facts() {
        let shown = finding(Ok(hello()));
        assert_eq!(shown.health, Severity::Ok);
        assert_eq!(shown.subject, "keeper python.sock");
        assert_eq!(
            shown.detail,
            "image python, build 0123456789ab, 12 of 4096 MiB in use, 1.5 cores, cgroup v2, \
             sandboxes: 3"
        );
    }

    #[test]
    fn defects_of_a_keeper_have_advice() {
        let lacking = Hello {
            cgroup: CgroupSupport::None,
            missing: vec!["no cgroup per cell".to_owned()],
            ..hello()
        };
        let stopping = Hello {
            stopping: true,
            ..hello()
        };
        let uncapped = Hello {
            memory_max: None,
            ..hello()
        };
        for (hello, want) in [
            (lacking, "no cgroup per cell"),
            (stopping, "is stopping"),
            (uncapped, "memory limit"),
        ] {
            let shown = finding(Ok(hello));
            assert_eq!(shown.health, Severity::Warn, "{want}");
            let hint = shown.hint.unwrap_or_default();
            assert!(hint.contains(want), "{hint}");
        }
        let away = finding(Err(SandboxError::KeeperAway {
            socket: "/run/sandhog/python.sock".to_owned(),
            source: "connection refused".into(),
        }));
        assert_eq!(away.health, Severity::Fail);
        assert!(away.detail.contains("connection refused"), "{away:?}");
        assert!(away.hint.is_some(), "{away:?}");
    }
}
