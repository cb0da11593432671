//! A server of the S3 protocol in this process: the protocol by `s3s`, the store a map behind a mutex.
//!
//! Every request that writes takes effect in one step under the mutex, conditions included, so the store is
//! linearizable and its conditions are exact, until a [`Quirks`] says otherwise. The map outlives the listener: a server
//! can be killed with all its connections and started again on its port.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test that includes this uses another part of it"
)]

mod store;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::header::CONTENT_RANGE;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpError, S3Result, s3_error};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{AbortHandle, JoinSet};

pub(crate) use store::{Endless, Quirks, Store};

pub(crate) const ACCESS_KEY: &str = "hermetic-access";
pub(crate) const SECRET_KEY: &str = "hermetic-secret-that-nobody-prints";
pub(crate) const BUCKET: &str = "pantry";

/// A running server; it ends, with all its connections, when it is dropped.
pub(crate) struct Server {
    pub(crate) store: Arc<Store>,
    addr: SocketAddr,
    accepting: Mutex<AbortHandle>,
}

impl Server {
    /// An empty bucket on a free port.
    pub(crate) async fn start() -> io::Result<Self> {
        let store = Arc::new(Store::default());
        store.create_bucket(BUCKET);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&store))).abort_handle();
        Ok(Self {
            store,
            addr,
            accepting: Mutex::new(accepting),
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many requests it got.
    pub(crate) fn requests(&self) -> u64 {
        self.store.requests()
    }

    /// Ends the server as a killed process would: connections break off, what was stored stays.
    pub(crate) fn kill(&self) {
        let accepting = self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        accepting.abort();
    }

    /// Starts it again where it was.
    pub(crate) async fn start_again(&self) -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.addr)?;
        let listener = socket.listen(1024)?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&self.store))).abort_handle();
        *self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = accepting;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One pair of credentials, which can be taken back.
struct Auth(Arc<Store>);

#[async_trait::async_trait]
impl S3Auth for Auth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == ACCESS_KEY && !self.0.quirks().revoked {
            Ok(SecretKey::from(SECRET_KEY))
        } else {
            Err(s3_error!(InvalidAccessKeyId))
        }
    }
}

fn service(store: &Arc<Store>) -> S3Service {
    let mut builder = S3ServiceBuilder::new(store::Shared(Arc::clone(store)));
    builder.set_auth(Auth(Arc::clone(store)));
    builder.build()
}

/// An answer as it goes out.
async fn answer(
    service: S3Service,
    store: Arc<Store>,
    request: Request<Incoming>,
) -> Result<Response<s3s::Body>, HttpError> {
    store.count_request();
    let mut response = service.call(request.map(s3s::Body::from)).await?;
    if store.quirks().hides_range {
        response.headers_mut().remove(CONTENT_RANGE);
    }
    Ok(response)
}

async fn accept(listener: TcpListener, store: Arc<Store>) {
    let service = service(&store);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // An error here would only say that small packets wait a little.
                drop(stream.set_nodelay(true));
                let (service, store) = (service.clone(), Arc::clone(&store));
                let answering = service_fn(move |request| {
                    answer(service.clone(), Arc::clone(&store), request)
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answering);
                connections.spawn(async move {
                    // How a connection ends is the client's affair.
                    drop(serving.await);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
