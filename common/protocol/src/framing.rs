//! Encoding of frames: a big-endian `u32` length, followed by that many bytes of MessagePack with
//! named maps only.
//!
//! A length above [`MAX_FRAME`] is an error before the bytes that it announces are read.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame in bytes, without the length prefix: a payload of the largest size and the
/// fields around it.
pub const MAX_FRAME: usize = 24 << 20;

/// Length of the prefix of a frame, in bytes: a big-endian `u32`.
pub const PREFIX_LEN: usize = 4;

/// An error in reading or writing a frame.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// The stream failed, or ended in the middle of a frame.
    #[error("the frame stream failed")]
    Io(#[source] io::Error),
    /// A length above [`MAX_FRAME`].
    #[error("frame of {length} bytes is above the cap of {MAX_FRAME}")]
    TooLong {
        /// The length in the prefix.
        length: usize,
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
    let mut bytes = Vec::new();
    encode_into(&mut bytes, frame);
    bytes
}

/// Appends one frame, with its length prefix, to `bytes`. Several frames in one buffer can be
/// written together.
///
/// # Panics
/// Never: the frame types have string keys and known lengths.
pub fn encode_into<T: Serialize>(bytes: &mut Vec<u8>, frame: &T) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; PREFIX_LEN]);
    rmp_serde::encode::write_named(bytes, frame)
        .expect("frame types have string keys and known lengths");
    let length = bytes.len() - start - PREFIX_LEN;
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    if let Some(prefix) = bytes.get_mut(start..start + PREFIX_LEN) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
}

/// Takes one frame off the front of `buffer`, if it is complete. An incomplete frame stays in
/// `buffer` for the next call.
///
/// # Errors
/// Fails if the length is above the cap or the bytes cannot be decoded. The stream cannot be used
/// after that.
pub fn take<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> Result<Option<T>, FramingError> {
    let split = split_body(buffer, MAX_FRAME).map_err(|length| FramingError::TooLong { length })?;
    let Some(body) = split else {
        return Ok(None);
    };
    let end = PREFIX_LEN + body.len();
    let frame = rmp_serde::from_slice(body).map_err(FramingError::Decode)?;
    buffer.drain(..end);
    Ok(Some(frame))
}

/// Returns the body of the first frame in `buffer`, without its length prefix, or `None` while the
/// frame is incomplete. The caller removes [`PREFIX_LEN`] bytes and the body.
///
/// # Errors
/// Fails with the length in the prefix if that is above `most`.
pub fn split_body(buffer: &[u8], most: usize) -> Result<Option<&[u8]>, usize> {
    let Some((head, rest)) = buffer.split_first_chunk::<PREFIX_LEN>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if length > most {
        return Err(length);
    }
    Ok(rest.get(..length))
}

/// Writes one frame and flushes it.
///
/// # Errors
/// Fails if the stream fails.
pub fn write<T: Serialize>(stream: &mut impl Write, frame: &T) -> Result<(), FramingError> {
    stream
        .write_all(&encode(frame))
        .and_then(|()| stream.flush())
        .map_err(FramingError::Io)
}

/// Reads one frame. Returns `None` if the stream ends before a frame.
///
/// # Errors
/// Fails if the stream fails or ends in the middle of a frame, or if the frame is not valid.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> Result<Option<T>, FramingError> {
    let mut buffer = Vec::new();
    loop {
        if let Some(frame) = take(&mut buffer)? {
            return Ok(Some(frame));
        }
        let want = match buffer.split_first_chunk::<4>() {
            None => 4 - buffer.len(),
            Some((head, _)) => {
                4 + usize::try_from(u32::from_be_bytes(*head)).unwrap_or(MAX_FRAME) - buffer.len()
            }
        };
        let before = buffer.len();
        stream
            .take(want as u64)
            .read_to_end(&mut buffer)
            .map_err(FramingError::Io)?;
        if buffer.len() == before {
            return if before == 0 {
                Ok(None)
            } else {
                Err(FramingError::Io(io::ErrorKind::UnexpectedEof.into()))
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{CallId, ToRunner};

    fn cancel(id: u64) -> ToRunner {
        ToRunner::Cancel { id: CallId(id) }
    }

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let frames = [cancel(1), cancel(2)];
        let mut bytes = Vec::new();
        for frame in &frames {
            encode_into(&mut bytes, frame);
        }
        let separate: Vec<u8> = frames.iter().flat_map(encode).collect();
        assert_eq!(bytes, separate);
        for cut in 0..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let mut buffer = first.to_vec();
            let mut got = Vec::new();
            while let Some(frame) = take::<ToRunner>(&mut buffer).unwrap() {
                got.push(frame);
            }
            buffer.extend_from_slice(second);
            while let Some(frame) = take::<ToRunner>(&mut buffer).unwrap() {
                got.push(frame);
            }
            assert_eq!(got, frames, "cut at {cut}");
        }
        let mut stream = bytes.as_slice();
        for frame in frames {
            assert_eq!(read(&mut stream).unwrap(), Some(frame));
        }
        assert_eq!(read::<ToRunner>(&mut stream).unwrap(), None);
    }

    #[test]
    fn hostile_frames_are_errors() {
        assert!(matches!(
            take::<ToRunner>(&mut vec![0xff; 8]),
            Err(FramingError::TooLong { .. })
        ));
        assert!(matches!(
            take::<ToRunner>(&mut vec![0, 0, 0, 1, 0xc1]),
            Err(FramingError::Decode(_))
        ));
        assert!(matches!(
            read::<ToRunner>(&mut [0, 0, 0, 9, 1].as_slice()),
            Err(FramingError::Io(_))
        ));
    }
}
