//! BM-2.4, BM-4.1, BM-6.1 and BM-6.4: calls at the same time. The checks stand in the tables of their clauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use larder_traits::blob_multi::slice_of;
use larder_traits::{Atomicity, BlobMulti, Classify, ErrorKind, ExternalError, Outcome as Effect};
use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::set::in_task;
use super::{IN_FLIGHT, NAMES, value_len_max};
use crate::blob_multi::{Handle, World, patient};
use crate::check::{Outcome, Stop, describe};
use crate::checks::pattern;
use crate::cx::{Cx, show};
use crate::engine::lin::{self, Driver, Performed, Plan, Wrong};
use crate::engine::meeting::Harm;
use crate::lin::{Answer, ModelName, Op, Row};
use crate::seed::hash;

/// How many looks must have met a running write.
const MET_MIN: u64 = 16;

/// How long it is tried to meet that many.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients on handles of one place.
struct Blobs {
    /// The handle of each client; with one handle, that of all.
    stores: Vec<Arc<dyn BlobMulti>>,
    wrong: Wrong,
}

impl Blobs {
    /// Opens so many handles; clients share them in turn.
    async fn open(cx: &Cx<dyn World>, place: &str, handles: usize) -> Result<Arc<Self>, Stop> {
        let mut stores = Vec::new();
        for name in &NAMES[..handles] {
            stores.push(cx.open_as(name, place).await?.store());
        }
        Ok(Arc::new(Self {
            stores,
            wrong: Wrong::default(),
        }))
    }

    fn failed(&self, op: &Op, e: &ExternalError) -> Performed {
        // The arguments are good, nobody damages the medium, and absence is no error.
        let forbidden = matches!(
            e.kind(),
            ErrorKind::InvalidInput
                | ErrorKind::NotFound
                | ErrorKind::Unsupported
                | ErrorKind::Corrupt
                | ErrorKind::Internal
        );
        if forbidden {
            self.wrong
                .note(Stop::fail(op.to_string(), describe(e), "an answer"));
        }
        if e.outcome() == Effect::NotApplied {
            return Performed::NotApplied;
        }
        if lin::is_read(op) {
            let expected = "a failed read is NotApplied";
            self.wrong
                .note(Stop::fail(op.to_string(), describe(e), expected));
            return Performed::NotApplied;
        }
        Performed::Unknown
    }

    /// Every client has another method to read with; they say the same.
    async fn read(&self, client: u32, key: &str) -> Result<Option<Bytes>, ExternalError> {
        let (store, deadline) = (self.store(client), Handle::ample());
        match client % 3 {
            0 => Ok(store.get(deadline, key).await?.map(Bytes::from)),
            1 => store.get_bytes(deadline, key).await,
            _ => store.get_range(deadline, key, 0..u64::MAX).await,
        }
    }

    fn store(&self, client: u32) -> &dyn BlobMulti {
        let at = usize::try_from(client).unwrap_or(0) % self.stores.len();
        self.stores[at].as_ref()
    }
}

#[async_trait]
impl Driver for Blobs {
    async fn perform(&self, client: u32, op: &Op) -> Performed {
        let (store, deadline) = (self.store(client), Handle::ample());
        let answered = match op {
            Op::Get { key } => patient(|| self.read(client, key))
                .await
                .map(|value| Answer::Row(value.map(|value| Row::inline(decode(&value))))),
            Op::Set { key, value, .. } => {
                let (bytes, atomic) = encode(value);
                let set = store.set(deadline, key, bytes, atomic).await;
                set.map(|()| Answer::Done)
            }
            Op::Delete { key } => {
                let deleted = store.delete(deadline, key).await;
                deleted.map(|()| Answer::Done)
            }
            Op::List => patient(|| store.list_keys(deadline))
                .await
                .map(|keys| Answer::Keys(self.each_once(keys))),
            other => unreachable!("no script of this contract has {other}"),
        };
        answered.map_or_else(|e| self.failed(op, &e), Performed::Answered)
    }

    fn wrong(&self) -> &Wrong {
        &self.wrong
    }
}

impl Blobs {
    fn each_once(&self, mut keys: Vec<String>) -> Vec<String> {
        keys.sort();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            let expected = "each key once (BM-2)";
            self.wrong
                .note(Stop::fail("list_keys()", format!("{keys:?}"), expected));
        }
        keys.dedup();
        keys
    }
}

/// The bytes of a value of a history: its text, then a pattern whose length it decides, most often a short one.
fn encode(text: &str) -> (Bytes, Atomicity) {
    let dice = hash(text.as_bytes()) >> 24;
    let len = match dice % 16 {
        0 => 20_000,
        1..4 => 5_000,
        other => other * 7,
    };
    let atomic = if dice & 16 == 0 {
        Atomicity::RequireAtomic
    } else {
        Atomicity::AllowNonAtomic
    };
    let len = usize::try_from(len).unwrap_or(0);
    let value = [text.as_bytes(), b"\n", &pattern(text, len)].concat();
    (value.into(), atomic)
}

/// The text of a value, if it is whole; else words for it that nobody has set.
fn decode(value: &[u8]) -> String {
    let text = value.split(|&byte| byte == b'\n').next();
    let text = String::from_utf8_lossy(text.unwrap_or_default());
    if encode(&text).0 == value {
        text.into_owned()
    } else {
        format!("not a value that was set: {}", show(value))
    }
}

/// Runs `plan` on one handle for all clients, and then on a handle for each.
async fn on_one_and_on_several<S>(cx: &Cx<dyn World>, plan: &Plan, script: S) -> Outcome
where
    S: Fn(&Plan, &mut proptest::test_runner::TestRng, &str) -> Vec<Op>,
{
    for (place, count) in [("one", 1), ("several", NAMES.len())] {
        let clients = Blobs::open(cx, place, count).await?;
        lin::run(cx, plan, clients, |rng, tag| script(plan, rng, tag)).await?;
    }
    Ok(())
}

fn plan(model: ModelName, clients: u32, keys: &[&str]) -> Plan {
    Plan {
        model,
        clients,
        calls: 12,
        keys: keys.iter().map(|&key| key.to_owned()).collect(),
    }
}

pub(super) async fn harmed(cx: &Cx<dyn World>, harm: Harm) -> Outcome {
    let mut plan = plan(ModelName::Register, 4, &["k", "k/x"]);
    plan.calls = 6;
    let open = async |place: String| Blobs::open(cx, &place, 2).await;
    lin::run_harmed(cx, &plan, harm, open, |rng, tag| {
        lin::register_script(&plan, rng, tag)
    })
    .await
}

pub(super) async fn bm_6_1(cx: &Cx<dyn World>) -> Outcome {
    let plan = plan(ModelName::Register, 4, &["k", "k/x"]);
    on_one_and_on_several(cx, &plan, lin::register_script).await
}

pub(super) async fn bm_6_4(cx: &Cx<dyn World>) -> Outcome {
    let (model, clients) = if cx.caps.blob_multi.list_snapshot {
        (ModelName::Map, 3)
    } else {
        (ModelName::Register, 4)
    };
    let plan = plan(model, clients, &["a", "b", "b/c"]);
    on_one_and_on_several(cx, &plan, list_script).await
}

/// Lists among sets and deletes. More deletes than a register has: only they and the first set change a list.
fn list_script(plan: &Plan, rng: &mut proptest::test_runner::TestRng, tag: &str) -> Vec<Op> {
    (0..plan.calls)
        .map(|at| {
            let key = plan.keys[rng.random_range(0..plan.keys.len())].clone();
            match rng.random_range(0..100) {
                0..40 => Op::List,
                40..50 => Op::Get { key },
                50..75 => Op::Set {
                    key,
                    value: format!("{tag}.{at}"),
                    ttl: None,
                },
                _ => Op::Delete { key },
            }
        })
        .collect()
}

/// What writers and readers of one check share: whether a write is on its way, and whether all is over.
#[derive(Debug, Default)]
struct Traffic {
    started: AtomicU64,
    ended: AtomicU64,
    /// How many looks there were, and how many of them met a write.
    looks: AtomicU64,
    met: AtomicU64,
    over: AtomicBool,
}

impl Traffic {
    async fn write<T>(&self, call: impl Future<Output = T>) -> T {
        self.started.fetch_add(1, Ordering::SeqCst);
        let answer = call.await;
        self.ended.fetch_add(1, Ordering::SeqCst);
        answer
    }

    /// Notes whether a write was on its way at some time of a look.
    async fn look<T>(&self, call: impl Future<Output = T>) -> T {
        let ended_before = self.ended.load(Ordering::SeqCst);
        let answer = call.await;
        let met = self.started.load(Ordering::SeqCst) > ended_before;
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.met.fetch_add(u64::from(met), Ordering::SeqCst);
        answer
    }

    /// Whether there is nothing more to be had since `started`.
    fn is_enough(&self, started: Instant) -> bool {
        self.met.load(Ordering::SeqCst) >= MET_MIN || started.elapsed() > PATIENCE
    }

    /// Inconclusive unless enough of the looks met a write.
    fn judge(&self) -> Outcome {
        let [looks, met] = [&self.looks, &self.met].map(|count| count.load(Ordering::SeqCst));
        if met >= MET_MIN {
            return Ok(());
        }
        Err(Stop::Inconclusive(format!(
            "only {met} of {looks} reads overlapped a write"
        )))
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

async fn ended(tasks: Vec<JoinHandle<Outcome>>) -> Outcome {
    let ended = try_join_all(tasks).await.map_err(in_task)?;
    ended.into_iter().collect()
}

/// How many keys stay where they are: more than a page of the usual interfaces.
const STABLE: usize = 1_200;
/// How many lists each lister makes at least.
const LISTS: usize = 8;

pub(super) async fn bm_2_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let stable: Arc<Vec<String>> = Arc::new((0..STABLE).map(|n| format!("s{n:04}")).collect());
    let sets = stable.iter().map(|key| a.set(key, key.clone()));
    stream::iter(sets)
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    let traffic = Arc::new(Traffic::default());
    let mut churners = Vec::new();
    for (handle, name) in [(&a, "a"), (&b, "b")] {
        let (handle, traffic) = (handle.clone(), Arc::clone(&traffic));
        churners.push(tokio::spawn(churn(handle, name, traffic, cx.seed())));
    }
    let count = LISTS.max(cx.lin_epochs() / 8);
    let mut listers = Vec::new();
    for at in 0..4 {
        let handle = if at % 2 == 0 { a.clone() } else { b.clone() };
        let (stable, traffic) = (Arc::clone(&stable), Arc::clone(&traffic));
        listers.push(tokio::spawn(lists(handle, at >= 2, stable, traffic, count)));
    }
    let listed = ended(listers).await;
    traffic.over.store(true, Ordering::SeqCst);
    let churned = ended(churners).await;
    listed?;
    churned?;
    traffic.judge()
}

/// Sets and deletes keys before, between and behind the stable ones, so that whatever counts them slips.
async fn churn(handle: Handle, name: &'static str, traffic: Arc<Traffic>, seed: u64) -> Outcome {
    let mut dice = hash(name.as_bytes()) ^ seed;
    while !traffic.is_over() {
        dice = hash(&dice.to_le_bytes());
        let at = dice % u64::try_from(STABLE).unwrap_or(1);
        let run = (dice >> 32) % 4 + 1;
        let keys: Vec<_> = (0..run)
            .map(|n| match dice >> 61 {
                0..3 => format!("a{name}{n}"),
                3..6 => format!("s{at:04}{name}{n}"),
                _ => format!("z{name}{n}"),
            })
            .collect();
        for key in &keys {
            traffic.write(handle.set(key, "churn")).await?;
        }
        // Most go as soon as they have come, so that a list that has just seen one goes on where it was.
        if !(dice >> 40).is_multiple_of(4) {
            for key in &keys {
                traffic.write(handle.delete(key)).await?;
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn lists(
    handle: Handle,
    by_prefix: bool,
    stable: Arc<Vec<String>>,
    traffic: Arc<Traffic>,
    count: usize,
) -> Outcome {
    let started = Instant::now();
    for at in 0.. {
        if at >= count && traffic.is_enough(started) {
            break;
        }
        let look = async {
            if by_prefix {
                let found = handle.list_prefix("s").await?;
                Ok(found.into_iter().map(|found| found.key).collect())
            } else {
                handle.list().await
            }
        };
        let listed: Vec<String> = traffic.look(look).await?;
        untouched_once(&listed, &stable)?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn untouched_once(listed: &[String], stable: &[String]) -> Outcome {
    let what = "a list while other keys come and go";
    if let Some(pair) = listed.windows(2).find(|pair| pair[0] == pair[1]) {
        let seen = format!("{:?} twice", pair[0]);
        return Err(Stop::fail(what, seen, "each key once"));
    }
    if let Some(gone) = stable.iter().find(|key| listed.binary_search(key).is_err()) {
        let seen = format!("{} keys without {gone:?}", listed.len());
        return Err(Stop::fail(what, seen, "every key that nobody touched"));
    }
    Ok(())
}

pub(super) async fn bm_4_1(cx: &Cx<dyn World>) -> Outcome {
    let len = value_len_max(cx).min(1 << 20);
    // Almost the same length, so that neither a length nor an end gives the mixture away alone.
    let values = [
        Bytes::from(pattern("the one", len)),
        Bytes::from(pattern("the other", len - len / 97)),
    ];
    let (a, b) = cx.open_two("p").await?;
    let c = cx.open_as("c", "p").await?;
    a.set("k", values[0].clone()).await?;
    let traffic = Arc::new(Traffic::default());
    let mut readers = Vec::new();
    for (at, handle) in [&a, &b, &c].into_iter().enumerate() {
        let (values, traffic) = (values.clone(), Arc::clone(&traffic));
        readers.push(tokio::spawn(whole_reads(
            handle.store(),
            at,
            values,
            traffic,
        )));
    }
    let writer = tokio::spawn(replaces(a, values, Arc::clone(&traffic)));
    let written = writer.await.map_err(in_task);
    traffic.over.store(true, Ordering::SeqCst);
    ended(readers).await?;
    written??;
    traffic.judge()
}

/// Replaces one value by the other again and again, in both atomicities, for a while.
async fn replaces(handle: Handle, values: [Bytes; 2], traffic: Arc<Traffic>) -> Outcome {
    const SETS: usize = 40;
    let started = Instant::now();
    for at in 0.. {
        if at >= SETS && traffic.is_enough(started) {
            break;
        }
        let atomic = if at % 4 < 2 {
            Atomicity::RequireAtomic
        } else {
            Atomicity::AllowNonAtomic
        };
        let value = values[(at + 1) % 2].clone();
        traffic.write(handle.set_with("k", value, atomic)).await?;
        // Readers in this process get their turn, also beside a store that never waits.
        for _ in 0..at % 3 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

async fn whole_reads(
    store: Arc<dyn BlobMulti>,
    at: usize,
    values: [Bytes; 2],
    traffic: Arc<Traffic>,
) -> Outcome {
    let mut looks = at;
    while !traffic.is_over() {
        let read = patient(|| whole_read(store.as_ref(), looks, &values));
        let seen = traffic.look(read).await;
        match seen {
            Ok(None) => {}
            Ok(Some(seen)) => {
                return Err(Stop::fail(
                    "a read of a key that is replaced all the time",
                    seen,
                    format!("{} or {}, whole", show(&values[0]), show(&values[1])),
                ));
            }
            Err(e) => return Err(Stop::error("a read of a key that is replaced", &e)),
        }
        looks += 1;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Reads in one of five ways, and says what was wrong with the answer.
async fn whole_read(
    store: &dyn BlobMulti,
    how: usize,
    values: &[Bytes; 2],
) -> Result<Option<String>, ExternalError> {
    let deadline = Handle::ample();
    let seen = match how % 5 {
        0 | 1 => store.get(deadline, "k").await?.map(Bytes::from),
        2 => store.get_bytes(deadline, "k").await?,
        3 => {
            // A part in the middle that both values have.
            let range = 1_000..u64::try_from(values[1].len()).unwrap_or(u64::MAX) / 2;
            let seen = store.get_range(deadline, "k", range.clone()).await?;
            let whole = seen.as_ref().is_some_and(|seen| {
                values
                    .iter()
                    .any(|value| slice_of(value, range.clone()) == *seen)
            });
            let shown = || seen.as_deref().map_or("None".into(), show);
            return Ok((!whole).then(|| format!("in bytes {range:?}: {}", shown())));
        }
        _ => {
            let keys = store.list_keys(deadline).await?;
            let there = keys.iter().any(|key| key == "k");
            return Ok((!there).then(|| format!("a list without it: {keys:?}")));
        }
    };
    let whole = seen.as_ref().is_some_and(|seen| values.contains(seen));
    Ok((!whole).then(|| seen.as_deref().map_or("None".into(), show)))
}
