//! Decoding of the frames between worker and keeper, whose codec has caps of its own.

use serde::de::DeserializeOwned;

use crate::framing::{PREFIX_LEN, split_body};

/// An error in reading a frame.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The length in the prefix is above the cap.
    #[error("frame of {length} bytes is above the cap of {most}")]
    TooLong {
        /// The length in the prefix.
        length: usize,
        /// The cap.
        most: usize,
    },
    /// The bytes cannot be decoded.
    #[error("frame cannot be decoded")]
    Decode(#[source] rmp_serde::decode::Error),
}

/// Takes one frame of at most `most` bytes off the front of `buffer`, if it is complete. An
/// incomplete frame stays in `buffer` for the next call.
///
/// # Errors
/// Fails if the length is above the cap or the bytes cannot be decoded. The stream cannot be used
/// after that.
pub fn take<T: DeserializeOwned>(
    buffer: &mut Vec<u8>,
    most: usize,
) -> Result<Option<T>, CodecError> {
    let split = split_body(buffer, most).map_err(|length| CodecError::TooLong { length, most })?;
    let Some(body) = split else {
        return Ok(None);
    };
    let end = PREFIX_LEN + body.len();
    let frame = rmp_serde::from_slice(body).map_err(CodecError::Decode)?;
    buffer.drain(..end);
    Ok(Some(frame))
}
