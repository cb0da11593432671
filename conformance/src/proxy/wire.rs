//! Bytes in and bytes out, in pieces.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::WriteHalf;
use tokio::sync::{mpsc, oneshot};

use super::Direction;
use super::http::{Body, HEAD_LEN_BYTES_MAX, Head, head_end};
use super::state::Shared;

/// How much is read at once.
const PIECE_LEN_BYTES: usize = 32 * 1024;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// In order: what was sent arrives.
    Close,
    /// With a reset: the client learns that something is wrong.
    Reset,
}

impl From<io::Error> for End {
    /// What one side broke off is broken off for the other.
    fn from(_: io::Error) -> Self {
        Self::Reset
    }
}

/// One half of a connection is gone, so the other is of no use.
impl From<oneshot::error::RecvError> for End {
    fn from(_: oneshot::error::RecvError) -> Self {
        Self::Close
    }
}

impl<T> From<mpsc::error::SendError<T>> for End {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self::Close
    }
}

/// What was found where a head is due.
pub(super) enum Found<H> {
    Head(H),
    /// The other side has said all it has to say.
    Nothing,
    /// No head; what there is, is still to be read.
    Other,
}

/// A piece of a body as it came.
pub(super) struct Run {
    pub(super) bytes: Bytes,
    /// Whether this is payload, not framing.
    pub(super) payload: bool,
}

/// One side as it speaks.
pub(super) struct Source<R> {
    half: R,
    buf: BytesMut,
}

impl<R: AsyncRead + Unpin + Send> Source<R> {
    pub(super) fn new(half: R) -> Self {
        Self {
            half,
            buf: BytesMut::new(),
        }
    }

    /// Reads what there is; `false` at the end. Dropped before it is done, it has read nothing.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        self.buf.reserve(PIECE_LEN_BYTES);
        Ok(self.half.read_buf(&mut self.buf).await? > 0)
    }

    /// The head that comes next.
    pub(super) async fn head<H: Head + Send>(&mut self) -> io::Result<Found<H>> {
        loop {
            if !H::begins(&self.buf) || self.buf.len() > HEAD_LEN_BYTES_MAX {
                return Ok(Found::Other);
            }
            if let Some(end) = head_end(&self.buf) {
                let Some(mut head) = H::parse(&self.buf[..end]) else {
                    return Ok(Found::Other);
                };
                head.keep(self.buf.split_to(end).freeze());
                return Ok(Found::Head(head));
            }
            if !self.fill().await? {
                return Ok(if self.buf.is_empty() {
                    Found::Nothing
                } else {
                    Found::Other
                });
            }
        }
    }

    /// The next piece of this body; `None` when it is over. One that ends before its end closes the connection.
    pub(super) async fn run(
        &mut self,
        body: &mut Body,
        shared: &Shared,
    ) -> Result<Option<Run>, End> {
        loop {
            if body.is_over() {
                return Ok(None);
            }
            if self.buf.is_empty() && !self.fill().await? {
                return match body {
                    Body::ToEnd => Ok(None),
                    Body::Length(_) | Body::Chunked(_) => Err(End::Close),
                };
            }
            let (len, payload) = match body {
                Body::Length(left) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX);
                    let len = len.min(self.buf.len());
                    *left -= u64::try_from(len).expect("a length in memory fits 64 bits");
                    (len, true)
                }
                Body::ToEnd => (self.buf.len(), true),
                Body::Chunked(chunks) => match chunks.run(&self.buf) {
                    Some(run) => run,
                    None => {
                        // No chunks after all: whatever it is, it goes on as it came.
                        shared.count_raw();
                        *body = Body::ToEnd;
                        continue;
                    }
                },
            };
            let bytes = self.buf.split_to(len).freeze();
            return Ok(Some(Run { bytes, payload }));
        }
    }

    /// Whatever comes next; `None` at the end.
    pub(super) async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        if self.buf.is_empty() && !self.fill().await? {
            return Ok(None);
        }
        Ok(Some(self.buf.split().freeze()))
    }

    /// Throws away what is left of this body.
    pub(super) async fn drain(&mut self, body: &mut Body, shared: &Shared) -> Result<(), End> {
        while self.run(body, shared).await?.is_some() {}
        Ok(())
    }

    /// Throws away all that comes, until the other side closes.
    pub(super) async fn drain_all(&mut self) -> io::Result<()> {
        self.buf.clear();
        while self.piece().await?.is_some() {}
        Ok(())
    }
}

/// One side as it is spoken to.
pub(super) struct Sink<'a> {
    half: WriteHalf<'a>,
    direction: Direction,
    shared: &'a Shared,
}

impl<'a> Sink<'a> {
    pub(super) fn new(half: WriteHalf<'a>, direction: Direction, shared: &'a Shared) -> Self {
        Self {
            half,
            direction,
            shared,
        }
    }

    /// Sends these bytes, or as many as may pass before the connection is cut.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let pass = self.shared.pass(self.direction, bytes.len());
        self.half.write_all(&bytes[..pass.len]).await?;
        if pass.cut { Err(End::Close) } else { Ok(()) }
    }

    /// Says that nothing more will come.
    pub(super) async fn finish(&mut self) -> Result<(), End> {
        Ok(self.half.shutdown().await?)
    }

    /// Passes on all that comes from `source`, as it comes, and then its end.
    pub(super) async fn pass_all<R: AsyncRead + Unpin + Send>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<(), End> {
        while let Some(piece) = source.piece().await? {
            self.send(&piece).await?;
        }
        self.finish().await
    }
}
