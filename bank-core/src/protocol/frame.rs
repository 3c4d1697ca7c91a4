//! Frames: a length, then a body.

use serde::{Deserialize, Serialize};

use crate::limits::FRAME_HEADER_BYTES;

/// What came is not a message. The connection cannot be understood any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is above what the receiver takes.
    #[error("a frame of {bytes} bytes is too long: the limit is {limit}")]
    TooLong {
        /// The length that was announced.
        bytes: u32,
        /// The longest body that is taken.
        limit: usize,
    },
    /// The body is no message.
    #[error("a frame holds no message that this side knows")]
    Malformed,
    /// The body is a message and something after it.
    #[error("a frame holds {0} bytes more than its message")]
    LeftOver(usize),
}

/// Finds the first whole frame in what was received: its body, and how many bytes it took with its length.
/// `None` if the frame is not whole yet. Nothing is allocated, whatever length is announced.
///
/// # Errors
/// [`FrameError::TooLong`] as soon as a length is above `limit`, without waiting for the body.
pub fn split(received: &[u8], limit: usize) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some((header, rest)) = received.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(None);
    };
    let bytes = u32::from_be_bytes(*header);
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if length > limit {
        return Err(FrameError::TooLong { bytes, limit });
    }
    Ok(rest.get(..length).map(|body| (body, FRAME_HEADER_BYTES + length)))
}

/// Reads a body as one message, whole.
///
/// # Errors
/// [`FrameError::Malformed`] or [`FrameError::LeftOver`].
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(FrameError::LeftOver(rest.len())),
        Err(_) => Err(FrameError::Malformed),
    }
}

/// Appends a message to `out` as a frame.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) {
    let start = out.len();
    let mut bytes = std::mem::take(out);
    bytes.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    *out = postcard::to_extend(message, bytes).expect("a message always fits into a vector");
    let length =
        u32::try_from(out.len() - start - FRAME_HEADER_BYTES).expect("a message is shorter than 4 GiB");
    out[start..start + FRAME_HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_found_one_after_the_other_and_halves_are_waited_for() {
        let mut stream = Vec::new();
        encode(&"one", &mut stream);
        encode(&"three", &mut stream);
        let (first, used) = split(&stream, 100).unwrap().unwrap();
        assert_eq!(decode::<&str>(first), Ok("one"));
        let (second, _) = split(&stream[used..], 100).unwrap().unwrap();
        assert_eq!(decode::<&str>(second), Ok("three"));
        for half in 0..used {
            assert_eq!(split(&stream[..half], 100), Ok(None), "{half} bytes");
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_body_comes() {
        let limit = 100;
        assert_eq!(
            split(&101u32.to_be_bytes(), limit),
            Err(FrameError::TooLong { bytes: 101, limit })
        );
        assert_eq!(
            split(&[0xff; 4], limit),
            Err(FrameError::TooLong {
                bytes: u32::MAX,
                limit
            })
        );
        assert_eq!(split(&100u32.to_be_bytes(), limit), Ok(None));
    }

    #[test]
    fn left_over_bytes_are_refused() {
        assert_eq!(decode::<u8>(&[7, 8, 9]), Err(FrameError::LeftOver(2)));
        assert_eq!(decode::<&str>(&[200]), Err(FrameError::Malformed));
    }

    proptest! {
        #[test]
        fn splitting_never_panics_and_never_goes_past_the_end(bytes: Vec<u8>, limit in 0usize..2000) {
            if let Ok(Some((body, used))) = split(&bytes, limit) {
                prop_assert!(body.len() <= limit && used <= bytes.len());
            }
        }
    }
}
