//! A proxy on loopback that makes a server behind it misbehave, for backends that reach their medium by TCP.
//!
//! It reads HTTP/1.1 as it goes by, so that a fault can be aimed at the nth request, whichever connection brings it:
//! [`Faults`] for what every medium can do, [`Misbehaviour`] for what servers do besides. Whatever is not HTTP/1.1 it
//! passes on as it is ([`Proxy::raw_connections`]), and byte cuts work on that as well.
//!
//! Bodies pass through in pieces and are never collected, whatever is done to them.
//!
//! ```no_run
//! use larder_conformance::proxy::{Answer, Misbehaviour, Proxy};
//! use larder_conformance::{FaultKind, Faults};
//!
//! # async fn f() -> std::io::Result<()> {
//! let proxy = Proxy::start("127.0.0.1:9000".parse().expect("an address")).await?;
//! let endpoint = format!("http://{}", proxy.addr());
//! // The second request takes effect, and its answer is lost.
//! proxy.arm(2, FaultKind::ErrorAfter);
//! // From now on nothing but this.
//! proxy.misbehave_always(Misbehaviour::Answer(Answer::s3(503, "SlowDown").retry_after(1)));
//! # drop(endpoint);
//! # Ok(())
//! # }
//! ```

mod answers;
mod connection;
mod http;
mod requests;
mod state;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::fixture::{FaultKind, Faults};
use state::Shared;

/// What happens to a request, and to its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// The connection is reset before the request reaches the server.
    Reset,
    /// The server gets the request and answers; the answer is thrown away and the connection reset.
    LoseAnswer,
    /// The request does not reach the server. The connection stays open and silent.
    Hang,
    /// The server gets the request and answers; the answer is thrown away. The connection stays open and silent.
    HangAfter,
    /// The request does not reach the server, and this is the answer.
    Answer(Answer),
    /// Of the body of the answer these bytes arrive, and then the connection is closed. A body that is no longer
    /// arrives whole, but for the end mark of a chunked one that is exactly so long.
    CutBody {
        /// What arrives, without the framing of chunks.
        after_bytes: u64,
    },
    /// Of the body of the answer only these bytes arrive, and the framing says that this is all: only who knows the
    /// length or the sum from elsewhere can tell.
    ShortBody {
        /// What arrives, without the framing of chunks.
        len_bytes: u64,
    },
    /// The server gets the request twice, the second time after it answered the first. The client gets the first
    /// answer, once the second is there as well: a delayed duplicate.
    Twice,
    /// As [`Twice`](Self::Twice), and the client gets the second answer: a repeat of a request whose answer was lost.
    Again,
    /// The connection is reset, and the server gets the request when [`Proxy::deliver`] is called.
    ///
    /// Until then the server waits for its last byte on another connection, so a server that loses patience with slow
    /// clients bounds how late it can be.
    Late,
    /// The request reaches the server after this time.
    Delay(Duration),
}

/// An answer that the server never gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The status, such as 503.
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after_secs: Option<u32>,
    /// The header `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// An answer of this status, without a body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            retry_after_secs: None,
            content_type: "text/plain".into(),
            body: Bytes::new(),
        }
    }

    /// An answer with an error in XML as servers of the S3 protocol give it, with a code such as `SlowDown`. They do so
    /// under the status 200 as well, where they began to answer before they were done.
    #[must_use]
    pub fn s3(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>made up by the \
             proxy</Message><RequestId>0</RequestId></Error>"
        );
        Self::new(status).body("application/xml", body)
    }

    /// The same answer with this body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.content_type = content_type.to_owned();
        self.body = body.into();
        self
    }

    /// The same answer with the advice to come back after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }
}

/// Which way bytes go.
#[expect(clippy::exhaustive_enums, reason = "a connection has two directions")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// A proxy before a server; it ends, with all its connections, when it is dropped.
///
/// Requests are counted over all connections, in the order in which their heads arrive. At most one misbehaviour is
/// armed at a time, and beside it one byte cut; [`disarm`](Faults::disarm) takes both away. A request to leave HTTP
/// (`CONNECT`, or one with an `Upgrade`) meets no misbehaviour and does not count for one.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Proxy {
    /// A proxy before `upstream` on a free port, run by the runtime that this is called on.
    ///
    /// Every connection opens one of its own to the server; where that fails, the client's is reset.
    ///
    /// # Errors
    ///
    /// Whatever the system answers to the wish for a port.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(upstream));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self {
            addr,
            shared,
            accepting,
        })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The `nth` request from now on, counted from 1, meets this; once.
    pub fn misbehave(&self, nth: u64, what: Misbehaviour) {
        self.shared.arm(nth.max(1), what);
    }

    /// Every request from now on meets this, until [`disarm`](Faults::disarm).
    pub fn misbehave_always(&self, what: Misbehaviour) {
        self.shared.arm(0, what);
    }

    /// Only requests of this method, such as `PUT`, are counted and met by a misbehaviour; with `None`, all.
    /// [`requests`](Self::requests) takes no notice.
    pub fn only(&self, method: Option<&str>) {
        self.shared.only(method);
    }

    /// After so many more bytes in this direction, over all connections, the one that carried the last of them is
    /// closed to both sides. HTTP or not.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.cut_after(direction, bytes);
    }

    /// Every request waits so long before it goes on to the server; zero takes the delay away.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay(delay);
    }

    /// Hands the requests to the server that [`Misbehaviour::Late`] kept from it, in their order, and waits for the
    /// answer to each. How many were answered.
    ///
    /// # Errors
    ///
    /// The server closed the connection, which happens to requests that were kept for too long, or did not answer
    /// within ten seconds. What was kept behind that request is still kept.
    pub async fn deliver(&self) -> io::Result<usize> {
        let mut answered = 0;
        while let Some(twin) = self.shared.next_late() {
            twin.finish(&self.shared).await?;
            answered += 1;
        }
        Ok(answered)
    }

    /// How many requests wait for [`deliver`](Self::deliver).
    #[must_use]
    pub fn undelivered(&self) -> usize {
        self.shared.undelivered()
    }

    /// How many requests came, those included that never reached the server.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.counts().requests
    }

    /// Method and target of the requests so far, the oldest first, and at most the last 10,000 of them.
    #[must_use]
    pub fn request_lines(&self) -> Vec<String> {
        self.shared.lines()
    }

    /// How many connections clients opened.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.counts().connections
    }

    /// How many of them were passed on as they were, from the point where they ceased to be HTTP/1.1: another
    /// protocol, a tunnel, an upgrade, or a message that makes no sense.
    #[must_use]
    pub fn raw_connections(&self) -> u64 {
        self.shared.counts().raw
    }

    /// How many bytes went this way.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        let counts = self.shared.counts();
        match direction {
            Direction::Up => counts.up,
            Direction::Down => counts.down,
        }
    }
}

impl Faults for Proxy {
    fn arm(&self, nth: u64, kind: FaultKind) {
        let what = match kind {
            FaultKind::ErrorBefore => Misbehaviour::Reset,
            FaultKind::ErrorAfter => Misbehaviour::LoseAnswer,
            FaultKind::Hang => Misbehaviour::Hang,
        };
        self.misbehave(nth, what);
    }

    fn disarm(&self) -> bool {
        self.shared.disarm()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("addr", &self.addr)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The task owns the listener and the set of connections, and they end with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(connection::serve(client, Arc::clone(&shared)));
                }
                // Out of descriptors, most likely; that passes.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
