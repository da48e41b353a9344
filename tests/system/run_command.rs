//! The command `sandhog run` beside a worker: its output for each way a job can end, and its
//! treatment of files.

use std::path::Path;
use std::process::Output;

use sandhog_testkit::environment;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;

/// A user with an empty home folder and a queue.
struct Person<'a> {
    space: &'a TestNamespace,
    home: tempfile::TempDir,
}

impl<'a> Person<'a> {
    fn at(space: &'a TestNamespace, files: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        for (name, text) in files {
            let path = home.path().join(name);
            let folder = path.parent().expect("a file is in a folder");
            std::fs::create_dir_all(folder).expect("folders can be made");
            std::fs::write(path, text).expect("files can be written");
        }
        Self { space, home }
    }

    fn run(&self, words: &[&str]) -> Output {
        environment::sandhog_command()
            .arg("run")
            .args(words)
            .envs(environment::home_environment(self.home.path()))
            .env("SANDHOG_REDIS_URL", self.space.url())
            .env("SANDHOG_NAMESPACE", self.space.namespace().as_str())
            .current_dir(self.home.path())
            .output()
            .expect("sandhog starts")
    }

    /// Runs a command and returns its exit code, standard output and standard error.
    fn sees(&self, words: &[&str]) -> (i32, String, String) {
        let output = self.run(words);
        let code = output.status.code().expect("no signal ended it");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("sandhog prints text");
        (code, text(output.stdout), text(output.stderr))
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.home.path().join(name)).ok()
    }

    fn path(&self) -> &Path {
        self.home.path()
    }
}

#[test]
fn every_ending_has_a_reason() {
    let space = TestNamespace::shared("run-endings");
    let _worker = WorkerSpec::of(&space).start();
    let person = Person::at(&space, &[]);
    for (case, words, code, said) in [
        ("success", &["-c", "print(1)"][..], 0, ""),
        (
            "a missing program",
            &["--", "nosuchprog"],
            127,
            "sandhog: the program \"nosuchprog\" could not be started: No such file or directory \
             (os error 2)\n\
             hint: the program must be in the image python, or be added with --put and called as \
             ./NAME\n",
        ),
        (
            "no value",
            &["--expect-value", "-c", "print(1)"],
            1,
            "sandhog: the code ended without the value that the job expects\n",
        ),
        (
            "an exit code in silence",
            &["-c", "raise SystemExit(3)"],
            3,
            "sandhog: the program exited with code 3\n",
        ),
        (
            "the same, quietly",
            &["-q", "-c", "raise SystemExit(3)"],
            3,
            "",
        ),
        (
            "an exit code after a message",
            &["-c", "raise SystemExit('no')"],
            1,
            "no\n",
        ),
        (
            "a signal",
            &["-c", "import os; os.kill(os.getpid(), 11)"],
            139,
            "sandhog: ended by SIGSEGV\n",
        ),
        (
            "output without a line end, cut",
            &["--output", "4096", "-c", "print('x' * 5000, end='')"],
            0,
            "sandhog: standard output was cut: 4.0 KiB of 4.8 KiB are kept (--output SIZE raises \
             the limit)\n",
        ),
        (
            "another image's language",
            &["-i", "python", "-l", "javascript", "-c", "1"],
            65,
            "sandhog: rejected: image python does not run language \"javascript\" (it runs bash, \
             python)\n\
             hint: --image node runs javascript\n",
        ),
    ] {
        let (found, _, told) = person.sees(words);
        assert_eq!((found, told.as_str()), (code, said), "case {case}");
    }
}

#[test]
fn a_program_gets_its_arguments_and_its_image() {
    let space = TestNamespace::shared("run-arguments");
    let _worker = WorkerSpec::of(&space).start();
    let person = Person::at(
        &space,
        &[
            ("s.sh", "echo \"$#: $*\"\n"),
            ("s.py", "import sys; print(sys.argv[1:])\n"),
            ("a.js", "console.log(6 * 7)\n"),
            (
                "hello.cpp",
                "#include <cstdio>\nint main() { std::puts(\"c++\"); }\n",
            ),
            (
                "hello.c",
                "#include <stdio.h>\nint main(void) { int class = 0; return puts(\"c\") < class; \
                 }\n",
            ),
        ],
    );
    for (words, want) in [
        (&["s.sh", "bob", "ann"][..], "2: bob ann\n"),
        (&["s.sh", "--", "-v", "bob"], "2: -v bob\n"),
        (&["s.py", "-a", "-v", "bob"], "['-v', 'bob']\n"),
        (
            &["-c", "import sys; print(sys.argv[1:])", "--", "x"],
            "['x']\n",
        ),
        (&["-l", "javascript", "-c", "console.log('js')"], "js\n"),
        (&["a.js"], "42\n"),
        (&["hello.cpp"], "c++\n"),
        (&["hello.c"], "c\n"),
        (
            &[
                "--retry-on",
                "failed",
                "--ttl",
                "1m",
                "--delay",
                "1ms",
                "s.py",
            ],
            "[]\n",
        ),
    ] {
        assert_eq!(
            person.sees(words),
            (0, want.to_owned(), String::new()),
            "{words:?}"
        );
    }
}

#[test]
fn a_folder_is_put_with_its_paths() {
    let space = TestNamespace::shared("run-put");
    let _worker = WorkerSpec::of(&space).start();
    let person = Person::at(
        &space,
        &[
            ("main.py", "import mypkg.sub; print(mypkg.sub.NAME)\n"),
            ("mypkg/__init__.py", ""),
            ("mypkg/sub/__init__.py", "NAME = 'sub'\n"),
            ("mypkg/__pycache__/x.pyc", "x"),
        ],
    );
    assert_eq!(
        person.sees(&["main.py", "--put", "mypkg"]),
        (
            0,
            "sub\n".to_owned(),
            "sandhog: put 2 files of mypkg (13 B), without mypkg/__pycache__\n".to_owned()
        )
    );
}

#[test]
fn fetched_files_are_listed_and_overwrite_nothing() {
    let space = TestNamespace::shared("run-fetch");
    let _worker = WorkerSpec::of(&space).start();
    let person = Person::at(&space, &[("keep.txt", "precious")]);
    std::os::unix::fs::symlink("elsewhere", person.path().join("link.txt"))
        .expect("a link can be made");
    let code = "import os\n\
                for name in ('.git/hooks', 'out'): os.makedirs(name)\n\
                for name in ('keep.txt', 'link.txt', 'new.txt', '.bashrc', \
                '.git/hooks/pre-commit', 'out/a.txt'):\n    \
                open(name, 'w').write('evil')\n";
    let (exit, _, told) = person.sees(&["-c", code, "--fetch", "**"]);
    assert_eq!(
        (exit, told.as_str()),
        (
            73,
            "sandhog: saved new.txt (4 B)\n\
             sandhog: saved out/a.txt (4 B)\n\
             sandhog: not saved: keep.txt: a file of this name exists\n\
             sandhog: not saved: link.txt: link.txt is a symbolic link\n\
             hint: --force overwrites files, --save FOLDER writes to another folder\n"
        )
    );
    assert_eq!(person.read("keep.txt").as_deref(), Some("precious"));
    assert_eq!(person.read("new.txt").as_deref(), Some("evil"));
    for name in ["elsewhere", ".bashrc", ".git/hooks/pre-commit"] {
        assert_eq!(person.read(name), None, "{name}");
    }
    let (exit, _, told) = person.sees(&["-c", code, "--fetch", "*.txt", "--force"]);
    assert_eq!(exit, 73, "the link is left alone: {told}");
    assert_eq!(person.read("keep.txt").as_deref(), Some("evil"));
    assert_eq!(person.read("elsewhere"), None);

    let big = "open('big.bin', 'wb').write(b'0' * 5_000_000)";
    let (exit, _, told) = person.sees(&["-c", big, "--fetch", "*.bin", "--save", "ro"]);
    assert_eq!(
        (exit, told.as_str()),
        (
            73,
            "sandhog: not fetched: big.bin: too large for what may be brought back\n\
             hint: --fetch-size SIZE raises the limit\n"
        )
    );
    let (exit, _, told) = person.sees(&["-c", "1", "--fetch", "nothing*", "--fetch", "out.png"]);
    assert_eq!(
        (exit, told.as_str()),
        (
            73,
            "sandhog: --fetch \"nothing*\" matched no file\n\
             sandhog: --fetch \"out.png\" matched no file\n"
        )
    );
    let (exit, _, told) = person.sees(&["-q", "-c", "1", "--fetch", "nothing*"]);
    assert_eq!(
        (exit, told.as_str()),
        (0, "sandhog: --fetch \"nothing*\" matched no file\n")
    );
    let (exit, printed, told) = person.sees(&["--json", "-c", "1", "--fetch", "out.png"]);
    assert_eq!(exit, 73, "{told}");
    assert!(
        printed.starts_with('{') && told.starts_with("{\"error\":"),
        "{told}"
    );
}
