//! Decoding of published results.

use sandhog_core::id::JobId;
use sandhog_core::outcome::JobResult;
use sandhog_core::units::ByteCount;
use sandhog_core::wire;

use crate::error::ClientError;

/// Largest result that the client reads. Workers already cap their results; this limit bounds the
/// memory that a faulty writer can make the client use.
const RESULT_CAP: ByteCount = ByteCount::mib(256);

/// Decodes the bytes of a published result, as the readers of [`Queue`](sandhog_queue::Queue)
/// return them.
///
/// # Errors
/// If the bytes are not a valid result.
pub fn decode(id: &JobId, bytes: &[u8]) -> Result<JobResult, ClientError> {
    wire::decode(bytes, RESULT_CAP)
        .map(|(result, _encoding)| result)
        .map_err(|source| ClientError::Result {
            id: id.clone(),
            source,
        })
}
