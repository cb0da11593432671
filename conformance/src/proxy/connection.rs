//! One connection of a client: two halves that run beside each other, what is asked and what is answered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Direction;
use super::answers::{self, final_head};
use super::requests;
use super::state::Shared;
use super::wire::{End, Sink, Source};

/// How long a client may go on sending after the last word, so that this word is not lost in a reset.
const LINGER: Duration = Duration::from_millis(500);

/// How long a server may take to answer a request that was delivered late.
const LATE_ANSWER: Duration = Duration::from_secs(10);

/// What the half that answers is told by the half that asks, in the order of the requests.
pub(super) enum Reply {
    /// The server will answer.
    Forward(Forward),
    /// These bytes, and perhaps the end.
    Own { bytes: Bytes, closes: bool },
    /// Nothing, ever.
    Silence,
    /// From here on, whatever comes.
    Raw,
}

/// A request that is on its way to the server.
pub(super) struct Forward {
    pub(super) plan: Plan,
    /// It was a HEAD, whose answer has no body.
    pub(super) to_head: bool,
    /// The client waits for a word before it sends its body.
    pub(super) expects: bool,
    /// It has begun to send it.
    pub(super) begun: Arc<AtomicBool>,
    /// The second delivery, once it is complete but for its last byte.
    pub(super) twin: Option<oneshot::Receiver<Twin>>,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Pass,
    Lose,
    HangAfter,
    Cut(u64),
    Short(u64),
    /// The first of two answers.
    Twice,
    /// The second of two answers.
    Again,
}

/// A request on a connection of its own that lacks its last byte, so that the server cannot act on it yet.
pub(super) struct Twin {
    stream: TcpStream,
    held: Option<u8>,
    to_head: bool,
}

impl Twin {
    pub(super) async fn open(shared: &Shared, to_head: bool) -> io::Result<Self> {
        let stream = TcpStream::connect(shared.upstream()).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            held: None,
            to_head,
        })
    }

    /// Sends all but the last of the bytes so far.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((last, rest)) = bytes.split_last() else {
            return Ok(());
        };
        if let Some(held) = self.held.replace(*last) {
            self.stream.write_all(&[held]).await?;
        }
        self.stream.write_all(rest).await
    }

    /// Sends the last byte. What is left is the connection with the answer on it.
    pub(super) async fn release(mut self) -> io::Result<TcpStream> {
        if let Some(held) = self.held.take() {
            self.stream.write_all(&[held]).await?;
        }
        Ok(self.stream)
    }

    /// Sends the last byte, and waits until the server has answered.
    pub(super) async fn finish(self, shared: &Shared) -> io::Result<()> {
        let to_head = self.to_head;
        let answered = async {
            let mut stream = self.release().await?;
            let mut server = Source::new(&mut stream);
            let head = final_head(&mut server, None).await.map_err(closed)?;
            let mut body = head.ok_or(End::Close).map_err(closed)?.body(to_head);
            server.drain(&mut body, shared).await.map_err(closed)
        };
        timeout(LATE_ANSWER, answered).await?
    }
}

fn closed(_: End) -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the server gave no answer to a request that was delivered late",
    )
}

/// Serves one client until one of the two sides has had enough.
pub(super) async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    shared.count_connection();
    let end = match TcpStream::connect(shared.upstream()).await {
        Ok(mut server) => between(&mut client, &mut server, &shared).await,
        Err(_) => Err(End::Reset),
    };
    match end {
        Err(End::Reset) => {
            // Where this fails, the client sees the connection close, which is no success either.
            drop(client.set_zero_linger());
        }
        Ok(()) | Err(End::Close) => {
            if client.shutdown().await.is_ok() {
                drop(timeout(LINGER, Source::new(&mut client).drain_all()).await);
            }
        }
    }
}

async fn between(
    client: &mut TcpStream,
    server: &mut TcpStream,
    shared: &Shared,
) -> Result<(), End> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let (tell, told) = mpsc::unbounded_channel();
    let answering = answers::answer(
        Source::new(from_server),
        Sink::new(to_client, Direction::Down, shared),
        told,
        shared,
    );
    let asking = requests::ask(
        Source::new(from_client),
        Sink::new(to_server, Direction::Up, shared),
        tell,
        shared,
    );
    tokio::pin!(answering);
    tokio::select! {
        end = &mut answering => end,
        end = asking => match end {
            // No more questions; what was asked is still answered.
            Ok(()) => answering.await,
            Err(end) => Err(end),
        },
    }
}
