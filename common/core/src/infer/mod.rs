//! Model serving: the configuration of an image's model server, and the call of a job of kind
//! `infer`.
//!
//! The `[serve]` table of `image.toml` describes the server and the number of calls that it
//! accepts. A job names a method or a path, and an input. A call that a running server would have
//! to guess is rejected beforehand: a method of an HTTP server, a path of a Python class, an
//! invalid name.

mod call;
mod error;
mod http_server;
mod serving;

pub use call::{Call, CallTarget};
pub(crate) use call::{check_method, check_path};
pub(crate) use error::INFER_IMAGES_MAX;
pub use error::{InferError, NotOffered};
pub use http_server::{HttpRoute, HttpServer, Method};
pub use serving::{Server, Serving};
