//! Arguments and environment of a program. The environment is built from scratch.

use std::ffi::CString;

use nix::errno::Errno;

use sandhog_protocol::frames::{
    Call, INFER_FD, INFER_FD_VARIABLE, INPUT_FILE, INPUT_VARIABLE, OpenCell,
};
use sandhog_protocol::install::WORK_DIR;

use super::etc::USER;

/// Search path for programs if the job names no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that limit how many threads a library or a runtime starts. Without them it would use
/// the number of the machine's cores. `UV_THREADPOOL_SIZE` is not included: Node.js starts four
/// threads for input and output on any machine.
const THREAD_COUNTS: [&str; 12] = [
    "BLIS_NUM_THREADS",
    "GOMAXPROCS",
    "JULIA_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "PYTHON_CPU_COUNT",
    "RAYON_NUM_THREADS",
];

/// Returns the thread counts for a share of the machine in thousandths of a core. The share is
/// rounded up to whole cores.
pub(crate) fn thread_counts(cpu_millis: u64) -> impl Iterator<Item = (String, String)> {
    let cores = cpu_millis.div_ceil(1000).max(1).to_string();
    THREAD_COUNTS
        .iter()
        .map(move |name| ((*name).to_owned(), cores.clone()))
}

/// Arguments and environment of a program, ready for exec.
#[derive(Debug)]
pub(super) struct CommandLine {
    /// Paths of the executable to try, in order.
    pub(super) candidates: Vec<CString>,
    /// The arguments, including the program's name.
    pub(super) argv: Vec<CString>,
    /// The environment.
    pub(super) env: Vec<CString>,
}

impl CommandLine {
    /// Adds the job's variables to the cell's own and determines where the executable may be.
    ///
    /// # Errors
    /// `EINVAL` for a NUL in an argument or a variable, and for a variable without a name or with
    /// `=` in its name. `ENOENT` if there is no first argument or it is empty.
    pub(super) fn new(
        argv: &[String],
        cpu_millis: u64,
        job: &[(String, String)],
    ) -> Result<Self, Errno> {
        let env = variables(cpu_millis, job)?;
        let path = env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map_or("", |(_, value)| value);
        let program = argv
            .first()
            .filter(|word| !word.is_empty())
            .ok_or(Errno::ENOENT)?;
        let places = if program.contains('/') {
            vec![program.clone()]
        } else {
            path.split(':')
                // An empty entry means the current directory and is hardly ever intended.
                .filter(|dir| !dir.is_empty())
                .map(|dir| format!("{dir}/{program}"))
                .collect()
        };
        Ok(Self {
            candidates: c_strings(places)?,
            argv: c_strings(argv.iter().cloned())?,
            env: c_strings(
                env.into_iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )?,
        })
    }
}

/// Returns the variables of a call's program: those of its cell, the path of the input file, if the
/// call has one, and the descriptor for inference requests, if the program may send them.
pub(super) fn call_environment(open: &OpenCell, call: &Call) -> Vec<(String, String)> {
    let mut env = open.env.clone();
    if call.input_json.is_some() {
        env.push((INPUT_VARIABLE.to_owned(), INPUT_FILE.to_owned()));
    }
    if call.infer_quota.is_some() {
        env.push((INFER_FD_VARIABLE.to_owned(), INFER_FD.to_string()));
    }
    env
}

/// Returns the cell's own variables, including the thread counts, followed by the job's. A variable
/// of the job replaces one of the same name.
///
/// # Errors
/// `EINVAL` for a variable without a name or with `=` in its name.
pub(super) fn variables(
    cpu_millis: u64,
    job: &[(String, String)],
) -> Result<Vec<(String, String)>, Errno> {
    let own = [
        ("PATH", PATH),
        ("HOME", WORK_DIR),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", USER),
        ("USER", USER),
        ("TMPDIR", "/tmp"),
    ];
    let mut all: Vec<(String, String)> = own
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .chain(thread_counts(cpu_millis))
        .collect();
    for (name, value) in job {
        if name.is_empty() || name.contains('=') {
            return Err(Errno::EINVAL);
        }
        match all.iter_mut().find(|(known, _)| known == name) {
            Some(slot) => slot.1.clone_from(value),
            None => all.push((name.clone(), value.clone())),
        }
    }
    Ok(all)
}

fn c_strings(texts: impl IntoIterator<Item = String>) -> Result<Vec<CString>, Errno> {
    texts
        .into_iter()
        .map(|text| CString::new(text).map_err(|_nul| Errno::EINVAL))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn the_jobs_variables_lie_on_top_and_steer_the_search() {
        let job = [pair("PATH", "/a::/b"), pair("X", "1=2"), pair("X", "3")];
        let invocation = CommandLine::new(&words(&["tool", "-v"]), 1500, &job).unwrap();
        let places: Vec<_> = invocation
            .candidates
            .iter()
            .map(|c| c.to_str().unwrap())
            .collect();
        assert_eq!(places, ["/a/tool", "/b/tool"]);
        let (counts, env): (Vec<_>, Vec<_>) = (invocation.env.iter())
            .map(|variable| variable.to_str().unwrap())
            .partition(|text| THREAD_COUNTS.iter().any(|name| text.starts_with(name)));
        assert_eq!(counts.len(), THREAD_COUNTS.len());
        assert!(counts.contains(&"OMP_NUM_THREADS=2"), "{counts:?}");
        assert_eq!(
            env,
            [
                "PATH=/a::/b",
                "HOME=/work",
                "LANG=C.UTF-8",
                "LOGNAME=sandbox",
                "USER=sandbox",
                "TMPDIR=/tmp",
                "X=3"
            ]
        );
    }

    #[test]
    fn a_share_of_a_core_counts_as_one_and_the_job_has_the_last_word() {
        for (cpu_millis, want) in [(10, "1"), (1000, "1"), (1001, "2"), (64_000, "64")] {
            let counts: Vec<_> = thread_counts(cpu_millis).collect();
            assert!(counts.iter().all(|(_, value)| value == want), "{counts:?}");
        }
        let own = [pair("GOMAXPROCS", "7")];
        let all = variables(2000, &own).unwrap();
        let named: Vec<_> = all
            .iter()
            .filter(|(name, _)| name == "GOMAXPROCS")
            .collect();
        assert_eq!(named, [&own[0]]);
    }

    #[test]
    fn a_slash_means_no_search() {
        let invocation = CommandLine::new(&words(&["./tool"]), 1000, &[]).unwrap();
        assert_eq!(invocation.candidates, [c"./tool".to_owned()]);
    }

    type Case<'a> = (&'a str, &'a [&'a str], &'a [(String, String)], Errno);

    #[test]
    fn what_no_exec_could_take_is_refused() {
        let cases: [Case<'_>; 5] = [
            ("no words", &[], &[], Errno::ENOENT),
            ("an empty program", &[""], &[], Errno::ENOENT),
            ("NUL in a word", &["a", "b\0c"], &[], Errno::EINVAL),
            ("an empty name", &["a"], &[pair("", "x")], Errno::EINVAL),
            ("= in a name", &["a"], &[pair("a=b", "x")], Errno::EINVAL),
        ];
        for (name, argv, env, errno) in cases {
            assert_eq!(
                CommandLine::new(&words(argv), 1000, env).unwrap_err(),
                errno,
                "{name}"
            );
        }
    }
}
