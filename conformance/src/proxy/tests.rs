//! Each misbehaviour, seen by a client that speaks plain bytes and told by a server that notes what reached it.

mod bodies;
mod faults;
mod raw;
mod server;

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::{Answer, Direction, Misbehaviour, Proxy};
use crate::fixture::{FaultKind, Faults};
use server::{Client, Server};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// So long nothing must come before it is called silence.
const SILENCE: Duration = Duration::from_millis(150);

async fn world() -> (Server, Proxy) {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr).await.unwrap();
    (server, proxy)
}

/// Whether nothing comes.
async fn is_silent(client: &mut Client) -> bool {
    timeout(SILENCE, client.answer()).await.is_err()
}
