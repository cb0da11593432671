//! Ceph's object gateway, killed and started again while clients write and read: whatever they were told has to fit
//! together.
//!
//! The gateway is one of this test's own, beside the one that other tests use; it is started by a script that
//! `cargo xtask services` wrote, so nothing is ever killed that is not a child of this process.

mod calls;
mod real;

use std::ffi::OsString;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use larder_conformance::BoxError;
use larder_conformance::lin::Verdict;
use larder_s3::{S3Blob, S3Place};
use libtest_mimic::{Arguments, Trial};

use calls::{Clients, Load};
use real::{Ceph, Server};

/// The script that is one more gateway, on the port that is its argument.
const SCRIPT: &str = "LARDER_TEST_CEPH_GATEWAY";

const BUCKET: &str = "larder-kills";

const CLIENTS: usize = 4;
const KILLS: usize = 5;

/// How long the gateway works before it is killed.
const WORK: Duration = Duration::from_millis(1_500);

/// How long it may take to come back; half a second is usual.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway of this test's own; it ends when this is dropped.
struct Gateway {
    script: OsString,
    port: u16,
    child: Child,
}

impl Gateway {
    fn start(script: OsString) -> Result<Self, BoxError> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let child = spawn(&script, port)?;
        let mut gateway = Self {
            script,
            port,
            child,
        };
        gateway.listens()?;
        Ok(gateway)
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn listens(&mut self) -> Result<(), BoxError> {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the gateway ended by itself: {status}").into());
            }
            if Instant::now() > until {
                return Err("the gateway does not listen".into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), BoxError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn start_again(&mut self) -> Result<(), BoxError> {
        self.child = spawn(&self.script, self.port)?;
        self.listens()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Where it has ended already there is nothing left to do.
        drop(self.kill());
    }
}

fn spawn(script: &OsString, port: u16) -> std::io::Result<Child> {
    let mut gateway = Command::new("sh");
    gateway.arg(script).arg(port.to_string());
    gateway.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
}

async fn blobs(endpoint: &str) -> Result<S3Blob, BoxError> {
    let config = real::plain::<Ceph>(endpoint, BUCKET)
        .with_prefix(format!("{}", std::process::id()))
        .with_part_len_bytes((5_usize << 20).try_into()?)
        .with_conditional_writes(false);
    Ok(S3Place::open(config).await?.blob_multi())
}

async fn calls_through_kills_are_linearizable(
    stays: &str,
    mut gateway: Gateway,
) -> Result<(), BoxError> {
    real::make_bucket(&real::client::<Ceph>(stays), BUCKET).await?;
    let mut handles = Vec::new();
    for _ in 0..CLIENTS {
        handles.push(blobs(&gateway.endpoint()).await?);
    }
    let load = Load {
        calls_max: 1_000,
        patience: Duration::from_secs(5),
        // Two parts.
        long_len_bytes: 6 << 20,
        long_every: 20,
        // Two such calls at once can keep a key out of the lists of this server for good (see the README).
        deletes_alone: true,
    };
    let clients = Clients::start(load, handles);
    let killer = tokio::task::spawn_blocking(move || -> Result<Gateway, BoxError> {
        for _ in 0..KILLS {
            sleep(WORK);
            gateway.kill()?;
            gateway.start_again()?;
        }
        sleep(WORK);
        Ok(gateway)
    });
    let gateway = killer.await??;
    // What was acknowledged by one gateway is what the other one reads.
    let judged = clients.judge(&blobs(stays).await?).await?;
    drop(gateway);
    let (report, not_applied) = (judged.report, judged.not_applied);
    let told = format!("{not_applied} calls not applied, {report}");
    if report.overlapping < 100 || not_applied + report.unknown == 0 {
        return Err(format!("there was little to judge: {told}").into());
    }
    match report.verdict {
        Verdict::Linearizable => {
            writeln!(std::io::stderr(), "{told}")?;
            Ok(())
        }
        _ => Err(told.into()),
    }
}

fn run(stays: &str, script: OsString) -> Result<(), BoxError> {
    let gateway = Gateway::start(script)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(calls_through_kills_are_linearizable(stays, gateway))
}

fn main() -> ExitCode {
    const NAME: &str = "calls_through_kills_of_a_gateway_are_linearizable";
    let trial = match (Ceph::endpoints().pop(), std::env::var_os(SCRIPT)) {
        (Some(stays), Some(script)) => Trial::test(NAME, move || {
            run(&stays, script).map_err(|e| e.to_string().into())
        }),
        _ => real::absent::<Ceph>(NAME),
    };
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}
