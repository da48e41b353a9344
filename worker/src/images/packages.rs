//! The Python packages of an image, listed by its own interpreter in a real sandbox.

use std::collections::BTreeMap;

use sandhog_core::id::ImageName;
use sandhog_core::job::Job;

use super::ImageError;
use super::check::run_program;
use crate::sandbox::Sandboxes;

/// The language whose packages are listed.
const PYTHON_LANGUAGE: &str = "python";

/// Program that prints each package and its version as JSON.
const LIST_PROGRAM: &str = "import importlib.metadata, json\n\
    found = importlib.metadata.distributions()\n\
    print(json.dumps({d.metadata['Name']: d.version for d in found}))\n";

/// Returns the Python packages of an image by name, with their versions; `None` if the image does
/// not run Python.
///
/// # Errors
/// If the image cannot be used, the sandbox does not start, or the interpreter does not answer.
pub async fn packages(
    sandboxes: &Sandboxes,
    name: &ImageName,
) -> Result<Option<BTreeMap<String, String>>, ImageError> {
    let image = sandboxes.resolve(name).await?;
    if !image.contract.languages.contains_key(PYTHON_LANGUAGE) {
        return Ok(None);
    }
    let mut sandbox = sandboxes.start(&image).await?;
    let mut job = Job::code(name.clone(), LIST_PROGRAM);
    job.language = Some(PYTHON_LANGUAGE.to_owned());
    let ran = run_program(&mut sandbox, &image, job).await;
    sandbox.destroy().await;
    let (_took, _report, printed) = ran?;
    match serde_json::from_slice(&printed) {
        Ok(packages) => Ok(Some(packages)),
        Err(error) => Err(ImageError::Check {
            name: name.clone(),
            detail: format!("its interpreter lists no packages: {error}"),
        }),
    }
}
