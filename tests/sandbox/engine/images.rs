//! Images: the resolution of names, and building, listing and checking.

use sandhog_testkit::eventually::eventually_async;
use std::path::Path;

use sandhog_config::SandboxSettings;
use sandhog_core::outcome::Fault;
use sandhog_worker::images::{self, BuildEvent, BuildOptions, ImageError, ImageSources};

use super::fixture::{EngineFixture, WAIT_TIMEOUT, name, settings};

const CONTRACT: &str = r#"
    contract = 1
    name = "NAME"
    summary = "made by a test"
    language = "bash"
    check = "[ \"$GREETING\" = hello ] && [ \"$(cat /made)\" = one ]"
    [languages.bash]
    style = "file"
    file = "main.sh"
    argv = ["/bin/bash", "main.sh"]
    [env]
    GREETING = "hello"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn images_that_cannot_be_used_are_the_submitters_fault() {
    let fixture = EngineFixture::new("resolve").await;
    let volume = "sandhog-test/volume:latest";
    fixture
        .build(volume, "FROM sandhog/python:latest\nVOLUME /data\n", &[])
        .await;
    let broken = "sandhog-test/broken:latest";
    fixture
        .build(
            broken,
            "FROM sandhog/python:latest\nLABEL sandhog.contract=nonsense\n",
            &[],
        )
        .await;
    for (text, code) in [
        ("no-such-image", "unknown_image"),
        ("No.Such_Image", "unknown_image"),
        ("nowhere.invalid:5000/a/b@sha256:00", "unknown_image"),
        ("x/../../containers", "unknown_image"),
        ("..", "unknown_image"),
        ("sandhog/base-bookworm:latest", "bad_image"),
        (broken, "bad_image"),
        (volume, "bad_image"),
    ] {
        let error = fixture.sandboxes.resolve(&name(text)).await.unwrap_err();
        assert_eq!(error.code(), code, "{text}: {error}");
        assert_eq!(error.fault(), Fault::Submitter, "{text}");
    }
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_image_is_noticed() {
    let fixture = EngineFixture::new("rebuilt").await;
    let reference = "sandhog-test/rebuilt:latest";
    let build = |what: &'static str| {
        let dockerfile = format!("FROM sandhog/python:latest\nLABEL build={what}\n");
        let fixture = &fixture;
        async move { fixture.build(reference, &dockerfile, &[]).await }
    };
    build("one").await;
    let first = fixture.sandboxes.resolve(&name(reference)).await.unwrap();
    build("two").await;
    eventually_async(WAIT_TIMEOUT, async || {
        let now = fixture.sandboxes.resolve(&name(reference)).await.unwrap();
        if now.digest != first.digest {
            return Ok(());
        }
        Err(format!("still {}", now.digest))
    })
    .await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_rebuilt_and_removed_under_a_worker_is_found_again() {
    let fixture = EngineFixture::new("removed").await;
    let reference = "sandhog-test/removed:latest";
    let dockerfile = |what| format!("FROM sandhog/python:latest\nLABEL build={what}\n");
    fixture.build(reference, &dockerfile("one"), &[]).await;
    let stale = fixture.sandboxes.resolve(&name(reference)).await.unwrap();
    fixture.build(reference, &dockerfile("two"), &[]).await;
    fixture.remove_image(stale.digest.as_str()).await;

    let sandbox = fixture.sandboxes.start(&stale).await.unwrap();
    assert_ne!(sandbox.image().digest, stale.digest);
    sandbox.destroy().await;
    fixture.leave().await;
    let gone = EngineFixture::new("gone").await;
    let error = gone.sandboxes.start(&stale).await.unwrap_err();
    assert_eq!(error.code(), "unknown_image");
    gone.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_image_that_ships_is_current_and_passes_its_check() {
    let fixture = EngineFixture::new("ships").await;
    let settings = SandboxSettings {
        images_dir: Some(sandhog_testkit::environment::checkout().join("images")),
        ..settings()
    };
    let sources = ImageSources::find(&settings).unwrap();
    let names = sources.names().unwrap();
    let all = [
        "cpp",
        "datascience",
        "embed",
        "node",
        "ocr",
        "python",
        "smollm2",
    ];
    assert_eq!(names, all.map(name));
    let listed = images::list(&fixture.sandboxes, &settings).await.unwrap();
    for name in names {
        let own = listed.iter().find(|found| found.name == name).unwrap();
        assert_eq!(own.current, Some(true), "build {name} again");
        let checked = images::check(&fixture.sandboxes, &name).await.unwrap();
        assert!(checked.report.is_some_and(|report| report.clean), "{name}");
        assert_eq!(checked.features.missing, Vec::<String>::new());
    }
    fixture.leave().await;
}

/// Returns a folder with one image in it.
fn folder(image: &str, dockerfile: &str) -> (tempfile::TempDir, SandboxSettings) {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join(image);
    std::fs::create_dir(&own).unwrap();
    write(&own, "Dockerfile", dockerfile);
    write(&own, "image.toml", &CONTRACT.replace("NAME", image));
    write(&own, "made", "one");
    let settings = SandboxSettings {
        images_dir: Some(dir.path().to_path_buf()),
        image_reference: "sandhog-test/{name}:latest".to_owned(),
        ..settings()
    };
    (dir, settings)
}

fn write(folder: &Path, file: &str, text: &str) {
    std::fs::write(folder.join(file), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_built_once_from_the_same_files() {
    let fixture = EngineFixture::new("build").await;
    let unique = uuid::Uuid::now_v7().simple().to_string();
    let image = format!("built-{unique}");
    // The Dockerfile sets a user and an entry point; the build must replace both.
    let (dir, settings) = folder(
        &image,
        "FROM sandhog/base-bookworm\nCOPY made /made\nRUN useradd --uid 1000 someone\n\
         USER someone\n\
         ENTRYPOINT [\"/bin/false\"]\n",
    );
    let sandboxes = fixture.with_settings(&settings).await;
    let build = async |options: &BuildOptions| {
        let mut steps = 0;
        let built = images::build(
            &sandboxes,
            &settings,
            &[],
            options,
            &mut |event| match event {
                BuildEvent::Step { .. } => steps += 1,
                BuildEvent::Base { .. }
                | BuildEvent::Started { .. }
                | BuildEvent::Line { .. }
                | BuildEvent::Finished(_) => {}
            },
        )
        .await
        .unwrap()
        .remove(0);
        (built, steps)
    };
    let plain = BuildOptions::default();
    let (first, steps) = build(&plain).await;
    assert!(!first.cached && steps > 0);
    let (second, steps) = build(&plain).await;
    assert!(second.cached && steps == 0);
    assert_eq!(second.digest, first.digest);

    let checked = images::check(&sandboxes, &name(&image)).await.unwrap();
    assert_eq!(checked.image.digest, first.digest);
    assert!(checked.report.is_some_and(|report| report.clean));

    let listed = images::list(&sandboxes, &settings).await.unwrap();
    let own = listed
        .iter()
        .find(|found| found.name == name(&image))
        .unwrap();
    assert_eq!(own.current, Some(true));
    assert_eq!(own.languages, ["bash"]);
    assert_eq!(own.digest.as_deref(), Some(first.digest.as_str()));

    write(&dir.path().join(&image), "made", "two");
    let listed = images::list(&sandboxes, &settings).await.unwrap();
    let own = listed
        .iter()
        .find(|found| found.name == name(&image))
        .unwrap();
    assert_eq!(own.current, Some(false));
    let (third, _) = build(&plain).await;
    assert!(!third.cached);
    assert_ne!(third.digest, first.digest);
    let asks_again = fixture.with_settings(&settings).await;
    let error = images::check(&asks_again, &name(&image)).await.unwrap_err();
    assert!(matches!(error, ImageError::Check { .. }), "{error}");
    let (forced, _) = build(&BuildOptions { force: true }).await;
    assert!(!forced.cached);

    for old in [&first, &third] {
        let gone = fixture.docker.inspect_image(old.digest.as_str()).await;
        assert!(gone.is_err(), "builds that lost their name are removed");
    }
    fixture.until_empty().await;
    fixture.remove_image(&forced.reference).await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_says_what_it_printed() {
    let fixture = EngineFixture::new("build-fails").await;
    for (dockerfile, said) in [
        (
            "FROM sandhog/base-bookworm\nRUN echo the reason; exit 7\n",
            "the reason",
        ),
        ("FROM sandhog/base-bookworm\nNONSENSE\n", "NONSENSE"),
    ] {
        let (_dir, settings) = folder("fails", dockerfile);
        let failed = images::build(
            &fixture.sandboxes,
            &settings,
            &[],
            &BuildOptions::default(),
            &mut |_| {},
        )
        .await;
        let error = failed.unwrap_err();
        assert!(matches!(error, ImageError::Build { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let (_dir, settings) = folder("mine", "FROM sandhog/base-bookworm\n");
    let unknown = images::build(
        &fixture.sandboxes,
        &settings,
        &[name("yours")],
        &BuildOptions::default(),
        &mut |_| {},
    )
    .await
    .unwrap_err();
    assert!(
        unknown.to_string().ends_with("(there are: mine)"),
        "{unknown}"
    );
}
