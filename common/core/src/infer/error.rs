//! Errors of jobs of kind `infer`, and of `[serve]` tables.

use crate::id::ImageName;

/// Maximum length of the path of an HTTP call, in bytes.
pub(super) const MAX_PATH: usize = 512;

/// Maximum length of a method's name, in bytes.
pub(super) const MAX_METHOD: usize = 64;

/// Maximum number of images whose models one program may call.
pub(crate) const INFER_IMAGES_MAX: usize = 16;

/// An `infer` job that its image cannot answer, or an invalid `[serve]` table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The image has no `[serve]` table.
    #[error("image {image} serves no model")]
    ServesNothing {
        /// The image.
        image: ImageName,
    },
    /// The job has a field of another kind of job.
    #[error("field {field} is only for jobs of kind {kind:?}")]
    WrongKind {
        /// The field.
        field: &'static str,
        /// The kind of job that the field is for.
        kind: &'static str,
    },
    /// The job names too many images whose models its program may call.
    #[error("infer names {count} images (want at most {INFER_IMAGES_MAX})")]
    TooManyImages {
        /// The number of images.
        count: usize,
    },
    /// The job names a path, but the model is a Python class.
    #[error("image {image} serves methods of a class (want method, not path)")]
    PathOfClass {
        /// The image.
        image: ImageName,
    },
    /// The job names a method, but the model is an HTTP server.
    #[error("image {image} serves paths over http (want path, not method)")]
    MethodOfHttp {
        /// The image.
        image: ImageName,
    },
    /// The job uses a path, a query parameter or a method that the contract does not list.
    #[error(transparent)]
    NotOffered(Box<NotOffered>),
    /// The input is not an object, but the contract of the server sets fields of it.
    #[error("image {image} takes an object as input (its contract sets fields of it)")]
    NotAnObject {
        /// The image.
        image: ImageName,
    },
    /// An entry of `paths` that is not a method and a plain path.
    #[error(
        "path {route:?} is not valid (want \"/path\", \"GET /path\" or \"POST /path\", without ? \
         # % and without empty, . and .. segments)"
    )]
    BadRoute {
        /// The entry.
        route: String,
    },
    /// The name is not a valid method name, or the method is not for callers.
    #[error("method {name:?} is not valid (want A-Z a-z 0-9 _, not a digit or _ first)")]
    BadMethod {
        /// The name.
        name: String,
    },
    /// The text is not a valid path.
    #[error("path {path:?} is not valid (want / and at most {MAX_PATH} visible ASCII characters)")]
    BadPath {
        /// The text.
        path: String,
    },
    /// A value of the `[serve]` table is out of range or malformed.
    #[error("serve.{key}: {detail}")]
    BadServing {
        /// The key.
        key: &'static str,
        /// The fault.
        detail: &'static str,
    },
}

impl InferError {
    /// Returns the stable error code for results.
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
    /// Returns the error for a part of a server that a job uses and `image` does not offer. `known`
    /// are the parts of the same kind that it offers.
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
