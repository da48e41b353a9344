//! The commands in the READMEs of the images, taken from the pages and run without changes.
//!
//! A comment `# prints TEXT` after a command gives its expected output.

use std::process::Command;

use sandhog_testkit::environment;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;

/// Marks a command's output on a page.
const PRINTS: &str = "# prints ";

#[test]
fn the_commands_in_the_readmes_of_images_work() {
    let space = TestNamespace::shared("readmes");
    let _worker = WorkerSpec::of(&space).start();
    let programs = environment::sandhog();
    let programs = programs.parent().expect("a program is in a folder");
    let mut ran = 0;
    for image in ["python", "node", "cpp", "datascience"] {
        let page = environment::checkout().join(format!("images/{image}/README.md"));
        let page = std::fs::read_to_string(page).expect("each image has a README");
        for block in page.split("```sh\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            if !block.contains("sandhog run") {
                continue;
            }
            let home = tempfile::tempdir().expect("a temporary folder can be made");
            let run = Command::new("bash")
                .args(["-euo", "pipefail", "-c", block])
                .current_dir(home.path())
                .env_clear()
                .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
                .env("HOME", home.path())
                .env("SANDHOG_REDIS_URL", space.url())
                .env("SANDHOG_NAMESPACE", space.namespace().as_str())
                .output()
                .expect("bash starts");
            let printed = String::from_utf8_lossy(&run.stdout);
            let said = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success(), "{image}: {block}\n{printed}{said}");
            let want: Vec<&str> = block
                .lines()
                .filter_map(|line| Some(line.split_once(PRINTS)?.1))
                .collect();
            assert_eq!(printed.lines().collect::<Vec<_>>(), want, "{image}: {said}");
            ran += 1;
        }
    }
    assert!(ran >= 3, "only {ran} blocks of commands were found");
}
