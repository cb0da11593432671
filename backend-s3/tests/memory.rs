//! What a stream through `Backend` keeps in memory, as the kernel saw it: the same for any length.
//!
//! The server is a process of its own: this program, started once more. Where `LARDER_TEST_CEPH` names a gateway, the
//! long stream goes there.

mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::process::{Child, Command, ExitCode, Stdio};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_conformance::BoxError;
use larder_s3::{S3Config, S3Place};
use larder_traits::{Backend, Metadata, ObjectContext, ObjectId};
use libtest_mimic::{Arguments, Completion, Trial};

use server::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};

/// Set for the process that is to be the server.
const SERVE: &str = "LARDER_TEST_S3_SERVE";

const CHUNK: usize = 64 << 10;

/// What a put holds of a stream at a time, in parts (see the README).
const PARTS_HELD: usize = 5;

/// Buffers of connections, the runtime, and what an allocator keeps back.
const REST_LEN_BYTES: usize = 24 << 20;

/// A server in a process of its own, which ends when its standard input does.
struct Elsewhere {
    child: Child,
    endpoint: String,
}

impl Elsewhere {
    fn start() -> Result<Self, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(SERVE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut endpoint = String::new();
        let output = child.stdout.take().ok_or("it has an output")?;
        BufReader::new(output).read_line(&mut endpoint)?;
        Ok(Self {
            child,
            endpoint: endpoint.trim().to_owned(),
        })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself; what is left to do is to take notice.
        drop(self.child.wait());
    }
}

fn serve() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let server = runtime.block_on(Server::start())?;
    let mut output = std::io::stdout();
    writeln!(output, "{}", server.endpoint())?;
    output.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Puts and gets a stream of `len` bytes in parts of `part_len`, and returns the most memory of either.
async fn peaks(config: S3Config, len: usize, part_len: usize) -> Result<[usize; 2], BoxError> {
    let part_len = NonZeroUsize::new(part_len).ok_or("a part has a length")?;
    let config = config
        .with_part_len_bytes(part_len)
        .with_payload_signing(false)
        .with_conditional_writes(false);
    let objects = S3Place::open(config).await?.backend();
    let id = ObjectId::new(ObjectContext::new("memory", Vec::new()), format!("{len}"));
    // Each chunk is memory of its own, as those of a socket are.
    let chunk = |at: usize| vec![u8::try_from(at % 251).expect("it is below 251"); CHUNK];
    let payload = stream::iter(0..len / CHUNK).map(move |at| Ok(Bytes::from(chunk(at))));
    let before = forget_peak()?;
    objects
        .put_object(&id, &Metadata::new(), payload.boxed())
        .await?;
    let put = memory("VmHWM")?.saturating_sub(before);
    let before = forget_peak()?;
    let (_, mut payload) = objects.get_object(&id).await?.ok_or("it was put")?;
    let mut found = 0;
    while let Some(bytes) = payload.next().await {
        let bytes = bytes?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let expected = chunk(found / CHUNK);
            let (same, more) = rest.split_at(rest.len().min(CHUNK - found % CHUNK));
            if same != &expected[..same.len()] {
                return Err(format!("the bytes from {found} on are others").into());
            }
            found += same.len();
            rest = more;
        }
    }
    let get = memory("VmHWM")?.saturating_sub(before);
    objects.delete_object(&id).await?;
    if found == len {
        Ok([put, get])
    } else {
        Err(format!("{found} bytes came back of {len}").into())
    }
}

/// Makes the kernel forget the most memory that this process ever had; returns what it has.
fn forget_peak() -> Result<usize, BoxError> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    memory("VmRSS")
}

fn memory(name: &str) -> Result<usize, BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let text = line.ok_or("the kernel does not say")?;
    let kib = text.trim_start_matches(':').trim().trim_end_matches(" kB");
    Ok(kib.parse::<usize>()? << 10)
}

fn is_bounded(ceph: bool, len: usize, part_len: usize) -> Result<(), BoxError> {
    let server;
    let config = match std::env::var("LARDER_TEST_CEPH") {
        Ok(endpoint) if ceph && !endpoint.is_empty() => S3Config::new("larder-conformance")
            .with_endpoint(endpoint)
            .with_prefix(format!("memory-{}", std::process::id()))
            .with_credentials("larder-access", "larder-secret"),
        _ => {
            server = Elsewhere::start()?;
            S3Config::new(BUCKET)
                .with_endpoint(&server.endpoint)
                .with_credentials(ACCESS_KEY, SECRET_KEY)
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let [put, get] = runtime.block_on(peaks(config, len, part_len))?;
    let mib = |len: usize| len >> 20;
    let told = format!(
        "{} MiB in parts of {} MiB: the put took {} MiB, the get {} MiB",
        mib(len),
        mib(part_len),
        mib(put),
        mib(get)
    );
    writeln!(std::io::stderr(), "{told}")?;
    let bound = PARTS_HELD * part_len + REST_LEN_BYTES;
    if put.max(get) <= bound {
        return Ok(());
    }
    Err(format!("{told}, and at most {} MiB are to be held", mib(bound)).into())
}

fn trial(name: &str, why_not: Option<&'static str>, test: fn() -> Result<(), BoxError>) -> Trial {
    Trial::ignorable_test(name, move || match why_not {
        Some(why) => Ok(Completion::ignored_with(why)),
        None => test()
            .map(|()| Completion::Completed)
            .map_err(|e| e.to_string().into()),
    })
}

fn main() -> ExitCode {
    if std::env::var_os(SERVE).is_some() {
        return match serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let mut arguments = Arguments::from_args();
    // What another test needs at the same time would be counted as well.
    arguments.test_threads = Some(1);
    let here = std::path::Path::new("/proc/self/clear_refs").exists();
    let unseen = (!here).then_some("the kernel does not tell the peak of a process");
    let thorough = std::env::var("LARDER_PROFILE").is_ok_and(|it| it == "standard" || it == "soak");
    let too_long = (!thorough).then_some("a GiB is for LARDER_PROFILE=standard");
    let trials = vec![
        trial("a_stream_of_96_MiB_keeps_a_few_parts", unseen, || {
            is_bounded(false, 96 << 20, 1 << 20)
        }),
        trial(
            "a_stream_of_1_GiB_keeps_a_few_parts",
            unseen.or(too_long),
            || is_bounded(true, 1 << 30, 8 << 20),
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
