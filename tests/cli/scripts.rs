//! Messages of the scripts to a user who is not root: the reason why a script ends is on the
//! terminal.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use sandhog_testkit::environment::checkout;

/// System programs that the scripts may use here. `sudo` is not among them.
const PROGRAMS: [&str; 12] = [
    "bash", "cat", "cut", "env", "grep", "head", "mktemp", "rm", "sed", "sh", "sort", "tail",
];

/// A machine with fake programs, and a user named `ann` without root.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// Makes a machine with these programs, each a shell script.
    fn with(programs: &[(&str, &str)]) -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for (name, script) in programs {
            machine.add(name, script);
        }
        if !machine.path("id").exists() {
            machine.add(
                "id",
                "case $* in -u) echo 1000 ;; -un) echo ann ;; *) echo ann users ;; esac",
            );
        }
        for name in PROGRAMS {
            let real = ["/usr/bin", "/bin"]
                .iter()
                .map(|dir| format!("{dir}/{name}"))
                .find(|path| fs::exists(path).unwrap())
                .unwrap();
            if !machine.path(name).exists() {
                symlink(real, machine.path(name)).unwrap();
            }
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds a program that does not exist yet, because writing to a link would change the real
    /// program. Another process writes the file, because a program that a fork of this process
    /// still has open cannot be executed.
    fn add(&self, name: &str, script: &str) {
        let write =
            "set -o noclobber; printf '#!/bin/bash\\n%s\\n' \"$1\" >\"$2\" && chmod 755 \"$2\"";
        let path = self.path(name);
        let mut command = Command::new("/bin/bash");
        command.args(["-c", write, "bash", script]).arg(path);
        assert!(command.status().unwrap().success(), "{name} is written");
    }

    /// Runs shell text after `scripts/lib/setup.sh`. Returns the exit code and the standard error.
    fn run(&self, text: &str) -> (Option<i32>, String) {
        let script = format!("set -euo pipefail; . scripts/lib/setup.sh; PATH=$ONLY; {text}");
        let run = Command::new("/bin/bash")
            .args(["-c", &script])
            .current_dir(checkout())
            .env_clear()
            .env("PATH", self.folder.path())
            .env("ONLY", self.folder.path())
            .env("HOME", self.folder.path())
            .output()
            .unwrap();
        let error = String::from_utf8(run.stderr).unwrap();
        (run.status.code(), error)
    }
}

const APT: (&str, &str) = ("apt-get", "echo \"E: broken\" >&2; exit 100");
const DENIED: (&str, &str) = (
    "docker",
    "echo 'ERROR: Got permission denied while trying to connect' >&2; exit 1",
);

#[test]
fn a_user_without_root_reads_why_a_script_ends() {
    let sudo_refuses = ("sudo", "echo 'ann is not in the sudoers file.' >&2; exit 1");
    let sudo_works = (
        "sudo",
        "[ $1 != -n ] || shift; [ $1 != -v ] || exit 0; \"$@\"",
    );
    let in_group = (
        "id",
        "case $* in -u) echo 1000 ;; -un) echo ann ;; *) echo ann docker ;; esac",
    );
    for (case, programs, text, want) in [
        (
            "no sudo",
            &[APT][..],
            "install_packages uidmap",
            "error: installing uidmap needs root, and ann has no sudo\n\
             hint: have an administrator run this, then run the script again: \
             apt-get install --no-install-recommends uidmap\n",
        ),
        (
            "sudo refuses",
            &[APT, sudo_refuses],
            "install_packages uidmap",
            "==> installing uidmap needs root: sudo asks for the password of ann\n\
             ann is not in the sudoers file.\n\
             error: installing uidmap needs root, and sudo refused it to ann\n\
             hint: have an administrator run this, then run the script again: \
             apt-get install --no-install-recommends uidmap\n",
        ),
        (
            "apt-get fails",
            &[APT, sudo_works, ("mktemp", "echo $HOME/log")],
            "install_packages uidmap",
            "==> installing: uidmap\n\
             E: broken\n\
             error: apt-get could not install: uidmap\n\
             hint: the whole log is HOME/log\n",
        ),
        (
            "outside group docker",
            &[APT, DENIED],
            "ensure_packages",
            "error: the container engine runs, but ann may not use it\n\
             hint: sudo usermod -aG docker ann, then log out and in again \
             (the group docker is as good as root)\n",
        ),
        (
            "not logged in again",
            &[APT, DENIED, in_group],
            "ensure_docker",
            "error: the container engine runs, but this session of ann is not in the group docker \
             yet\n\
             hint: log out and in again, or run: newgrp docker\n",
        ),
        (
            "engine down and no sudo",
            &[
                ("docker", "echo 'Cannot connect' >&2; exit 1"),
                ("dockerd", ""),
            ],
            "ensure_docker",
            "error: starting the container engine needs root, and ann has no sudo\n\
             hint: have an administrator run this, then run the script again: \
             systemctl start docker\n",
        ),
    ] {
        let machine = Machine::with(programs);
        let (code, error) = machine.run(text);
        let error = error.replace(&machine.folder.path().display().to_string(), "HOME");
        assert_eq!((code, error.as_str()), (Some(1), want), "case {case}");
    }
}

#[test]
fn packages_for_the_base_image_are_asked_for_only_where_it_is_missing() {
    let has_image = "[ \"$1 $2\" != 'image inspect' ] || exit 0";
    let lacks_image = "[ \"$1 $2\" != 'image inspect' ] || exit 1";
    for (case, docker, want) in [("there", has_image, false), ("missing", lacks_image, true)] {
        let machine = Machine::with(&[("docker", docker)]);
        let (code, missing) = machine.run("missing_packages >&2");
        assert_eq!(code, Some(0), "case {case}");
        for package in ["mmdebstrap", "uidmap"] {
            assert_eq!(missing.contains(package), want, "case {case}: {missing}");
        }
        assert!(!missing.contains("docker.io"), "case {case}: {missing}");
    }
}
