//! Encoding of the frames between worker and keeper.

use serde::Serialize;
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

/// Encodes one frame, with its length prefix.
///
/// # Panics
/// Never: the frame types have string keys and known lengths.
#[must_use]
pub fn encode<T: Serialize>(frame: &T) -> Vec<u8> {
    crate::framing::encode(frame)
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
    take_body(buffer, most)?
        .map(|body| rmp_serde::from_slice(&body).map_err(CodecError::Decode))
        .transpose()
}

/// Takes the body of one frame of at most `most` bytes off the front of `buffer`, if it is
/// complete.
///
/// # Errors
/// Fails if the length is above the cap.
pub fn take_body(buffer: &mut Vec<u8>, most: usize) -> Result<Option<Vec<u8>>, CodecError> {
    let split = split_body(buffer, most).map_err(|length| CodecError::TooLong { length, most })?;
    let Some(body) = split.map(<[u8]>::to_vec) else {
        return Ok(None);
    };
    buffer.drain(..PREFIX_LEN + body.len());
    Ok(Some(body))
}
