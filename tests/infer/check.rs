//! `sandhog images check` and `build` of images with a model.

use std::process::Output;

use sandhog_testkit::environment;
use sandhog_testkit::namespace::TestNamespace;

use crate::fixture::ModelImageFixture;

fn images(toy: &ModelImageFixture, words: &[&str], memory: &str) -> Output {
    environment::sandhog_command()
        .args(words)
        .arg(toy.name().as_str())
        .env("SANDHOG_SANDBOX_IMAGE_REFERENCE", toy.template())
        .env("SANDHOG_SANDBOX_MEMORY", memory)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_model_that_does_not_load_fails_its_check_with_its_log_line_by_line() {
    let space = TestNamespace::shared("check");
    let broken = ModelImageFixture::build(&space, "Broken", "");
    let checked = images(&broken, &["images", "check"], "512MiB");
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert_eq!(text(&checked.stdout), "");
    assert!(
        said.contains("does not load its model: FileNotFoundError: no weights here"),
        "{said}"
    );
    assert!(said.contains("\nlooking for the weights\n"), "{said}");
    assert!(!said.contains('\u{fffd}'), "{said}");

    let well = ModelImageFixture::build(&space, "Toy", "warm_up = \"hello\"\n");
    let checked = images(&well, &["images", "check"], "512MiB");
    let said = text(&checked.stdout);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(said.contains(", model loaded in "), "{said}");

    let raises = ModelImageFixture::build(&space, "Toy", "warm_up = \"bad\"\n");
    let checked = images(&raises, &["images", "check"], "512MiB");
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(
        said.contains("its warm-up failed: ValueError: bad ones among"),
        "{said}"
    );
}

#[test]
fn an_image_whose_jobs_have_no_room_here_is_told_of() {
    let space = TestNamespace::shared("large");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    let checked = images(&toy, &["images", "check"], "128MiB");
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    for part in ["256MiB", "limits.memory", "128MiB", "sandbox.memory"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_question_that_failed_prints_no_answer_and_a_log_line_by_line() {
    let space = TestNamespace::shared("told");
    let broken = ModelImageFixture::build(&space, "Broken", "");
    let well = ModelImageFixture::build(&space, "Toy", "");
    let _worker = ModelImageFixture::worker_of_all(&space).start();
    let infer = |words: &[&str]| {
        environment::sandhog_command()
            .arg("infer")
            .args(words)
            .env("SANDHOG_REDIS_URL", space.url())
            .env("SANDHOG_NAMESPACE", space.namespace().as_str())
            .output()
            .unwrap()
    };
    let lost = infer(&[broken.name().as_str(), "--text", "hi"]);
    let said = text(&lost.stderr);
    assert_eq!(text(&lost.stdout), "", "{said}");
    assert!(said.contains("\n  looking for the weights\n"), "{said}");
    assert!(!said.contains('\u{fffd}'), "{said}");
    assert!(!said.contains("no fault of the program"), "{said}");

    for words in [
        [well.name().as_str(), "--input", "1", "--method", "absent"],
        [well.name().as_str(), "--input", "1", "--path", "/slots"],
    ] {
        let failed = infer(&words);
        let said = text(&failed.stderr);
        assert!(!failed.status.success(), "{said}");
        assert_eq!(text(&failed.stdout), "", "{said}");
        assert!(
            said.contains("absent") || said.contains("want method"),
            "{said}"
        );
    }
    let answered = infer(&[well.name().as_str(), "--input", "null", "--method", "gpus"]);
    assert_eq!(text(&answered.stdout), "null\n", "the call is answered");
}
