//! Which way a payload goes, found out by reading no more of it than that takes (TS-1).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use larder_traits::{BackendError, ClientStream};

/// A payload of which as much is known as its way depends on.
pub(crate) enum Peeked {
    /// All of it: it ends at the threshold or before.
    Small(Bytes),
    /// It goes on behind the threshold; what was read stands at the front again.
    Large(ClientStream),
}

/// Reads `stream` until it ends or is known to be longer than the threshold. What is held is never more than the
/// threshold and one chunk.
pub(crate) async fn peek(
    mut stream: ClientStream,
    threshold_bytes: usize,
) -> Result<Peeked, BackendError> {
    let mut chunks = VecDeque::new();
    let mut len = 0_usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(BackendError::Client)?;
        if chunk.is_empty() {
            continue;
        }
        len = len.saturating_add(chunk.len());
        chunks.push_back(chunk);
        if len > threshold_bytes {
            return Ok(Peeked::Large(in_front(chunks, stream)));
        }
    }
    Ok(Peeked::Small(join(chunks, len)))
}

/// The chunks, each let go of as it is taken, and then the rest.
fn in_front(chunks: VecDeque<Bytes>, rest: ClientStream) -> ClientStream {
    stream::iter(chunks).map(Ok).chain(rest).boxed()
}

fn join(mut chunks: VecDeque<Bytes>, len: usize) -> Bytes {
    if chunks.len() <= 1 {
        return chunks.pop_front().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(len);
    for chunk in chunks {
        whole.extend_from_slice(&chunk);
    }
    whole.freeze()
}
