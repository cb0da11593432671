//! The tiered store against its own high-volume tier used bare: what the second tier and the change log cost those
//! operations that never need them.
//!
//! The tiers are SQLite for small objects and memory for large ones. The row of a small put is committed durably on both
//! sides. How many calls each operation makes is counted over memory alone; the tests of the backend hold it to that.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_conformance::decorate::{Faulty, Switch};
use larder_mem::{MemConfig, MemPlace};
use larder_sqlite::{SqliteConfig, SqlitePlace};
use larder_tiered::{TieredConfig, TieredStorage};
use larder_traits::{
    Backend, BackendError, ChangeLog, ClientStream, GetResponse, HighVolumeBackend, Metadata,
    ObjectContext, ObjectId,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::harness::{
    Bench, Contender, Figure, OURS, Result, Sample, Unit, Work, peak_memory_bytes,
};

const BARE: &str = "bare high-volume tier";

pub(crate) fn run(bench: &mut Bench) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?;
    let folder = bench.scratch()?;
    let open = |name| SqlitePlace::open(SqliteConfig::new(folder.path().join(name)));
    let bare = runtime.block_on(open("bare.db"))?;
    let bare = bare.high_volume();
    let rows = runtime.block_on(open("tiered.db"))?;
    let payloads = MemPlace::open(MemConfig::named("bench tiered"));
    // Its work in the background runs on the runtime in which its configuration is made.
    let config = {
        let _entered = runtime.enter();
        TieredConfig::new(rows.caps(), payloads.caps())
    };
    let ours = TieredStorage::new(
        rows.high_volume(),
        payloads.high_volume(),
        rows.change_log(),
        config.clone(),
    )?;
    counted(bench, &runtime, &config)?;
    for callers in [1, 32] {
        let calls = bench.either(256, 64);
        let rounds = bench.either(31, 7);
        let work = Work::new(format!("put of 1 KiB, {callers} at once"), Unit::PerSecond)
            .rounds(rounds)
            .goal(BARE, 0.9)
            .with_cpu();
        let contenders = vec![
            Contender::new(OURS, |_| puts(&runtime, &ours, callers, calls)),
            Contender::new(BARE, |_| puts(&runtime, &bare, callers, calls)),
        ];
        bench.compare(&work, contenders)?;
        let work = Work::new(format!("get of 1 KiB, {callers} at once"), Unit::PerSecond)
            .rounds(rounds)
            .with_cpu();
        let contenders = vec![
            Contender::new(OURS, |_| gets(&runtime, &ours, callers, calls)),
            Contender::new(BARE, |_| gets(&runtime, &bare, callers, calls)),
        ];
        bench.compare(&work, contenders)?;
    }
    streamed(
        bench,
        &runtime,
        rows.high_volume(),
        rows.change_log(),
        config,
    )
}

fn id(number: usize) -> ObjectId {
    ObjectId::new(
        ObjectContext::new("bench", Vec::new()),
        format!("object-{number}"),
    )
}

fn once(payload: Bytes) -> ClientStream {
    stream::iter([Ok(payload)]).boxed()
}

/// So many puts, shared among so many callers.
fn puts(
    runtime: &Runtime,
    store: &(impl Backend + Clone + 'static),
    callers: usize,
    calls: usize,
) -> Result<Sample> {
    let payload = Bytes::from(vec![7; 1024]);
    let store = store.clone();
    shared(runtime, callers, calls, move |number| {
        let (store, payload) = (store.clone(), payload.clone());
        async move {
            let (id, metadata) = (id(number), Metadata::new());
            Ok(store.put_object(&id, &metadata, once(payload)).await?)
        }
    })
}

fn gets(
    runtime: &Runtime,
    store: &(impl Backend + Clone + 'static),
    callers: usize,
    calls: usize,
) -> Result<Sample> {
    let store = store.clone();
    shared(runtime, callers, calls, move |number| {
        let store = store.clone();
        async move {
            let (_, mut payload) = store.get_object(&id(number)).await?.ok_or("it was put")?;
            let mut len = 0;
            while let Some(chunk) = payload.next().await {
                len += chunk?.len();
            }
            if len == 1024 {
                Ok(())
            } else {
                Err(format!("{len} bytes came back").into())
            }
        }
    })
}

/// Lets every caller do its share of the calls, one after the other.
fn shared<F>(
    runtime: &Runtime,
    callers: usize,
    calls: usize,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Sample>
where
    F: Future<Output = Result> + Send + 'static,
{
    Sample::of(calls, || {
        runtime.block_on(async {
            let mut running = JoinSet::new();
            for caller in 0..callers {
                let call = call.clone();
                running.spawn(async move {
                    for number in (caller..calls).step_by(callers) {
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
    })
}

/// How often each operation calls the tiers and the log.
fn counted(bench: &mut Bench, runtime: &Runtime, config: &TieredConfig) -> Result {
    let [rows, payloads] = [(); 2].map(|()| MemPlace::open(MemConfig::private()));
    let switch = Switch::new();
    let store = TieredStorage::new(
        Faulty::new("high-volume tier", rows.high_volume(), &switch),
        Faulty::new("long-term tier", payloads.high_volume(), &switch),
        Faulty::new("log", rows.change_log(), &switch),
        config.clone(),
    )?;
    let put = |number, len| {
        runtime.block_on(async {
            let payload = once(vec![7; len].into());
            let (id, metadata) = (id(number), Metadata::new());
            Ok(store.put_object(&id, &metadata, payload).await?)
        })
    };
    let get = |number| {
        runtime.block_on(async {
            let (_, mut payload) = store.get_object(&id(number)).await?.ok_or("it was put")?;
            while let Some(chunk) = payload.next().await {
                drop(chunk?);
            }
            Ok(())
        })
    };
    const LARGE: usize = 2 << 20;
    let operations: [(&str, &dyn Fn() -> Result); 4] = [
        ("small put", &|| put(0, 1024)),
        ("small get", &|| get(0)),
        ("large put", &|| put(1, LARGE)),
        ("large get", &|| get(1)),
    ];
    for (operation, run) in operations {
        switch.forget_calls();
        run()?;
        let calls = switch.calls();
        for part in ["high-volume tier", "long-term tier", "log"] {
            let count = calls.iter().filter(|call| call.store == part).count();
            let work = format!("calls of a {operation} to the {part}");
            bench.figure(Figure::new(&work, OURS, count as f64, "calls"));
        }
    }
    Ok(())
}

/// What a put that goes to the long-term tier keeps in memory: it should be the same for any length.
fn streamed(
    bench: &mut Bench,
    runtime: &Runtime,
    high: impl HighVolumeBackend + 'static,
    log: impl ChangeLog + 'static,
    config: TieredConfig,
) -> Result {
    const CHUNK: usize = 64 << 10;
    let store = TieredStorage::new(high, Nowhere, log, config)?;
    for mib in [16, 256] {
        let chunks = (mib << 20) / CHUNK;
        let payload = stream::iter(0..chunks)
            .map(|_| Ok(Bytes::from(vec![7; CHUNK])))
            .boxed();
        let (bytes, ()) = peak_memory_bytes(|| {
            runtime.block_on(store.put_object(&id(mib), &Metadata::new(), payload))?;
            Ok(())
        })?;
        let work = format!("peak memory of a streamed put of {mib} MiB");
        bench.figure(Figure::new(
            &work,
            OURS,
            bytes as f64 / f64::from(1 << 20),
            "MiB",
        ));
    }
    Ok(())
}

/// A long-term tier that takes everything and keeps nothing.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Backend for Nowhere {
    fn name(&self) -> &'static str {
        "nowhere"
    }

    async fn put_object(
        &self,
        _id: &ObjectId,
        _metadata: &Metadata,
        mut stream: ClientStream,
    ) -> std::result::Result<(), BackendError> {
        while let Some(chunk) = stream.next().await {
            drop(chunk.map_err(BackendError::Client)?);
        }
        Ok(())
    }

    async fn get_object(&self, _id: &ObjectId) -> std::result::Result<GetResponse, BackendError> {
        Ok(None)
    }

    async fn get_metadata(
        &self,
        _id: &ObjectId,
    ) -> std::result::Result<Option<Metadata>, BackendError> {
        Ok(None)
    }

    async fn delete_object(&self, _id: &ObjectId) -> std::result::Result<(), BackendError> {
        Ok(())
    }

    async fn join(&self) {}
}
