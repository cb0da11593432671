//! Which way a payload goes, found out by reading no more of it than that takes (TS-1).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use larder_traits::{BackendError, ClientStream};

/// Chunks below this are put together, lest the places that they take outweigh what is in them.
const CHUNK_LEN_BYTES_MIN: usize = 1 << 10;

/// How long what is put together becomes.
const TOGETHER_LEN_BYTES_MAX: usize = 16 << 10;

/// A payload of which as much is known as its way depends on.
pub(crate) enum Peeked {
    /// All of it: it ends at the threshold or before.
    Small(Bytes),
    /// It goes on behind the threshold; what was read stands at the front again.
    Large(ClientStream),
}

/// Reads `stream` until it ends or is known to be longer than the threshold. What is held is never more than the
/// threshold and one chunk, however short the chunks are.
pub(crate) async fn peek(
    mut stream: ClientStream,
    threshold_bytes: usize,
) -> Result<Peeked, BackendError> {
    let mut held = Held::default();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(BackendError::Client)?;
        if chunk.is_empty() {
            continue;
        }
        held.push(chunk);
        if held.len > threshold_bytes {
            return Ok(Peeked::Large(held.in_front_of(stream)));
        }
    }
    Ok(Peeked::Small(held.join()))
}

/// What was read so far.
#[derive(Default)]
struct Held {
    chunks: VecDeque<Bytes>,
    /// Short chunks put together; they come after the others.
    together: BytesMut,
    len: usize,
}

impl Held {
    fn push(&mut self, chunk: Bytes) {
        let is_first = self.len == 0;
        self.len = self.len.saturating_add(chunk.len());
        // A payload of one chunk stays as it came.
        if is_first || chunk.len() >= CHUNK_LEN_BYTES_MIN {
            self.close();
            self.chunks.push_back(chunk);
            return;
        }
        self.together.extend_from_slice(&chunk);
        if self.together.len() >= TOGETHER_LEN_BYTES_MAX {
            self.close();
        }
    }

    /// Begins a new chunk with what comes next.
    fn close(&mut self) {
        if !self.together.is_empty() {
            // A copy of the right length: what it was put together in has room for more.
            let chunk = Bytes::copy_from_slice(&self.together);
            self.chunks.push_back(chunk);
            self.together.clear();
        }
    }

    /// The chunks, each let go of as it is taken, and then the rest.
    fn in_front_of(mut self, rest: ClientStream) -> ClientStream {
        self.close();
        stream::iter(self.chunks).map(Ok).chain(rest).boxed()
    }

    fn join(mut self) -> Bytes {
        self.close();
        if self.chunks.len() <= 1 {
            return self.chunks.pop_front().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.len);
        for chunk in self.chunks {
            whole.extend_from_slice(&chunk);
        }
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, TryStreamExt};

    use super::*;

    /// Bytes that differ from their neighbours, cut into chunks of these lengths over and over.
    fn cut(len: usize, lens: &[usize]) -> (Vec<u8>, ClientStream) {
        let whole: Vec<u8> = (0..=250).cycle().take(len).collect();
        let mut rest = &whole[..];
        let mut chunks = Vec::new();
        for piece in lens.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*piece).min(rest.len()));
            chunks.push(Ok(Bytes::copy_from_slice(chunk)));
            rest = after;
        }
        (whole, stream::iter(chunks).boxed())
    }

    /// Failure: a payload in chunks of one byte took more than thirty times the threshold. Cause: each chunk was kept as
    /// it came, and the place that it takes is longer than a byte. Fix: short ones are put together (TS-1).
    #[test]
    fn short_chunks_take_no_more_room_than_long_ones() {
        const THRESHOLD: usize = 256 << 10;
        for lens in [
            &[1][..],
            &[1, 1_024],
            &[1_023],
            &[1, 0, 70_000],
            &[1_024],
            &[65_536],
        ] {
            let (whole, stream) = cut(THRESHOLD + 1, lens);
            let peeked = peek(stream, THRESHOLD).now_or_never();
            let Peeked::Large(stream) = peeked.unwrap().unwrap() else {
                panic!("one byte above the threshold");
            };
            let chunks: Vec<Bytes> = stream.try_collect().now_or_never().unwrap().unwrap();
            assert!(chunks.concat() == whole, "{lens:?}");
            let most = 2 * (THRESHOLD / CHUNK_LEN_BYTES_MIN + 1);
            assert!(chunks.len() <= most, "{lens:?}: {} chunks", chunks.len());

            let (whole, stream) = cut(THRESHOLD, lens);
            let peeked = peek(stream, THRESHOLD).now_or_never();
            let Peeked::Small(payload) = peeked.unwrap().unwrap() else {
                panic!("the threshold is small");
            };
            assert!(payload == whole, "{lens:?}");
        }
    }
}
