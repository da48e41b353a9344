//! The inference requests that a program may send.

use serde::{Deserialize, Serialize};

/// The largest inference request of a program, in bytes, without the length prefix.
pub const MAX_INFER_REQUEST: usize = 1 << 20;

/// The descriptor for a program's inference requests. It is open only if the call allows requests.
pub const INFER_FD: i32 = 4;

/// The environment variable that holds [`INFER_FD`].
pub const INFER_FD_VARIABLE: &str = "SANDHOG_INFER_FD";

/// Caps on a program's inference requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InferQuota {
    /// The most open requests: those whose responses the program has not read yet. The next request
    /// is left unread until the program reads a response. Not zero.
    pub max_open: u32,
    /// The most requests in total that are passed on. Later ones are never read.
    pub max_total: u64,
}
