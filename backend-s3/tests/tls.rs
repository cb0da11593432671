//! Connections that are encrypted: to a server whose certificate is trusted, to one whose is not, and to one that does not
//! encrypt at all.
//!
//! What is trusted is what the machine trusts, or instead of it what lies in the file that `SSL_CERT_FILE` names. This
//! program runs itself once more with that variable set. The certificate and its key in `tls` are nobody's but this
//! test's; they are for 127.0.0.1 and good until the end of 2125.

mod client;
mod server;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_conformance::BoxError;
use larder_s3::{S3Config, S3Place};
use larder_traits::{Atomicity, BlobMulti, Classify, ErrorKind, Outcome};
use libtest_mimic::{Arguments, Trial};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use client::{PART, config, pattern, soon};
use server::Server;

const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/certificate.pem");
const KEY: &[u8] = include_bytes!("tls/key.pem");

/// Set in the process that trusts the certificate.
const TRUSTS: &str = "LARDER_TEST_TLS_TRUSTS";

/// How long `open` may take to find out that it comes to nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A way to `server` that is encrypted up to here; its address.
async fn encrypted(server: SocketAddr) -> Result<String, BoxError> {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE)?;
    let key = PrivateKeyDer::from_pem_slice(KEY)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let endpoint = format!("https://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                // A client that trusts nobody here goes away, and so may any other.
                if let Ok(mut near) = tls.accept(stream).await
                    && let Ok(mut far) = TcpStream::connect(server).await
                {
                    drop(copy_bidirectional(&mut near, &mut far).await);
                }
            });
        }
    });
    Ok(endpoint)
}

async fn values_travel_encrypted() -> Result<(), BoxError> {
    let server = Server::start().await?;
    let endpoint = encrypted(server.addr()).await?;
    let blobs = S3Place::open(config(&endpoint)).await?.blob_multi();
    // In one piece, and in parts.
    for len in [10, 3 * PART] {
        let value = pattern(1, len);
        let set = blobs.set(soon(), "k", value.clone(), Atomicity::RequireAtomic);
        set.await?;
        if blobs.get(soon(), "k").await?.as_deref() != Some(&value[..]) {
            return Err(format!("another value came back than the one of {len} bytes").into());
        }
    }
    blobs.delete(soon(), "k").await?;
    match &blobs.list_keys(soon()).await?[..] {
        [] => Ok(()),
        keys => Err(format!("{keys:?} were deleted").into()),
    }
}

async fn a_certificate_of_a_stranger_is_refused() -> Result<(), BoxError> {
    let server = Server::start().await?;
    let endpoint = encrypted(server.addr()).await?;
    is_unavailable(config(&endpoint)).await
}

async fn a_server_that_does_not_encrypt_is_refused() -> Result<(), BoxError> {
    let server = Server::start().await?;
    is_unavailable(config(&server.endpoint().replace("http:", "https:"))).await
}

/// `open` fails, in time, and says that it did nothing.
async fn is_unavailable(config: S3Config) -> Result<(), BoxError> {
    let began = Instant::now();
    let opened = S3Place::open(config.with_call_timeout(PATIENCE)).await;
    let took = began.elapsed();
    let Err(e) = opened else {
        return Err("the place was opened".into());
    };
    let is_classified = e.kind() == ErrorKind::Unavailable && e.outcome() == Outcome::NotApplied;
    if is_classified && took < PATIENCE + Duration::from_secs(1) {
        return Ok(());
    }
    Err(format!("{e:?} after {took:?}").into())
}

/// Runs this program again, as a process that trusts the certificate.
fn in_a_process_that_trusts() -> Result<(), BoxError> {
    let made = Command::new(std::env::current_exe()?)
        .env("SSL_CERT_FILE", CERTIFICATE)
        .env(TRUSTS, "1")
        .output()?;
    if made.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&made.stderr).into())
}

fn run(test: impl Future<Output = Result<(), BoxError>>) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(test)
}

fn main() -> ExitCode {
    if std::env::var_os(TRUSTS).is_some() {
        return match run(values_travel_encrypted()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                // The exit code says the most of it, should this not be read.
                drop(writeln!(std::io::stderr(), "{e:?}"));
                ExitCode::FAILURE
            }
        };
    }
    let trial = |name: &str, test: fn() -> Result<(), BoxError>| {
        Trial::test(name, move || test().map_err(|e| e.to_string().into()))
    };
    let trials = vec![
        trial("values_travel_encrypted", in_a_process_that_trusts),
        trial("a_certificate_of_a_stranger_is_refused", || {
            run(a_certificate_of_a_stranger_is_refused())
        }),
        trial("a_server_that_does_not_encrypt_is_refused", || {
            run(a_server_that_does_not_encrypt_is_refused())
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
