//! Images that extend another image: they inherit its contract, and the build adds Python packages.

use sandhog_config::SandboxSettings;
use sandhog_worker::images::{self, BuildOptions, BuiltImage, ImageError};
use sandhog_worker::sandbox::Sandboxes;

use super::fixture::{EngineFixture, name, settings};

/// Returns a folder of images, each with only an `image.toml`.
fn folder(images: &[(&str, &str)]) -> (tempfile::TempDir, SandboxSettings) {
    let dir = tempfile::tempdir().unwrap();
    for (image, text) in images {
        let own = dir.path().join(image);
        std::fs::create_dir(&own).unwrap();
        let text = format!("contract = 1\nname = \"{image}\"\n{text}");
        std::fs::write(own.join("image.toml"), text).unwrap();
    }
    let settings = SandboxSettings {
        images_dir: Some(dir.path().to_path_buf()),
        ..settings()
    };
    (dir, settings)
}

async fn build(
    sandboxes: &Sandboxes,
    settings: &SandboxSettings,
    image: &str,
) -> Result<Vec<BuiltImage>, ImageError> {
    let names = [name(image)];
    images::build(
        sandboxes,
        settings,
        &names,
        &BuildOptions::default(),
        &mut |_| {},
    )
    .await
}

/// Checks from inside the image with the packages. One package is pure Python, another contains
/// machine code.
const CHECK: &str = r#"
import importlib.util, os, subprocess
import numpy, shapely, tabulate

assert shapely.Point(0, 0).buffer(1).area > 3
assert tabulate.tabulate([[1]]) != ""
# numpy is a requirement of shapely, and the parent's own stays.
copies = [m for m in importlib.metadata.distributions() if m.metadata["Name"] == "numpy"]
assert [m.version for m in copies] == [numpy.__version__], copies
# A cell cannot keep what it compiles.
assert os.path.exists(importlib.util.cache_from_source(tabulate.__file__))
# Nothing of what installed them is left.
assert not any(os.path.exists(f"/usr/bin/{tool}") for tool in ("gcc", "cc"))
assert not os.path.exists("/usr/share/python-wheels") and not os.path.exists("/build")
# The parent's environment.
assert os.environ["MPLBACKEND"] == "Agg"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_child_image_has_its_parents_contract_and_packages_of_its_own() {
    let fixture = EngineFixture::new("extends").await;
    let unique = uuid::Uuid::now_v7().simple().to_string();
    let (child, grandchild) = (format!("geo-{unique}"), format!("geo-more-{unique}"));
    let packages = format!(
        "extends = \"datascience\"\ncheck = '''import importlib.metadata{CHECK}'''\n\
         [python]\npackages = [\"shapely==2.1.1\", \"tabulate==0.9.0\"]\n"
    );
    let more = format!(
        "extends = \"{child}\"\n[languages.python.zygote]\nimports = [\"numpy\", \"shapely\"]\n"
    );
    let (_dir, settings) = folder(&[(&child, &packages), (&grandchild, &more)]);
    let sandboxes = fixture.with_settings(&settings).await;
    let parent = sandboxes
        .resolve(&name("datascience"))
        .await
        .expect("build the images first: target/debug/sandhog images build");

    // The image that the named image extends is built first.
    let built = build(&sandboxes, &settings, &grandchild).await.unwrap();
    let order: Vec<&str> = built.iter().map(|built| built.name.as_str()).collect();
    assert_eq!(order, [child.as_str(), grandchild.as_str()]);
    let again = build(&sandboxes, &settings, &grandchild).await.unwrap();
    assert!(again.iter().all(|built| built.cached), "{again:?}");

    for image in [&child, &grandchild] {
        let checked = images::check(&sandboxes, &name(image)).await.unwrap();
        assert!(checked.report.is_some_and(|report| report.clean), "{image}");
        let contract = &checked.image.contract;
        assert_eq!(contract.env, parent.contract.env, "{image}");
        assert_eq!(contract.limits, parent.contract.limits, "{image}");
        assert!(contract.languages.contains_key("bash"), "{image}");
        let (zygote, _) = contract.zygote().expect("the parent has one");
        let (inherited, _) = parent.contract.zygote().expect("datascience has one");
        assert_eq!(zygote.argv, inherited.argv, "{image}");
    }
    let listed = images::list(&sandboxes, &settings).await.unwrap();
    let own = listed.iter().find(|image| image.name == name(&child));
    let own = own.expect("a built image is listed");
    assert_eq!(own.current, Some(true));
    assert!(
        own.summary
            .ends_with("; and shapely==2.1.1, tabulate==0.9.0"),
        "{}",
        own.summary
    );

    fixture.until_empty().await;
    for built in built.iter().rev() {
        fixture.remove_image(&built.reference).await;
    }
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_extend_another_says_why() {
    let fixture = EngineFixture::new("extends-fails").await;
    for (case, image, others, said) in [
        (
            "a version that the parent's own excludes",
            "extends = \"datascience\"\n[python]\npackages = [\"numpy==1.26.4\"]\n",
            &[][..],
            "numpy==1.26.4",
        ),
        (
            "no such package version",
            "extends = \"python\"\n[python]\npackages = [\"tabulate==0.0.0\"]\n",
            &[],
            "tabulate==0.0.0",
        ),
        (
            "a parent that is not there",
            "extends = \"no-such-parent\"\n",
            &[],
            "image fails extends no-such-parent, which has no folder in",
        ),
        (
            "a circle",
            "extends = \"other\"\n",
            &[("other", "extends = \"fails\"\n")],
            "other/image.toml extends fails, which extends it",
        ),
        (
            "neither a parent nor a Dockerfile",
            "summary = \"\"\nlanguage = \"bash\"\n[languages.bash]\nstyle = \"file\"\n\
             file = \"main.sh\"\nargv = [\"/bin/bash\", \"main.sh\"]\n",
            &[],
            "fails/Dockerfile",
        ),
    ] {
        let images: Vec<(&str, &str)> = [("fails", image)]
            .into_iter()
            .chain(others.iter().copied())
            .collect();
        let (_dir, settings) = folder(&images);
        let error = build(&fixture.sandboxes, &settings, "fails")
            .await
            .unwrap_err();
        assert!(error.to_string().contains(said), "case {case}: {error}");
    }
    fixture.leave().await;
}
