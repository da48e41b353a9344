//! The `[serve]` table of an image's contract, and the call that a job makes to the server.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::{Call, CallTarget, check_method, check_path};
use super::error::InferError;
use super::http_server::{HttpServer, Method};
use crate::id::ImageName;
use crate::units::Millis;

/// Maximum number of calls that one server handles at once, and of jobs in one batch.
const SERVER_CALLS_MAX: u32 = 1024;

/// Model server of an image: the `[serve]` table of `image.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    /// The server that answers calls.
    pub server: Server,
    /// Number of calls that the server handles at once; further calls wait. Default 1.
    #[serde(default = "one")]
    pub concurrency: u32,
    /// Number of jobs in one call of a method that takes a list. Default 1: no batching.
    #[serde(default = "one")]
    pub max_batch: u32,
    /// Time that the first job of a batch waits for more jobs while the server is free, in
    /// milliseconds. Default 0: only jobs that are waiting already are batched.
    #[serde(default)]
    pub batch_wait_ms: Millis,
    /// Number of servers that a worker loads when it starts and never stops for being idle: 0
    /// (default) or 1.
    #[serde(default)]
    pub min_warm: u32,
    /// Time after which a server without calls is stopped, in seconds. Default 300. Zero stops it
    /// after every call.
    #[serde(default = "five_minutes")]
    pub idle_timeout_s: u32,
    /// Timeout for loading the model, warm-up included, in seconds. Default 120.
    #[serde(default = "two_minutes")]
    pub load_timeout_s: u32,
    /// An input that is sent once after loading, before the first job. Default: none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub warm_up: Value,
}

/// The server that answers calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "style", rename_all = "snake_case", deny_unknown_fields)]
pub enum Server {
    /// A Python class: `load` is called once, then its methods.
    Python {
        /// The class, as `module:Class`.
        model: String,
        /// The folder that contains the module.
        #[serde(default = "model_folder")]
        folder: String,
        /// The default method, for jobs that name none.
        method: String,
        /// The methods that jobs may name, in addition to the default method and the batched ones.
        /// If this list is empty, jobs may name every public method that the model's own code
        /// defines.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        methods: BTreeSet<String>,
        /// The methods that take a list of inputs and return a list of the same length.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        batched: BTreeSet<String>,
        /// The interpreter and its flags.
        #[serde(default = "interpreter")]
        argv: Vec<String>,
    },
    /// An HTTP server on the cell's own loopback interface.
    Http(HttpServer),
}

const fn one() -> u32 {
    1
}

const fn five_minutes() -> u32 {
    300
}

const fn two_minutes() -> u32 {
    120
}

fn model_folder() -> String {
    "/srv/model".to_owned()
}

fn interpreter() -> Vec<String> {
    ["/usr/bin/python3", "-s", "-B"].map(str::to_owned).to_vec()
}

impl Serving {
    /// Returns the call that a job makes to `image`, which has this contract.
    ///
    /// # Errors
    /// Fails if the image serves no such method or path.
    pub fn call(&self, image: &ImageName, target: CallTarget<'_>) -> Result<Call, InferError> {
        match &self.server {
            Server::Python {
                method,
                methods,
                batched,
                ..
            } => {
                if target.path.is_some() {
                    return Err(InferError::PathOfClass {
                        image: image.clone(),
                    });
                }
                let name = target.method.unwrap_or(method);
                check_method(name)?;
                let is_served = name == method || batched.contains(name) || methods.contains(name);
                if !methods.is_empty() && !is_served {
                    let known: BTreeSet<_> =
                        methods.iter().chain(batched).chain([method]).collect();
                    return Err(InferError::not_offered(
                        image,
                        format!("method {name:?}"),
                        known.into_iter().cloned(),
                    ));
                }
                Ok(Call::Method {
                    name: name.to_owned(),
                    batched: batched.contains(name),
                })
            }
            Server::Http(server) => {
                if target.method.is_some() {
                    return Err(InferError::MethodOfHttp {
                        image: image.clone(),
                    });
                }
                let path = target.path.unwrap_or(&server.path);
                let route = server.route(image, path, Method::of(target.input))?;
                Ok(Call::Path(route))
            }
        }
    }

    /// Returns the input that is sent to the server for `input`: for an HTTP server, with the
    /// fields that the contract sets.
    ///
    /// # Errors
    /// Fails if the contract sets fields and the input is not an object.
    pub fn input(&self, image: &ImageName, input: Value) -> Result<Value, InferError> {
        match &self.server {
            Server::Python { .. } => Ok(input),
            Server::Http(server) => server.body(image, input),
        }
    }

    /// Checks that the table is consistent.
    ///
    /// # Errors
    /// Names the first invalid key.
    pub fn check(&self) -> Result<(), InferError> {
        let bad = |key, detail| Err(InferError::BadServing { key, detail });
        for (key, value) in [
            ("concurrency", self.concurrency),
            ("max_batch", self.max_batch),
        ] {
            if !(1..=SERVER_CALLS_MAX).contains(&value) {
                return bad(key, "want 1 to 1024");
            }
        }
        if self.batch_wait_ms > Millis(10_000) {
            return bad("batch_wait_ms", "want at most 10000");
        }
        if self.min_warm > 1 {
            return bad(
                "min_warm",
                "want 0 or 1: a worker runs one server of an image",
            );
        }
        if !(1..=86_400).contains(&self.load_timeout_s) {
            return bad("load_timeout_s", "want 1 to 86400");
        }
        match &self.server {
            Server::Python {
                model,
                method,
                methods,
                batched,
                argv,
                ..
            } => {
                check_method(method)?;
                let mut listed = methods.iter().chain(batched);
                listed.try_for_each(|name| check_method(name))?;
                let named = model
                    .split_once(':')
                    .is_some_and(|(module, class)| !module.is_empty() && !class.is_empty());
                if !named {
                    return bad("server.model", "want module:Class");
                }
                check_argv(argv)
            }
            Server::Http(server) => {
                if server.port == 0 {
                    return bad("server.port", "want 1 to 65535");
                }
                if self.max_batch > 1 {
                    return bad("max_batch", "an http server gathers its own batches");
                }
                check_path(&server.health)?;
                check_path(&server.path)?;
                server.check_access()?;
                if !server.drop.is_empty() || !server.force.is_empty() {
                    let takes_fields = matches!(self.warm_up, Value::Null | Value::Object(_));
                    if !takes_fields {
                        return bad(
                            "warm_up",
                            "want an object: server.force or server.drop is set",
                        );
                    }
                }
                check_argv(&server.argv)
            }
        }
    }
}

fn check_argv(argv: &[String]) -> Result<(), InferError> {
    let named = argv.first().is_some_and(|program| !program.is_empty());
    if named && !argv.iter().any(|word| word.contains('\0')) {
        Ok(())
    } else {
        Err(InferError::BadServing {
            key: "server.argv",
            detail: "want a program and arguments without NUL bytes",
        })
    }
}

#[cfg(test)]
mod tests;
