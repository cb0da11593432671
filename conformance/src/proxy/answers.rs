//! The half of a connection that answers: server to client.

use std::future::pending;
use std::sync::atomic::Ordering;

use tokio::io::AsyncRead;
use tokio::net::tcp::ReadHalf;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::connection::{Forward, Plan, Reply};
use super::http::{Body, Response, is_interim};
use super::state::Shared;
use super::wire::{End, Found, Run, Sink, Source};

/// The half that answers.
struct Answering<'a> {
    server: Source<ReadHalf<'a>>,
    client: Sink<'a>,
    told: mpsc::UnboundedReceiver<Reply>,
    shared: &'a Shared,
}

/// Answers what was asked, in order, until nothing more can be asked or the server has closed.
pub(super) async fn answer<'a>(
    server: Source<ReadHalf<'a>>,
    client: Sink<'a>,
    told: mpsc::UnboundedReceiver<Reply>,
    shared: &'a Shared,
) -> Result<(), End> {
    let mut answering = Answering {
        server,
        client,
        told,
        shared,
    };
    while let Some(reply) = answering.next().await? {
        match reply {
            Reply::Forward(forward) => answering.forward(forward).await?,
            Reply::Own { bytes, closes } => {
                answering.client.send(&bytes).await?;
                if closes {
                    return Err(End::Close);
                }
            }
            Reply::Silence => pending().await,
            Reply::Raw => return answering.raw().await,
        }
    }
    Ok(())
}

/// The next head that is not an interim one; those go to the client, where there is one. `None` where the server has
/// closed, or speaks something else.
pub(super) async fn final_head<R: AsyncRead + Unpin + Send>(
    server: &mut Source<R>,
    mut client: Option<&mut Sink<'_>>,
) -> Result<Option<Response>, End> {
    loop {
        match server.head::<Response>().await? {
            Found::Head(head) if is_interim(head.status) => {
                if let Some(client) = client.as_deref_mut() {
                    client.send(&head.raw).await?;
                }
            }
            Found::Head(head) => return Ok(Some(head)),
            Found::Nothing => return Err(End::Close),
            Found::Other => return Ok(None),
        }
    }
}

impl Answering<'_> {
    /// What is to be answered next. A server that speaks unasked is no HTTP server, and one that closes is done.
    async fn next(&mut self) -> Result<Option<Reply>, End> {
        let more = tokio::select! {
            biased;
            reply = self.told.recv() => return Ok(reply),
            more = self.server.fill() => more?,
        };
        match self.told.try_recv() {
            Ok(reply) => Ok(Some(reply)),
            Err(TryRecvError::Disconnected) => Ok(None),
            Err(TryRecvError::Empty) if more => {
                self.shared.count_raw();
                Ok(Some(Reply::Raw))
            }
            Err(TryRecvError::Empty) => Err(End::Close),
        }
    }

    /// From here on, whatever comes. The client's end is passed on by the other half.
    async fn raw(&mut self) -> Result<(), End> {
        self.client.pass_all(&mut self.server).await?;
        // The client may have more to say, and ends the connection when it has said it.
        while self.told.recv().await.is_some() {}
        Ok(())
    }

    async fn forward(&mut self, forward: Forward) -> Result<(), End> {
        let Some(head) = final_head(&mut self.server, Some(&mut self.client)).await? else {
            self.shared.count_raw();
            return self.raw().await;
        };
        let mut body = head.body(forward.to_head);
        let unheard = forward.expects && !forward.begun.load(Ordering::Acquire);
        match forward.plan {
            Plan::Pass => {
                self.client.send(&head.raw).await?;
                pass(&mut self.server, &mut self.client, &mut body, self.shared).await?;
            }
            Plan::Lose => {
                self.server.drain(&mut body, self.shared).await?;
                return Err(End::Reset);
            }
            Plan::HangAfter => {
                self.server.drain(&mut body, self.shared).await?;
                pending::<()>().await;
            }
            Plan::Cut(after) => {
                self.client.send(&head.raw).await?;
                self.cut(&mut body, after).await?;
            }
            Plan::Short(len) => self.short(&head, &mut body, len).await?,
            Plan::Twice => {
                self.second(forward, false).await?;
                self.client.send(&head.raw).await?;
                pass(&mut self.server, &mut self.client, &mut body, self.shared).await?;
            }
            Plan::Again => {
                self.server.drain(&mut body, self.shared).await?;
                self.second(forward, true).await?;
            }
        }
        // After a body without a length the end of the connection is its end; and a client that was answered before it
        // began to send may send its body now or not, so that nothing more can be understood of it.
        if body == Body::ToEnd || unheard {
            return Err(End::Close);
        }
        Ok(())
    }

    /// Passes on so much payload, and then closes.
    async fn cut(&mut self, body: &mut Body, after: u64) -> Result<(), End> {
        let mut left = usize::try_from(after).unwrap_or(usize::MAX);
        loop {
            if left == 0 && !body.is_over() {
                return Err(End::Close);
            }
            let Some(run) = self.server.run(body, self.shared).await? else {
                return Ok(());
            };
            if !run.payload {
                self.client.send(&run.bytes).await?;
                continue;
            }
            let len = run.bytes.len().min(left);
            left -= len;
            self.client.send(&run.bytes[..len]).await?;
            if len < run.bytes.len() {
                return Err(End::Close);
            }
        }
    }

    /// Passes on so much payload as if it were all.
    async fn short(&mut self, head: &Response, body: &mut Body, len: u64) -> Result<(), End> {
        let chunked = matches!(body, Body::Chunked(_));
        match body {
            Body::Length(all) => {
                // What answers a HEAD or says that nothing changed has no body to shorten, and its head stays.
                let raw = if *all == 0 {
                    head.raw.clone()
                } else {
                    head.with_length(len.min(*all))
                };
                self.client.send(&raw).await?;
            }
            Body::Chunked(_) | Body::ToEnd => self.client.send(&head.raw).await?,
        }
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        while let Some(run) = self.server.run(body, self.shared).await? {
            let len = run.bytes.len().min(left);
            if !run.payload || len == 0 {
                continue;
            }
            left -= len;
            if chunked {
                self.client.send(format!("{len:x}\r\n").as_bytes()).await?;
            }
            self.client.send(&run.bytes[..len]).await?;
            if chunked {
                self.client.send(b"\r\n").await?;
            }
        }
        if chunked {
            self.client.send(b"0\r\n\r\n").await?;
        }
        Ok(())
    }

    /// Lets the second delivery reach the server and reads its answer, which the client may see.
    async fn second(&mut self, forward: Forward, seen: bool) -> Result<(), End> {
        let Some(twin) = forward.twin else {
            return Err(End::Close);
        };
        // Not given: the client broke off before the request was complete.
        let twin = twin.await?;
        let mut stream = twin.release().await?;
        let mut server = Source::new(&mut stream);
        let Some(head) = final_head(&mut server, None).await? else {
            return Err(End::Close);
        };
        let mut body = head.body(forward.to_head);
        if !seen {
            return server.drain(&mut body, self.shared).await;
        }
        self.client.send(&head.raw).await?;
        pass(&mut server, &mut self.client, &mut body, self.shared).await?;
        if body == Body::ToEnd {
            return Err(End::Close);
        }
        Ok(())
    }
}

/// Passes on a body as it comes.
async fn pass<R: AsyncRead + Unpin + Send>(
    server: &mut Source<R>,
    client: &mut Sink<'_>,
    body: &mut Body,
    shared: &Shared,
) -> Result<(), End> {
    while let Some(Run { bytes, .. }) = server.run(body, shared).await? {
        client.send(&bytes).await?;
    }
    Ok(())
}
