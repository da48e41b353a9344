//! The protocol between a worker and a model server, over the server's descriptor 3.
//!
//! A frame is a big-endian `u32` length, followed by that many bytes of JSON. The runner between
//! the two passes the bytes on without decoding them:
//!
//! ```text
//! server → worker   Ready, or Failed and the server's end
//! worker → server   Call, then perhaps Cancel; many calls at once
//! server → worker   Chunk…, one Result or Error for each input, or a Fault, then Done
//! ```
//!
//! The worker treats the bytes of a server as hostile: lengths are bounded, and the worker stops a
//! server that sends an invalid frame.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::frames::{Exception, ExceptionFrame, MAX_HARNESS_ANSWER};
use crate::framing::{PREFIX_LEN, split_body};

/// The largest frame to a server, in bytes, without the length prefix.
pub const MAX_MODEL_CALL: usize = 16 << 20;

/// The largest frame from a server, in bytes, without the length prefix: an answer of the largest
/// size and the fields around it.
pub const MAX_MODEL_OUTPUT: usize = MAX_HARNESS_ANSWER + (64 << 10);

/// A frame from the worker to a model server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToServer {
    /// Calls the model with these inputs.
    Call {
        /// The number of the call. No other call of this server has the same one.
        id: u64,
        /// A method's name, or a path.
        target: String,
        /// The inputs. More than one only if `batched`.
        inputs: Vec<Value>,
        /// True if the method takes and returns a list.
        batched: bool,
        /// True if the server is to send pieces of the answer while it is being made.
        stream: bool,
        /// Timeout of the call, in milliseconds.
        timeout_ms: u64,
    },
    /// Cancels a call whose answer is not needed any more. Ignored when the call is over.
    Cancel {
        /// The call.
        id: u64,
    },
}

/// A frame from a model server to the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromServer {
    /// The model is loaded.
    Ready,
    /// The model cannot be loaded.
    Failed {
        /// The reason.
        #[serde(with = "ExceptionFrame")]
        exception: Exception,
    },
    /// A piece of a streamed answer.
    Chunk {
        /// The call.
        id: u64,
        /// The piece.
        text: String,
    },
    /// The answer to one input.
    Result {
        /// The call.
        id: u64,
        /// The index of the input, from 0.
        index: usize,
        /// The answer.
        value: Value,
    },
    /// There is no answer to one input.
    Error {
        /// The call.
        id: u64,
        /// The index of the input, from 0.
        index: usize,
        /// The reason.
        #[serde(with = "ExceptionFrame")]
        exception: Exception,
    },
    /// The call has no answer because the connection between the proxy and the HTTP server failed,
    /// not because of its inputs. The worker tries the call's jobs again.
    Fault {
        /// The call.
        id: u64,
        /// The failure of the connection.
        why: String,
    },
    /// The call is over. No further frame of this call follows.
    Done {
        /// The call.
        id: u64,
    },
}

/// A frame that cannot be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum ModelFrameError {
    /// The frame is longer than the cap for its direction.
    #[error("model frame of {length} bytes is above the cap of {most}")]
    TooLong {
        /// The length of the frame.
        length: usize,
        /// The cap.
        most: usize,
    },
    /// The frame is not JSON of the expected type.
    #[error("model frame is not valid")]
    Json(#[source] serde_json::Error),
}

/// Encodes one frame, with its length prefix.
///
/// # Errors
/// Fails if the frame is longer than `most`.
pub fn encode<T: Serialize>(frame: &T, most: usize) -> Result<Vec<u8>, ModelFrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame).map_err(ModelFrameError::Json)?;
    let length = bytes.len() - 4;
    let prefix = u32::try_from(length)
        .ok()
        .filter(|_| length <= most)
        .ok_or(ModelFrameError::TooLong { length, most })?;
    bytes.splice(..4, prefix.to_be_bytes());
    Ok(bytes)
}

/// Takes one frame of at most `most` bytes off the front of `buffer`, if it is complete.
///
/// # Errors
/// Fails if the frame is longer than `most`, or cannot be decoded. The stream cannot be used after
/// that.
pub fn take<T: DeserializeOwned>(
    buffer: &mut Vec<u8>,
    most: usize,
) -> Result<Option<T>, ModelFrameError> {
    let split =
        split_body(buffer, most).map_err(|length| ModelFrameError::TooLong { length, most })?;
    let Some(body) = split else {
        return Ok(None);
    };
    let end = PREFIX_LEN + body.len();
    let frame = serde_json::from_slice(body).map_err(ModelFrameError::Json)?;
    buffer.drain(..end);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_and_hostile_ones_are_errors() {
        let frames = [
            FromServer::Ready,
            FromServer::Chunk {
                id: 7,
                text: "é\u{1}".to_owned(),
            },
        ];
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|frame| encode(frame, MAX_MODEL_OUTPUT).unwrap())
            .collect();
        for cut in 0..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let (mut buffer, mut got) = (first.to_vec(), Vec::new());
            for more in [second, &[]] {
                while let Some(frame) = take::<FromServer>(&mut buffer, MAX_MODEL_OUTPUT).unwrap() {
                    got.push(frame);
                }
                buffer.extend_from_slice(more);
            }
            assert_eq!(got, frames, "cut at {cut}");
        }
        for (case, hostile) in [
            ("too long", vec![0xff; 8]),
            ("no JSON", vec![0, 0, 0, 2, b'{', b'x']),
            ("unknown", [&[0, 0, 0, 5][..], b"\"bye\""].concat()),
        ] {
            let taken = take::<FromServer>(&mut hostile.clone(), MAX_MODEL_OUTPUT);
            assert!(taken.is_err(), "case {case}");
        }
    }
}
