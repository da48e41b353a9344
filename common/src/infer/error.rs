//! Jobs of kind `infer` that an image does not answer, and contracts that no server could fulfil.

use super::{MAX_PATH, MOST_ASKED};
use crate::id::ImageName;

/// An `infer` job that no server could answer, or a `[serve]` table that none could fulfil.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The image has no `[serve]` table.
    #[error("image {image} serves no model")]
    ServesNothing {
        /// The image.
        image: ImageName,
    },
    /// A field that goes with another kind of job.
    #[error("{field} goes with a job of kind {kind:?}")]
    WrongKind {
        /// The field.
        field: &'static str,
        /// The kind it goes with.
        kind: &'static str,
    },
    /// More images to ask than any program has a use for.
    #[error("infer names {count} images (want at most {MOST_ASKED})")]
    TooManyImages {
        /// The number of images.
        count: usize,
    },
    /// A path for a Python model.
    #[error("image {image} serves methods of a class (want method, not path)")]
    PathOfClass {
        /// The image.
        image: ImageName,
    },
    /// A method for an HTTP server.
    #[error("image {image} serves paths over http (want path, not method)")]
    MethodOfHttp {
        /// The image.
        image: ImageName,
    },
    /// A path, a query parameter or a method that the contract does not list.
    #[error(transparent)]
    NotOffered(Box<NotOffered>),
    /// An input without fields for a server whose contract sets some.
    #[error("image {image} takes an object as input (its contract sets fields of it)")]
    NotAnObject {
        /// The image.
        image: ImageName,
    },
    /// An entry of `paths` that is not a method and a plain path.
    #[error(
        "path {route:?} is not valid (want \"/path\", \"GET /path\" or \"POST /path\", without ? # % and without empty, . and .. segments)"
    )]
    BadRoute {
        /// The entry.
        route: String,
    },
    /// A name that no method can have, or that is not for callers.
    #[error("method {name:?} is not valid (want A-Z a-z 0-9 _, not a digit or _ first)")]
    BadMethod {
        /// The name.
        name: String,
    },
    /// Text that is no path.
    #[error("path {path:?} is not valid (want / and at most {MAX_PATH} visible ASCII characters)")]
    BadPath {
        /// The text.
        path: String,
    },
    /// A number of the `[serve]` table out of range, or a word missing.
    #[error("serve.{key}: {detail}")]
    BadServing {
        /// The key.
        key: &'static str,
        /// The fault.
        detail: &'static str,
    },
}

impl InferError {
    /// The stable word for this error in a result.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ServesNothing { .. } => "serves_nothing",
            Self::WrongKind { .. }
            | Self::PathOfClass { .. }
            | Self::MethodOfHttp { .. }
            | Self::BadMethod { .. }
            | Self::BadPath { .. }
            | Self::NotOffered(_)
            | Self::NotAnObject { .. }
            | Self::TooManyImages { .. }
            | Self::BadRoute { .. }
            | Self::BadServing { .. } => "bad_job",
        }
    }
}

/// A part of a model server that an image's contract does not list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image {image} does not offer {part} (it offers {known})")]
pub struct NotOffered {
    /// The image.
    pub image: ImageName,
    /// The part that a job asks for.
    pub part: String,
    /// The parts that the contract lists.
    pub known: String,
}

impl InferError {
    /// A part of a server that a job asks for and `image` does not offer; `known` are those of the
    /// same kind that it does.
    pub(super) fn not_offered(
        image: &ImageName,
        part: String,
        known: impl Iterator<Item = String>,
    ) -> Self {
        let known: Vec<String> = known.collect();
        Self::NotOffered(Box::new(NotOffered {
            image: image.clone(),
            part,
            known: match known.as_slice() {
                [] => "none".to_owned(),
                known => known.join(", "),
            },
        }))
    }
}
