//! The bodies of the concurrent checks: BS-2, BS-6 and BS-9.
//!
//! The calls of this contract block, so each caller has a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use larder_traits::{AlignedBlobBuf, BlobGuid, Classify, ErrorKind, Outcome as Effect, PAGE_SIZE};
use proptest::prelude::*;
use proptest::test_runner::TestRng;

use super::guid;
use super::pace::{Pace, time_max};
use crate::blob_store::{Handle, World};
use crate::check::{Outcome, Stop, describe};
use crate::cx::Cx;
use crate::engine::lin::{self, Driver, Performed, Plan, Wrong};
use crate::engine::meeting::Harm;
use crate::lin::{Answer, ModelName, Op, Row};
use crate::profile::Profile;

/// What no disk tears.
const SECTOR_LEN_BYTES: usize = 512;
const WORD_LEN_BYTES: usize = 8;

/// Writes one number to both ends of every sector: quick to write and to judge, so that calls are as dense as can be.
pub(super) fn mark(buf: &mut [u8], number: u64) {
    let word = number.to_le_bytes();
    for sector in buf.chunks_exact_mut(SECTOR_LEN_BYTES) {
        sector[..WORD_LEN_BYTES].copy_from_slice(&word);
        sector[SECTOR_LEN_BYTES - WORD_LEN_BYTES..].copy_from_slice(&word);
    }
}

fn word(bytes: &[u8]) -> u64 {
    let word = bytes.first_chunk().expect("a sector is longer than a word");
    u64::from_le_bytes(*word)
}

/// The number of a marked frame, or what else it is.
pub(super) fn marked(buf: &[u8]) -> Result<u64, String> {
    let number = word(buf);
    for (at, sector) in buf.chunks_exact(SECTOR_LEN_BYTES).enumerate() {
        for end in [
            &sector[..WORD_LEN_BYTES],
            &sector[SECTOR_LEN_BYTES - WORD_LEN_BYTES..],
        ] {
            let other = word(end);
            if other != number {
                return Err(format!(
                    "a mixture: write {number:#x} up to sector {at} of {}, write {other:#x} there",
                    PAGE_SIZE / SECTOR_LEN_BYTES
                ));
            }
        }
    }
    Ok(number)
}

/// The bits of a mark that say whose frame it is; the others count the writes.
const NAME_SHIFT: u32 = 48;

fn number(name: u64, count: u64) -> u64 {
    (name << NAME_SHIFT) | count
}

fn owner(number: u64) -> u64 {
    number >> NAME_SHIFT
}

fn count(number: u64) -> u64 {
    number & ((1 << NAME_SHIFT) - 1)
}

/// What a read found; `None` for an absent blob.
fn look(reader: &Handle, name: BlobGuid, dst: &mut AlignedBlobBuf) -> Result<Option<u64>, Stop> {
    let what = || format!("read_blob({name}), on a thread beside others");
    match reader.store().read_blob(name, dst) {
        Ok(()) => marked(dst)
            .map(Some)
            .map_err(|mixture| Stop::fail(what(), mixture, "one frame, whole")),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Stop::error(what(), &e)),
    }
}

/// One caller among others: it gets the flag that says that the others have ended.
pub(super) type Job = Box<dyn FnOnce(&AtomicBool) -> Outcome + Send>;

/// Runs the writers and the readers on threads of their own. Readers go on until all writers are done.
pub(super) async fn threads(cx: &Cx<dyn World>, writers: Vec<Job>, readers: Vec<Job>) -> Outcome {
    let ended = Arc::<AtomicBool>::default();
    let start = |job: Job| {
        let ended = Arc::clone(&ended);
        tokio::task::spawn_blocking(move || {
            let outcome = job(&ended);
            if outcome.is_err() {
                ended.store(true, Ordering::SeqCst);
            }
            outcome
        })
    };
    let readers: Vec<_> = readers.into_iter().map(start).collect();
    let writers: Vec<_> = writers.into_iter().map(start).collect();
    let mut outcomes = join_all(writers).await;
    ended.store(true, Ordering::SeqCst);
    outcomes.extend(join_all(readers).await);
    cx.log().push("-- threads joined --".into());
    let mut all = Ok(());
    for outcome in outcomes {
        let outcome = outcome.map_err(|e| Stop::fail("a call", e.to_string(), "no panic (C-3)"))?;
        // A failure says more than what could not be judged beside it.
        if matches!(
            (&all, &outcome),
            (Ok(()), _) | (Err(Stop::Inconclusive(_)), Err(Stop::Fail(_)))
        ) {
            all = outcome;
        }
    }
    all
}

/// How many writes a writer makes.
pub(super) fn writes(cx: &Cx<dyn World>) -> u64 {
    match cx.profile {
        Profile::Quick => 250,
        Profile::Standard => 2_500,
        Profile::Soak => 50_000,
    }
}

/// How far the one writer of a blob has come.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) begun: AtomicU64,
    pub(super) done: AtomicU64,
}

/// Writes frame `count` in one of the ways there are.
fn write_some_way(
    writer: &Handle,
    name: BlobGuid,
    own: &mut AlignedBlobBuf,
    heap: &mut AlignedBlobBuf,
    number: u64,
    flushes: bool,
) -> Outcome {
    let buf = if number.is_multiple_of(2) { own } else { heap };
    mark(buf, number);
    let store = writer.store();
    let result = match number % 8 {
        3 => store.write_blobs(&[(name, buf)]),
        5 if flushes => store.write_blobs_with_data_sync(&[(name, buf)]),
        _ => store.write_blob(name, buf),
    };
    result.map_err(|e| Stop::error(format!("a write of {name}, beside readers"), &e))?;
    if flushes && number % 16 == 7 {
        let flushed = store.flush();
        flushed.map_err(|e| Stop::error("flush() beside readers", &e))?;
    }
    Ok(())
}

pub(super) async fn bs_2_1(cx: &Cx<dyn World>) -> Outcome {
    const READERS: usize = 3;
    let (a, b) = cx.open_two("p").await?;
    let name = guid(1);
    for flushes in [false, true] {
        let progress = Arc::<Progress>::default();
        let pace = Pace::of(cx, writes(cx));
        let (mut own, mut heap) = (a.store().alloc_blob_buf_uninit(), AlignedBlobBuf::zeroed());
        write_some_way(&a, name, &mut own, &mut heap, 0, flushes)?;
        let (writer, at, paced) = (a.clone(), Arc::clone(&progress), Arc::clone(&pace));
        let write: Job = Box::new(move |ended| {
            let mut number = 0;
            while paced.goes_on(number, ended) {
                number += 1;
                at.begun.store(number, Ordering::SeqCst);
                write_some_way(&writer, name, &mut own, &mut heap, number, flushes)?;
                at.done.store(number, Ordering::SeqCst);
            }
            Ok(())
        });
        let readers = (0..READERS).map(|at| {
            let reader = if at == 0 { a.clone() } else { b.clone() };
            let (progress, pace) = (Arc::clone(&progress), Arc::clone(&pace));
            let read: Job = Box::new(move |ended| {
                let mut dst = reader.store().alloc_blob_buf_uninit();
                dst.fill(0xAA);
                let mut seen_last = 0;
                while !ended.load(Ordering::SeqCst) {
                    seen_last =
                        read_in_turn(&reader, name, &mut dst, (&progress, &pace), seen_last)?;
                }
                Ok(())
            });
            read
        });
        let readers = readers.collect();
        threads(cx, vec![write], readers).await?;
        pace.enough("reads")?;
    }
    Ok(())
}

/// One read of a blob with one writer: no older than what was done before the read, and no older than the last read.
fn read_in_turn(
    reader: &Handle,
    name: BlobGuid,
    dst: &mut AlignedBlobBuf,
    (progress, pace): (&Progress, &Pace),
    seen_last: u64,
) -> Result<u64, Stop> {
    let done = progress.done.load(Ordering::SeqCst);
    let least = done.max(seen_last);
    let seen = look(reader, name, dst)?;
    let most = progress.begun.load(Ordering::SeqCst);
    let what = format!("read_blob({name}) beside its one writer");
    let Some(seen) = seen else {
        return Err(Stop::fail(what, "NotFound", "the old frame or the new one"));
    };
    if most > done {
        pace.met();
    }
    if seen < least || seen > most {
        let expected = format!("one of write {least} to {most}");
        return Err(Stop::fail(what, format!("write {seen}"), expected));
    }
    Ok(seen)
}

/// The store as the clients of a history use it.
struct Clients {
    handles: Vec<Handle>,
    /// A buffer for each client, so that time goes into the calls.
    bufs: Vec<Mutex<AlignedBlobBuf>>,
    names: Vec<String>,
    wrong: Wrong,
}

impl Clients {
    async fn open(
        cx: &Cx<dyn World>,
        place: &str,
        plan: &Plan,
        apart: bool,
    ) -> Result<Arc<Self>, Stop> {
        let (a, b) = cx.open_two(place).await?;
        let bufs = (0..=plan.clients).map(|_| Mutex::new(AlignedBlobBuf::zeroed()));
        Ok(Arc::new(Self {
            handles: if apart { vec![a, b] } else { vec![a] },
            bufs: bufs.collect(),
            names: plan.keys.clone(),
            wrong: Wrong::default(),
        }))
    }

    fn place(&self, key: &str) -> u64 {
        let at = self.names.iter().position(|name| name == key);
        u64::try_from(at.expect("scripts use the keys of the plan")).expect("a few keys")
    }

    fn write_failed(&self, what: &str, e: &dyn Classify) -> Performed {
        if matches!(
            e.kind(),
            ErrorKind::InvalidInput | ErrorKind::NotFound | ErrorKind::Corrupt
        ) {
            self.wrong.note(Stop::error(what, e));
        }
        match e.outcome() {
            Effect::Unknown => Performed::Unknown,
            Effect::NotApplied => Performed::NotApplied,
        }
    }

    fn read_failed(&self, what: &str, e: &dyn Classify) -> Performed {
        if e.outcome() == Effect::Unknown || e.kind() == ErrorKind::Corrupt {
            let expected = "an answer, or an error that is NotApplied and not Corrupt";
            self.wrong.note(Stop::fail(what, describe(e), expected));
        }
        Performed::NotApplied
    }

    fn call(&self, client: u32, op: &Op) -> Performed {
        let at = usize::try_from(client).unwrap_or_default();
        let store = self.handles[at % self.handles.len()].store();
        let mut buf = self.bufs[at % self.bufs.len()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match op {
            Op::Set { key, value, .. } => {
                let written = value.parse().expect("scripts write numbers");
                mark(&mut buf, written);
                let name = guid(self.place(key).into());
                let result = if written % 5 == 3 {
                    store.write_blobs(&[(name, &buf)])
                } else {
                    store.write_blob(name, &buf)
                };
                match result {
                    Ok(()) => Performed::Answered(Answer::Done),
                    Err(e) => self.write_failed("a write beside others", &e),
                }
            }
            Op::Delete { key } => match store.delete_blob(guid(self.place(key).into())) {
                Ok(()) => Performed::Answered(Answer::Done),
                Err(e) => self.write_failed("delete_blob beside others", &e),
            },
            Op::Get { key } => {
                let what = format!("read_blob of {key} beside others");
                match store.read_blob(guid(self.place(key).into()), &mut buf) {
                    Ok(()) => {
                        let row = self.row(&what, key, &buf);
                        Performed::Answered(Answer::Row(row))
                    }
                    Err(e) if e.kind() == ErrorKind::NotFound => {
                        Performed::Answered(Answer::Row(None))
                    }
                    Err(e) => self.read_failed(&what, &e),
                }
            }
            Op::List => match store.list_blobs() {
                Ok(guids) => self.listed(guids),
                Err(e) => self.read_failed("list_blobs beside others", &e),
            },
            other => {
                self.wrong.note(Stop::Inconclusive(format!(
                    "{other} is no call of this contract"
                )));
                Performed::NotApplied
            }
        }
    }

    fn row(&self, what: &str, key: &str, buf: &[u8]) -> Option<Row> {
        let seen = marked(buf).and_then(|seen| {
            if owner(seen) == self.place(key) {
                Ok(seen)
            } else {
                Err(format!("a frame of blob {}", owner(seen)))
            }
        });
        match seen {
            Ok(seen) => Some(Row::inline(seen.to_string())),
            Err(other) => {
                self.wrong
                    .note(Stop::fail(what, other, "a whole frame of this blob"));
                None
            }
        }
    }

    fn listed(&self, guids: Vec<BlobGuid>) -> Performed {
        let count = guids.len();
        let named: BTreeSet<BlobGuid> = guids.into_iter().collect();
        if named.len() < count {
            let expected = "each blob once";
            self.wrong.note(Stop::fail(
                "list_blobs beside others",
                "a blob twice",
                expected,
            ));
        }
        let keys = named.iter().map(|name| {
            let at = u128::from_be_bytes(name.to_bytes());
            let known = usize::try_from(at)
                .ok()
                .and_then(|at| self.names.get(at).cloned());
            known.unwrap_or_else(|| format!("never written: {name}"))
        });
        Performed::Answered(Answer::Keys(keys.collect()))
    }
}

#[async_trait]
impl Driver for Clients {
    async fn perform(&self, client: u32, op: &Op) -> Performed {
        // The call blocks, and the other clients are to go on meanwhile.
        tokio::task::block_in_place(|| self.call(client, op))
    }

    fn wrong(&self) -> &Wrong {
        &self.wrong
    }
}

/// Writes with numbers that nobody else has, reads, lists and deletes, by the share of each in a hundred.
#[derive(Clone, Copy)]
struct Shares {
    reads: u32,
    lists: u32,
    writes: u32,
}

fn script(plan: &Plan, rng: &mut TestRng, next: &mut u64, shares: Shares) -> Vec<Op> {
    let Shares {
        reads,
        lists,
        writes,
    } = shares;
    (0..plan.calls)
        .map(|_| {
            let place = rng.random_range(0..plan.keys.len());
            let key = plan.keys[place].clone();
            let dice: u32 = rng.random_range(0..100);
            if dice < reads {
                Op::Get { key }
            } else if dice < reads + lists {
                Op::List
            } else if dice < reads + lists + writes {
                *next += 1;
                let place = u64::try_from(place).expect("a few keys");
                Op::Set {
                    key,
                    value: number(place, *next).to_string(),
                    ttl: None,
                }
            } else {
                Op::Delete { key }
            }
        })
        .collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("blob {at}")).collect()
}

/// Flushes for as long as it is there.
struct Flusher(Arc<AtomicBool>);

impl Flusher {
    fn start(handle: &Handle) -> Self {
        let ended = Arc::<AtomicBool>::default();
        let (handle, flag) = (handle.clone(), Arc::clone(&ended));
        tokio::task::spawn_blocking(move || {
            while !flag.load(Ordering::SeqCst) {
                // What a flush that fails means is another check's business.
                drop(handle.store().flush());
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        Self(ended)
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn history(
    cx: &Cx<dyn World>,
    place: &str,
    plan: &Plan,
    shares: Shares,
    apart: bool,
    flushed: bool,
) -> Outcome {
    let clients = Clients::open(cx, place, plan, apart).await?;
    let flusher = flushed.then(|| Flusher::start(&clients.handles[0]));
    let mut next = 0;
    let outcome = lin::run(cx, plan, clients, |rng, _tag| {
        script(plan, rng, &mut next, shares)
    })
    .await;
    drop(flusher);
    outcome
}

pub(super) async fn c_1_4(cx: &Cx<dyn World>) -> Outcome {
    let plan = Plan {
        model: ModelName::Register,
        clients: 3,
        calls: 6,
        keys: names(2),
    };
    let shares = Shares {
        reads: 35,
        lists: 0,
        writes: 53,
    };
    let open = async |place: String| Clients::open(cx, &place, &plan, true).await;
    let mut next = 0;
    lin::run_harmed(cx, &plan, Harm::Failure, open, |rng, _tag| {
        script(&plan, rng, &mut next, shares)
    })
    .await
}

pub(super) async fn bs_2_2(cx: &Cx<dyn World>) -> Outcome {
    let plan = Plan {
        model: ModelName::Register,
        clients: 3,
        calls: 8,
        keys: names(2),
    };
    let shares = Shares {
        reads: 50,
        lists: 0,
        writes: 38,
    };
    history(cx, "unflushed", &plan, shares, true, false).await?;
    history(cx, "flushed", &plan, shares, false, true).await
}

pub(super) async fn bs_2_3(cx: &Cx<dyn World>) -> Outcome {
    /// The blob that stays, the one that comes and goes, and the others that take and leave space.
    const STAYS: u64 = 1;
    const GOES: u64 = 2;
    const OTHERS: [u64; 3] = [3, 4, 5];
    let (a, b) = cx.open_two("p").await?;
    let changes = Arc::<AtomicU64>::default();
    let mut buf = AlignedBlobBuf::zeroed();
    mark(&mut buf, number(STAYS, 0));
    a.write_buf(guid(STAYS.into()), &buf)?;
    let pace = Pace::of(cx, writes(cx) / 3);
    let churn = |writer: Handle, others: &'static [u64], flushes: bool| {
        let (changes, pace) = (Arc::clone(&changes), Arc::clone(&pace));
        let job: Job = Box::new(move |ended| {
            let mut buf = writer.store().alloc_blob_buf_uninit();
            let mut round = 0;
            while pace.goes_on(round, ended) {
                round += 1;
                let steps = others.iter().map(|name| (*name, true));
                let steps = steps.chain(others.iter().rev().map(|name| (*name, false)));
                for (name, writes) in steps {
                    let blob = guid(name.into());
                    let result = if writes {
                        mark(&mut buf, number(name, round));
                        writer.store().write_blob(blob, &buf)
                    } else {
                        writer.store().delete_blob(blob)
                    };
                    result.map_err(|e| Stop::error(format!("a change of {blob}"), &e))?;
                    changes.fetch_add(1, Ordering::SeqCst);
                }
                if flushes && round % 4 == 0 {
                    let flushed = writer.store().flush();
                    flushed.map_err(|e| Stop::error("flush() beside readers", &e))?;
                }
            }
            Ok(())
        });
        job
    };
    let writers = vec![
        churn(a.clone(), &[GOES, OTHERS[0]], true),
        churn(b.clone(), &[OTHERS[1], OTHERS[2]], false),
    ];
    let readers = [(a.clone(), STAYS), (b.clone(), GOES), (a.clone(), GOES)];
    let readers = readers.into_iter().map(|(reader, name)| {
        let (changes, pace) = (Arc::clone(&changes), Arc::clone(&pace));
        let job: Job = Box::new(move |ended| {
            let mut dst = AlignedBlobBuf::zeroed();
            while !ended.load(Ordering::SeqCst) {
                let before = changes.load(Ordering::SeqCst);
                let seen = look(&reader, guid(name.into()), &mut dst)?;
                if changes.load(Ordering::SeqCst) > before {
                    pace.met();
                }
                let is_of_this_blob = seen.is_none_or(|seen| owner(seen) == name);
                if !is_of_this_blob || (seen.is_none() && name == STAYS) {
                    let observed = seen.map_or("NotFound".into(), |seen| {
                        format!("write {} of blob {}", count(seen), owner(seen))
                    });
                    let what = format!("read_blob of blob {name} while others come and go");
                    return Err(Stop::fail(what, observed, "a frame of this blob"));
                }
            }
            Ok(())
        });
        job
    });
    let readers = readers.collect();
    threads(cx, writers, readers).await?;
    pace.enough("reads")
}

pub(super) async fn bs_6_2(cx: &Cx<dyn World>) -> Outcome {
    lists_during_churn(cx).await?;
    // The same for each name: a list is as if made at one moment between its call and its answer.
    let plan = Plan {
        model: ModelName::Register,
        clients: 3,
        calls: 8,
        keys: names(3),
    };
    let shares = Shares {
        reads: 10,
        lists: 35,
        writes: 30,
    };
    history(cx, "names", &plan, shares, true, false).await
}

async fn lists_during_churn(cx: &Cx<dyn World>) -> Outcome {
    /// Of so many names each third stays, and the others come and go around it.
    const NAMES: u64 = 24;
    let (a, b) = cx.open_two("p").await?;
    // Apart in every byte, so that whatever orders them has all sorts of neighbours.
    let name = |at: u64| guid(u128::from(at) << (5 * (at % 24)));
    let all: BTreeMap<BlobGuid, u64> = (1..=NAMES).map(|at| (name(at), at)).collect();
    cx.eq("names of this check", &all.len(), &(1..=NAMES).count())?;
    let stable: BTreeSet<BlobGuid> = (1..=NAMES).filter(|at| at % 3 == 0).map(name).collect();
    let mut buf = AlignedBlobBuf::zeroed();
    for blob in &stable {
        mark(&mut buf, all[blob]);
        a.write_buf(*blob, &buf)?;
    }
    let changes = Arc::<AtomicU64>::default();
    let (pace, seed) = (Pace::of(cx, writes(cx)), cx.seed());
    let writers = [(a.clone(), 1), (b.clone(), 2)].map(|(writer, part)| {
        let (changes, pace) = (Arc::clone(&changes), Arc::clone(&pace));
        let job: Job = Box::new(move |ended| {
            let buf = AlignedBlobBuf::zeroed();
            let mut round: u64 = 0;
            while pace.goes_on(round, ended) {
                round += 1;
                // Each writer has names of its own, and its own order through them.
                let at = ((round / 2).wrapping_mul(7) ^ seed) % (NAMES / 3) * 3 + part;
                let result = if round.is_multiple_of(2) {
                    writer.store().write_blob(name(at), &buf)
                } else {
                    writer.store().delete_blob(name(at))
                };
                result.map_err(|e| Stop::error("a change beside lists", &e))?;
                changes.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        job
    });
    let readers = [a.clone(), b.clone()].map(|reader| {
        let (stable, all) = (stable.clone(), all.clone());
        let (changes, pace) = (Arc::clone(&changes), Arc::clone(&pace));
        let job: Job = Box::new(move |ended| {
            while !ended.load(Ordering::SeqCst) {
                let before = changes.load(Ordering::SeqCst);
                list_once(&reader, &stable, &all)?;
                if changes.load(Ordering::SeqCst) > before {
                    pace.met();
                }
            }
            Ok(())
        });
        job
    });
    threads(cx, Vec::from(writers), Vec::from(readers)).await?;
    pace.enough("lists")
}

fn list_once(
    reader: &Handle,
    stable: &BTreeSet<BlobGuid>,
    all: &BTreeMap<BlobGuid, u64>,
) -> Outcome {
    const WHAT: &str = "list_blobs() while other blobs come and go";
    let list = reader.store().list_blobs();
    let list = list.map_err(|e| Stop::error(WHAT, &e))?;
    let mut named = BTreeSet::new();
    for blob in list {
        if !named.insert(blob) {
            return Err(Stop::fail(WHAT, format!("{blob} twice"), "each blob once"));
        }
        if !all.contains_key(&blob) {
            let observed = format!("{blob}, which was never written");
            return Err(Stop::fail(WHAT, observed, "blobs that are there"));
        }
    }
    if let Some(blob) = stable.difference(&named).next() {
        let observed = format!("a list without {blob}");
        return Err(Stop::fail(WHAT, observed, "every blob that stays"));
    }
    for blob in stable {
        let has = reader.store().has_blob(*blob);
        if !has.map_err(|e| Stop::error("has_blob() beside changes", &e))? {
            let what = format!("has_blob({blob}) while other blobs come and go");
            return Err(Stop::fail(what, "false", "true"));
        }
    }
    Ok(())
}

pub(super) async fn bs_9_3(cx: &Cx<dyn World>) -> Outcome {
    const WRITERS: u64 = 3;
    let (a, b) = cx.open_two("p").await?;
    let rounds = writes(cx) / 10;
    let started = Instant::now();
    for round in 0..rounds {
        // First flushes against writers: whatever they make of the hint, nothing is said of it yet.
        let writers = (0..WRITERS).map(|at| once(&a, number(at, round), None));
        let flushers = [&a, &b].map(|handle| {
            let handle = handle.clone();
            let job: Job = Box::new(move |_ended| {
                let flushed = handle.store().flush();
                flushed.map_err(|e| Stop::error("flush() beside writers", &e))
            });
            job
        });
        threads(cx, writers.chain(flushers).collect(), Vec::new()).await?;
        // Then writers and no flush: each must find the hint true once its own write has returned.
        let judged = Some(format!("after a write, round {round}, with no flush since"));
        // Frames that were not there: one that was is no change.
        let writers = (0..WRITERS).map(|at| once(&b, number(at, rounds + round), judged.clone()));
        threads(cx, writers.collect(), Vec::new()).await?;
        cx.require(
            a.needs_flush(),
            "needs_flush() after all writers, with no flush since",
            "false",
            "true",
        )?;
        if started.elapsed() > time_max(cx) {
            break;
        }
    }
    Ok(())
}

/// One write, and what it is followed by where that is to be judged.
fn once(handle: &Handle, number: u64, judged: Option<String>) -> Job {
    let handle = handle.clone();
    Box::new(move |_ended| {
        let mut buf = handle.store().alloc_blob_buf_uninit();
        mark(&mut buf, number);
        let written = handle.store().write_blob(guid(owner(number).into()), &buf);
        written.map_err(|e| Stop::error("a write beside others", &e))?;
        match judged {
            Some(what) if !handle.store().needs_flush() => {
                let what = format!("needs_flush() {what}");
                Err(Stop::fail(what, "false", "true"))
            }
            _ => Ok(()),
        }
    })
}
