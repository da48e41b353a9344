//! The call of a job of kind `infer`.

use serde_json::Value;

use super::error::{InferError, MAX_METHOD, MAX_PATH};
use crate::id::clip;

/// The call of a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Call {
    /// A method of a Python model.
    Method {
        /// The method's name.
        name: String,
        /// Set if the method takes a list of inputs.
        batched: bool,
    },
    /// A path of an HTTP server.
    Path(String),
}

/// The part of an `infer` job that names what it calls.
#[derive(Debug, Clone, Copy)]
pub struct CallTarget<'a> {
    /// Method of a Python class; the contract's default if absent.
    pub method: Option<&'a str>,
    /// Path of an HTTP server; the contract's default if absent.
    pub path: Option<&'a str>,
    /// The job's input, which decides between `GET` and `POST`.
    pub input: &'a Value,
}

pub(crate) fn check_method(name: &str) -> Result<(), InferError> {
    let valid = (1..=MAX_METHOD).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        // The worker calls `load` once itself.
        && name != "load";
    if valid {
        Ok(())
    } else {
        Err(InferError::BadMethod {
            name: clip(name, MAX_METHOD),
        })
    }
}

pub(crate) fn check_path(path: &str) -> Result<(), InferError> {
    let valid = path.starts_with('/')
        && path.len() <= MAX_PATH
        && path.bytes().all(|byte| byte.is_ascii_graphic());
    if valid {
        Ok(())
    } else {
        Err(InferError::BadPath {
            path: clip(path, 80),
        })
    }
}
