//! Fixture of the inference tests: a small image with a model that does what its input says, and a
//! worker that serves it.

use std::path::Path;

use sandhog_core::id::{ImageName, JobId};
use sandhog_core::job::Job;
use sandhog_core::outcome::JobResult;
use sandhog_testkit::containers::Engine;
use sandhog_testkit::environment;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::Value;

/// A model image for one test. It is removed on drop.
pub(crate) struct ModelImageFixture {
    name: ImageName,
    /// Reference template for short image names. It is separate for each namespace, because a
    /// worker loads every `min_warm` model that it can see.
    template: String,
}

impl ModelImageFixture {
    /// Builds `toy:CLASS` with these lines in its `[serve]` table.
    pub(crate) fn build(space: &TestNamespace, class: &str, serve: &str) -> Self {
        Self::serving(space, serve, &python(class))
    }

    /// Builds `toy:Toy` again with these lines in its `[serve]` table.
    pub(crate) fn rebuild(&self, serve: &str) {
        self.make(serve, &python("Toy"));
    }

    /// Builds an image with `serve.py`, which is ready once this path answers.
    pub(crate) fn http(space: &TestNamespace, serve: &str, health: &str) -> Self {
        let paths = "paths = [\"/stream/whole\", \"/stream/error\"]";
        Self::http_of(space, serve, "serve.py", health, paths)
    }

    /// Builds an image with this file of `toy/model`, an HTTP server, and these lines in its table.
    pub(crate) fn http_of(
        space: &TestNamespace,
        serve: &str,
        file: &str,
        health: &str,
        lines: &str,
    ) -> Self {
        let server = format!(
            "style = \"http\"\nargv = [\"/usr/bin/python3\", \"/srv/model/{file}\", \"8080\"]\n\
             port = 8080\n\
             health = \"{health}\"\npath = \"/echo\"\n{lines}"
        );
        Self::serving(space, serve, &server)
    }

    /// Builds an image with these lines in `[serve]` and `[serve.server]`.
    fn serving(space: &TestNamespace, serve: &str, server: &str) -> Self {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let toy = Self {
            name: format!("toy-{unique}").parse().unwrap(),
            template: Self::template_of(space),
        };
        toy.make(serve, server);
        toy
    }

    /// Builds an image of these files, whose paths begin with its name.
    pub(crate) fn of_files(space: &TestNamespace, name: &str, files: &[(String, String)]) -> Self {
        let folders = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folders.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let template = Self::template_of(space);
        build(folders.path(), name, &template);
        Self {
            name: name.parse().unwrap(),
            template,
        }
    }

    /// Returns the reference template for short names in this namespace.
    fn template_of(space: &TestNamespace) -> String {
        format!("{}/{{name}}:latest", space.namespace())
    }

    /// Builds the image again with these lines in its tables.
    fn make(&self, serve: &str, server: &str) {
        let name = self.name.as_str();
        let folders = tempfile::tempdir().unwrap();
        let own = folders.path().join(name);
        let source = environment::checkout().join("tests/infer/toy");
        let read = |path: &str| std::fs::read_to_string(source.join(path)).unwrap();
        let contract = read("image.toml")
            .replace("NAME", name)
            .replace("SERVER", server)
            .replace("SERVE", serve);
        std::fs::create_dir_all(own.join("model")).unwrap();
        std::fs::write(own.join("image.toml"), contract).unwrap();
        let dockerfile = read("Dockerfile").replace("NAME", name);
        std::fs::write(own.join("Dockerfile"), dockerfile).unwrap();
        for file in std::fs::read_dir(source.join("model")).unwrap() {
            let file = file.unwrap();
            if file.path().is_file() {
                std::fs::copy(file.path(), own.join("model").join(file.file_name())).unwrap();
            }
        }
        build(folders.path(), name, &self.template);
    }

    /// Returns a worker that serves the image, not yet started.
    pub(crate) fn worker(&self, space: &TestNamespace) -> WorkerSpec {
        Self::worker_of_all(space)
    }

    /// Returns a worker that serves every toy image of the namespace once it is built.
    pub(crate) fn worker_of_all(space: &TestNamespace) -> WorkerSpec {
        WorkerSpec::of(space).set("SANDBOX_IMAGE_REFERENCE", &Self::template_of(space))
    }

    /// Returns the reference template of images in its namespace.
    pub(crate) fn template(&self) -> &str {
        &self.template
    }

    /// Returns the name of its image.
    pub(crate) fn name(&self) -> &ImageName {
        &self.name
    }

    /// Returns a job whose Python program runs in its image and may call its model through the
    /// function `ask(method, input, **more)`.
    pub(crate) fn program(&self, code: &str) -> Job {
        let name = &self.name;
        let ask = format!(
            "import sandhog\ndef ask(method, input, **more):\n    \
             return sandhog.infer({:?}, input, method=method, **more)\n",
            name.as_str()
        );
        Job {
            language: Some("python".to_owned()),
            infer: vec![name.clone()],
            ..Job::code(name.clone(), ask + code)
        }
    }

    /// Returns a job for its model.
    pub(crate) fn job(&self, method: &str, input: impl Into<Value>) -> Job {
        Job {
            method: Some(method.to_owned()),
            ..Job::infer(self.name.clone(), input.into())
        }
    }
}

impl Drop for ModelImageFixture {
    fn drop(&mut self) {
        let reference = self.template.replace("{name}", self.name.as_str());
        Engine::connect().remove_image(&reference);
    }
}

/// Returns the settings of a Python server for a class in `toy.py`.
fn python(class: &str) -> String {
    format!("style = \"python\"\nmodel = \"toy:{class}\"\nmethod = \"echo\"\nbatched = [\"echo\"]")
}

fn build(folders: &Path, name: &str, template: &str) {
    let built = environment::sandhog_command()
        .args(["images", "build", name])
        .env("SANDHOG_SANDBOX_IMAGES_DIR", folders)
        .env("SANDHOG_SANDBOX_IMAGE_REFERENCE", template)
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
}

/// Submits all jobs at once, then waits for each.
pub(crate) fn run_all(space: &mut TestNamespace, jobs: &[Job]) -> Vec<JobResult> {
    let ids: Vec<JobId> = jobs.iter().map(|job| space.submit(job)).collect();
    ids.iter().map(|id| space.result(id)).collect()
}
