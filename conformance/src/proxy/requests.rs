//! The half of a connection that asks: client to server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::tcp::ReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::connection::{Forward, Plan, Reply, Twin};
use super::http::{Request, written};
use super::state::Shared;
use super::wire::{End, Found, Sink, Source};
use super::{Answer, Misbehaviour};

/// How long a client that was refused may take to notice, before its connection is closed.
const NOTICE: Duration = Duration::from_secs(2);

/// The half that asks.
struct Asking<'a> {
    client: Source<ReadHalf<'a>>,
    server: Sink<'a>,
    tell: mpsc::UnboundedSender<Reply>,
    shared: &'a Shared,
}

/// Where a request goes.
enum To {
    /// To the server.
    Server,
    /// To the server, and to it once more.
    Both(Twin),
    /// To the server, but for the last byte.
    Late(Twin),
}

/// Passes on what the client asks, until it has no more to ask.
pub(super) async fn ask<'a>(
    client: Source<ReadHalf<'a>>,
    server: Sink<'a>,
    tell: mpsc::UnboundedSender<Reply>,
    shared: &'a Shared,
) -> Result<(), End> {
    let mut asking = Asking {
        client,
        server,
        tell,
        shared,
    };
    loop {
        match asking.client.head().await? {
            Found::Nothing => return Ok(()),
            Found::Other => return asking.raw(None).await,
            Found::Head(request) => asking.one(request).await?,
        }
    }
}

impl Asking<'_> {
    /// Tells the other half what comes next. It ends last, so it listens.
    fn tell(&self, reply: Reply) -> Result<(), End> {
        Ok(self.tell.send(reply)?)
    }

    async fn raw(&mut self, head: Option<Bytes>) -> Result<(), End> {
        self.shared.count_raw();
        self.tell(Reply::Raw)?;
        if let Some(head) = head {
            self.server.send(&head).await?;
        }
        self.server.pass_all(&mut self.client).await
    }

    async fn one(&mut self, request: Request) -> Result<(), End> {
        let turn = self.shared.enter(&request);
        if !turn.delay.is_zero() {
            sleep(turn.delay).await;
        }
        if request.leaves {
            return self.raw(Some(request.raw)).await;
        }
        let to_head = request.method == "HEAD";
        match turn.what {
            None => self.forward(request, Plan::Pass).await,
            Some(Misbehaviour::Reset) => Err(End::Reset),
            Some(Misbehaviour::LoseAnswer) => self.forward(request, Plan::Lose).await,
            Some(Misbehaviour::Hang) => {
                self.tell(Reply::Silence)?;
                self.ignore().await
            }
            Some(Misbehaviour::HangAfter) => {
                self.forward(request, Plan::HangAfter).await?;
                self.ignore().await
            }
            Some(Misbehaviour::Answer(answer)) => self.refuse(request, &answer).await,
            Some(Misbehaviour::CutBody { after_bytes }) => {
                self.forward(request, Plan::Cut(after_bytes)).await
            }
            Some(Misbehaviour::ShortBody { len_bytes }) => {
                self.forward(request, Plan::Short(len_bytes)).await
            }
            Some(Misbehaviour::Twice) => self.forward(request, Plan::Twice).await,
            Some(Misbehaviour::Again) => self.forward(request, Plan::Again).await,
            Some(Misbehaviour::Late) => {
                if request.expects {
                    // The server cannot say so, for this client is not to hear from it.
                    let bytes = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
                    self.tell(Reply::Own {
                        bytes,
                        closes: false,
                    })?;
                }
                let twin = Twin::open(self.shared, to_head).await?;
                let begun = AtomicBool::new(false);
                if let To::Late(twin) = self.deliver(request, To::Late(twin), &begun).await? {
                    self.shared.keep(twin);
                }
                Err(End::Reset)
            }
            Some(Misbehaviour::Delay(delay)) => {
                sleep(delay).await;
                self.forward(request, Plan::Pass).await
            }
        }
    }

    /// Hears the client out, and says nothing.
    async fn ignore(&mut self) -> Result<(), End> {
        self.client.drain_all().await?;
        Err(End::Close)
    }

    async fn forward(&mut self, request: Request, plan: Plan) -> Result<(), End> {
        let to_head = request.method == "HEAD";
        let begun = Arc::new(AtomicBool::new(false));
        let mut to = To::Server;
        let (mut give, mut twin) = (None, None);
        if matches!(plan, Plan::Twice | Plan::Again) {
            let (sender, receiver) = oneshot::channel();
            (give, twin) = (Some(sender), Some(receiver));
            to = To::Both(Twin::open(self.shared, to_head).await?);
        }
        // Told first, for a server may answer before it has heard everything.
        self.tell(Reply::Forward(Forward {
            plan,
            to_head,
            expects: request.expects && !request.body.is_over(),
            begun: Arc::clone(&begun),
            twin,
        }))?;
        if let (To::Both(twin), Some(give)) = (self.deliver(request, to, &begun).await?, give) {
            // Nobody there to take it: the connection has ended already.
            if give.send(twin).is_err() {
                return Err(End::Close);
            }
        }
        Ok(())
    }

    /// Sends a request with its body.
    async fn deliver(
        &mut self,
        mut request: Request,
        mut to: To,
        begun: &AtomicBool,
    ) -> Result<To, End> {
        self.send(&mut to, &request.raw).await?;
        while let Some(run) = self.client.run(&mut request.body, self.shared).await? {
            begun.store(true, Ordering::Release);
            self.send(&mut to, &run.bytes).await?;
        }
        Ok(to)
    }

    async fn send(&mut self, to: &mut To, bytes: &[u8]) -> Result<(), End> {
        match to {
            To::Server => self.server.send(bytes).await,
            To::Both(twin) => {
                self.server.send(bytes).await?;
                Ok(twin.send(bytes).await?)
            }
            To::Late(twin) => Ok(twin.send(bytes).await?),
        }
    }

    /// Answers in the server's place.
    async fn refuse(&mut self, mut request: Request, answer: &Answer) -> Result<(), End> {
        let to_head = request.method == "HEAD";
        let waits = request.expects && !request.body.is_over();
        let closes = request.closes || waits;
        let bytes = written(answer, to_head, closes);
        if !waits {
            self.client.drain(&mut request.body, self.shared).await?;
            return self.tell(Reply::Own { bytes, closes });
        }
        // Whether the body will come now, nobody can tell: the connection is of no more use.
        self.tell(Reply::Own { bytes, closes })?;
        let heard = timeout(NOTICE, self.client.drain_all()).await;
        drop(heard);
        Err(End::Close)
    }
}
