//! The blobs on S3 against other clients of the same server, on one machine with it.
//!
//! Most of the time belongs to the server, so what tells clients apart is the CPU time that each takes. Every contender
//! has a client of its own, made once, and they all speak plain HTTP. Whatever a client offers that makes it faster here
//! is switched on, but for Amazon's, which is used as it comes. Ours adds a checksum to every value and verifies it.

mod peers;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::harness::{
    Bench, Contender, Figure, OURS, Ratio, Result, Sample, Unit, Work, peak_memory_bytes,
};
use peers::{Amazon, Client, ObjectStore, OpenDal, Ours};

/// The variable that says where the server is. Its user is the one of `cargo xtask services`.
const VARIABLE: &str = "LARDER_TEST_CEPH";
const ACCESS_KEY: &str = "larder-access";
const SECRET_KEY: &str = "larder-secret";
const BUCKET: &str = "larder-bench";

const AMAZON: &str = "aws-sdk-s3";
const OBJECT_STORE: &str = "object_store";
const IN_PARTS: &str = "object_store, in parts";
const OPENDAL: &str = "opendal";

/// The length of the parts in which clients that can do so move what is large.
const PART_LEN_BYTES: usize = 8 << 20;
/// How many of them at a time.
const FAN_OUT: usize = 8;

/// The one key of large values.
const LARGE: &str = "large";
/// What keys start with that are listed.
const LISTED: &str = "listed/";

/// Where the server is, and the start of all names of one client in this run.
#[derive(Clone, Debug)]
struct Place {
    endpoint: String,
    prefix: String,
    prefix_of_ours: String,
}

impl Place {
    fn of(endpoint: &str, client: &str) -> Self {
        let prefix = |client| format!("bench-{}/{client}", std::process::id());
        Self {
            endpoint: endpoint.to_owned(),
            prefix: prefix(client),
            prefix_of_ours: prefix("ours"),
        }
    }
}

/// The clients by their names, ours first.
type Clients = Vec<(&'static str, Arc<dyn Client>)>;

pub(crate) fn run(bench: &mut Bench) -> Result {
    let endpoint = std::env::var(VARIABLE).map_err(|_e| {
        format!("{VARIABLE} names no server: `cargo xtask services up ceph` starts one")
    })?;
    // Clients that could speak TLS want to know how, whether they will or not.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return Err("somebody else chose how to encrypt".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let place = |client| Place::of(&endpoint, client);
    let clients: Clients = runtime.block_on(async {
        let amazon = Amazon::new(place("amazon"));
        amazon.create_bucket().await?;
        let clients: [(_, Arc<dyn Client>); 4] = [
            (OURS, Arc::new(Ours::open(&place("ours")).await?)),
            (OBJECT_STORE, Arc::new(ObjectStore::open(place("store"))?)),
            (OPENDAL, Arc::new(OpenDal::open(place("opendal"))?)),
            (AMAZON, Arc::new(amazon)),
        ];
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(clients.into())
    })?;
    bench.note(
        "a Ceph gateway with one disk, on the cores of the clients; bodies are not signed, but for those of aws-sdk-s3, \
         which is used as it comes",
    );
    small(bench, &runtime, &clients)?;
    middle(bench, &runtime, &clients)?;
    let in_parts = ObjectStore::open(place("parts"))?.in_parts();
    large(bench, &runtime, &clients, Arc::new(in_parts))?;
    listing(bench, &runtime, &clients)?;
    memory(bench, &runtime, &clients)
}

fn value(len: usize) -> Bytes {
    // Nothing that a store could make shorter.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// Calls by their numbers, shared among so many callers, of which each makes one at a time.
fn shared<F>(
    runtime: &Runtime,
    callers: usize,
    calls: Range<usize>,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result
where
    F: Future<Output = Result> + Send + 'static,
{
    runtime.block_on(async {
        let mut running = JoinSet::new();
        for caller in 0..callers {
            let (call, calls) = (call.clone(), calls.clone());
            running.spawn(async move {
                for number in calls.skip(caller).step_by(callers) {
                    call(number).await?;
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            });
        }
        while let Some(done) = running.join_next().await {
            done??;
        }
        Ok(())
    })
}

/// One kind of call, by all clients in turn.
struct Calls<'a> {
    runtime: &'a Runtime,
    callers: usize,
    calls: usize,
    len: usize,
    /// Whether values are written, or else read.
    set: bool,
}

impl<'a> Calls<'a> {
    fn contender(self, name: &str, client: &Arc<dyn Client>) -> Contender<'a> {
        let Self {
            runtime,
            callers,
            calls,
            len,
            set,
        } = self;
        let (client, body) = (Arc::clone(client), value(len));
        Contender::new(name, move |_| {
            let (client, body) = (Arc::clone(&client), body.clone());
            Sample::of(calls, || {
                shared(runtime, callers, 0..calls, move |number| {
                    let (client, body) = (Arc::clone(&client), body.clone());
                    async move {
                        let key = format!("{len}/{number}");
                        if set {
                            return client.set(&key, body).await;
                        }
                        expect_len(client.get(&key).await?.len(), len)
                    }
                })
            })
        })
    }
}

fn expect_len(found: usize, wanted: usize) -> Result {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{found} bytes came back instead of {wanted}").into())
}

/// 4 KiB: all that counts is what a request costs.
fn small(bench: &mut Bench, runtime: &Runtime, clients: &Clients) -> Result {
    for callers in [1, 32] {
        let calls = match callers {
            1 => bench.either(100, 50),
            _ => bench.either(512, 256),
        };
        for set in [true, false] {
            let verb = if set { "set" } else { "get" };
            let name = format!("{verb} of 4 KiB, {callers} at once");
            let work = Work::new(name, Unit::PerSecond)
                .rounds(bench.either(15, 5))
                .goal(OBJECT_STORE, 1.0)
                .goal(OPENDAL, 1.0)
                .goal(AMAZON, 1.0)
                .cpu_goal(OBJECT_STORE, 1.2)
                .cpu_goal(OPENDAL, 1.2)
                .cpu_goal(AMAZON, 1.8);
            turns(
                bench,
                &work,
                runtime,
                clients,
                (callers, calls, 4 << 10, set),
            )?;
        }
    }
    Ok(())
}

/// 1 MiB: copies and hashes begin to count.
fn middle(bench: &mut Bench, runtime: &Runtime, clients: &Clients) -> Result {
    for set in [true, false] {
        let verb = if set { "set" } else { "get" };
        let work = Work::new(format!("{verb} of 1 MiB, 16 at once"), Unit::PerSecond)
            .rounds(bench.either(15, 3))
            .cpu_goal(OBJECT_STORE, 1.0)
            .cpu_goal(OPENDAL, 1.0);
        let work = if set {
            work.cpu_goal(AMAZON, 2.0)
        } else {
            work.with_cpu()
        };
        let calls = bench.either(64, 32);
        turns(bench, &work, runtime, clients, (16, calls, 1 << 20, set))?;
    }
    Ok(())
}

fn turns(
    bench: &mut Bench,
    work: &Work,
    runtime: &Runtime,
    clients: &Clients,
    (callers, calls, len, set): (usize, usize, usize, bool),
) -> Result {
    let contenders = clients.iter().map(|(name, client)| {
        let calls = Calls {
            runtime,
            callers,
            calls,
            len,
            set,
        };
        calls.contender(name, client)
    });
    bench.compare(work, contenders.collect())?;
    Ok(())
}

const LARGE_LEN_BYTES: usize = 64 << 20;

/// 64 MiB, one at a time.
fn large(
    bench: &mut Bench,
    runtime: &Runtime,
    clients: &Clients,
    in_parts: Arc<dyn Client>,
) -> Result {
    let mut all: Clients = clients.clone();
    all.push((IN_PARTS, in_parts));
    let body = value(LARGE_LEN_BYTES);
    for set in [true, false] {
        let verb = if set { "set" } else { "get" };
        let work = Work::new(format!("{verb} of 64 MiB"), Unit::MegabytesPerSecond)
            .rounds(bench.either(7, 3))
            .with_cpu();
        let work = if set {
            work.goal(OBJECT_STORE, 1.1)
                .goal(IN_PARTS, 1.1)
                .goal(OPENDAL, 1.0)
                .goal(AMAZON, 1.1)
        } else {
            work.goal(OBJECT_STORE, 1.0)
                .goal(OPENDAL, 1.0)
                .goal(AMAZON, 1.2)
        };
        // Parts are a matter of writing.
        let taking_part = all.iter().filter(|(name, _)| set || *name != IN_PARTS);
        let contenders = taking_part.map(|(name, client)| {
            let body = &body;
            Contender::new(*name, move |_| {
                Sample::of(LARGE_LEN_BYTES, || {
                    runtime.block_on(async {
                        if set {
                            return client.set(LARGE, body.clone()).await;
                        }
                        expect_len(client.get(LARGE).await?.len(), LARGE_LEN_BYTES)
                    })
                })
            })
        });
        bench.compare(&work, contenders.collect())?;
    }
    Ok(())
}

/// All keys of a place, in pages of a thousand.
fn listing(bench: &mut Bench, runtime: &Runtime, clients: &Clients) -> Result {
    let keys = bench.either(10_000, 3_000);
    let ours = Arc::clone(&clients[0].1);
    shared(runtime, 32, 0..keys, move |number| {
        let ours = Arc::clone(&ours);
        async move { ours.set(&format!("{LISTED}{number}"), Bytes::new()).await }
    })?;
    let work = Work::new(format!("list of {keys} keys"), Unit::PerSecond)
        .rounds(bench.either(15, 3))
        .cpu_goal(OBJECT_STORE, 2.0)
        .cpu_goal(OPENDAL, 2.0)
        .cpu_goal(AMAZON, 2.0);
    let contenders = clients.iter().map(|(name, client)| {
        Contender::new(*name, move |_| {
            Sample::of(keys, || {
                let found = runtime.block_on(client.list())?;
                expect_len(found, keys)
            })
        })
    });
    bench.compare(&work, contenders.collect())?;
    Ok(())
}

/// What a process needs to have a value as a `Vec<u8>`; the value itself is the least.
fn memory(bench: &mut Bench, runtime: &Runtime, clients: &Clients) -> Result {
    let work = "peak memory of a get of 64 MiB into a Vec";
    let mut peaks: Vec<Vec<f64>> = vec![Vec::new(); clients.len()];
    for _ in 0..bench.either(5, 3) {
        for ((_, client), peaks) in clients.iter().zip(&mut peaks) {
            let (bytes, found) = peak_memory_bytes(|| runtime.block_on(client.get_vec(LARGE)))?;
            expect_len(found.len(), LARGE_LEN_BYTES)?;
            peaks.push(bytes as f64 / f64::from(1 << 20));
        }
    }
    for ((name, _), theirs) in clients.iter().zip(&peaks) {
        let median = crate::harness::median(theirs);
        bench.figure(Figure::new(work, name, median, "MiB"));
    }
    for ((name, _), theirs) in clients.iter().zip(&peaks).skip(1) {
        let ratios = theirs.iter().zip(&peaks[0]);
        let ratios = ratios.map(|(theirs, ours)| theirs / ours).collect();
        let goal = if *name == AMAZON { 1.3 } else { 1.0 };
        bench.ratio(Ratio::of(work, name, ratios, Some(goal)));
    }
    Ok(())
}
