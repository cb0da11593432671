//! Clients that set, get and delete while their server is killed and started again, and the verdict on what they were told.

#![allow(
    dead_code,
    reason = "each test that includes this uses another part of it"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use larder_conformance::lin::{
    self, Answer, Call, History, InputError, Limits, ModelName, Op, Report, Row,
};
use larder_s3::S3Blob;
use larder_traits::{Atomicity, BlobMulti, Classify, Outcome};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

const KEYS: usize = 3;

/// What the clients do.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// The most calls of one client.
    pub(crate) calls_max: u64,
    /// How long one call may take.
    pub(crate) patience: Duration,
    /// How long a value is that goes in parts.
    pub(crate) long_len_bytes: usize,
    /// One value of so many is long.
    pub(crate) long_every: u64,
    /// Whether a key is left alone by those who set while somebody deletes it.
    pub(crate) deletes_alone: bool,
}

/// Clients at work.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<Vec<Call>>,
}

struct Shared {
    load: Load,
    stamps: AtomicU64,
    enough: AtomicBool,
    gates: [RwLock<()>; KEYS],
    not_applied: AtomicUsize,
}

/// What became of it.
pub(crate) struct Judged {
    pub(crate) report: Report,
    /// Calls that failed and did nothing; the report has no use for those.
    pub(crate) not_applied: usize,
}

impl Clients {
    /// One for each handle.
    pub(crate) fn start(load: Load, handles: Vec<S3Blob>) -> Self {
        let shared = Arc::new(Shared {
            load,
            stamps: AtomicU64::new(0),
            enough: AtomicBool::new(false),
            gates: Default::default(),
            not_applied: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        for (number, blobs) in (0..).zip(handles) {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { shared.client(number, &blobs).await });
        }
        Self { shared, tasks }
    }

    /// Lets them end, reads every key by `last`, and judges it all.
    pub(crate) async fn judge(self, last: &S3Blob) -> Result<Judged, InputError> {
        self.shared.enough.store(true, Ordering::Relaxed);
        let mut calls: Vec<Call> = self.tasks.join_all().await.into_iter().flatten().collect();
        for key in 0..KEYS {
            calls.extend(self.shared.get(u32::MAX, last, key).await);
        }
        let report = lin::check(&History::new(calls), ModelName::Register, Limits::default())?;
        Ok(Judged {
            report,
            not_applied: self.shared.not_applied.load(Ordering::Relaxed),
        })
    }
}

impl Shared {
    async fn client(&self, number: u32, blobs: &S3Blob) -> Vec<Call> {
        let mut calls = Vec::new();
        for nth in 0..self.load.calls_max {
            if self.enough.load(Ordering::Relaxed) {
                break;
            }
            let mixed = nth
                .wrapping_mul(2_654_435_761)
                .wrapping_add(u64::from(number) * 40_503)
                >> 3;
            let key = usize::try_from(mixed).unwrap_or(0) % KEYS;
            calls.extend(match mixed % 7 {
                0..=2 => self.set(number, blobs, key, nth).await,
                3 => self.delete(number, blobs, key).await,
                _ => self.get(number, blobs, key).await,
            });
        }
        calls
    }

    async fn set(&self, number: u32, blobs: &S3Blob, key: usize, nth: u64) -> Option<Call> {
        let _beside_other_sets = self.gates[key].read().await;
        let key = name(key);
        let value = format!("{number}/{nth}");
        let long = match nth % self.load.long_every {
            0 => "x".repeat(self.load.long_len_bytes),
            _ => String::new(),
        };
        let body = format!("{value}/{long}").into();
        let set = blobs.set(self.soon(), &key, body, Atomicity::RequireAtomic);
        let (began, result, ended) = self.stamped(set).await;
        let ttl = None;
        let op = Op::Set { key, value, ttl };
        self.told(number, (began, result.map(|()| Answer::Done), ended), op)
    }

    async fn delete(&self, number: u32, blobs: &S3Blob, key: usize) -> Option<Call> {
        let _alone = match self.load.deletes_alone {
            true => Some(self.gates[key].write().await),
            false => None,
        };
        let key = name(key);
        let (began, result, ended) = self.stamped(blobs.delete(self.soon(), &key)).await;
        let op = Op::Delete { key };
        self.told(number, (began, result.map(|()| Answer::Done), ended), op)
    }

    async fn get(&self, number: u32, blobs: &S3Blob, key: usize) -> Option<Call> {
        let key = name(key);
        let (began, result, ended) = self.stamped(blobs.get(self.soon(), &key)).await;
        let shown = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("only text was written");
            let (value, _) = text.rsplit_once('/').expect("each value has a slash");
            Row::inline(value)
        };
        let result = result.map(|found| Answer::Row(found.map(shown)));
        self.told(number, (began, result, ended), Op::Get { key })
    }

    fn soon(&self) -> Instant {
        Instant::now() + self.load.patience
    }

    /// When it was asked, what was answered, and when.
    async fn stamped<T>(&self, call: impl Future<Output = T>) -> (u64, T, u64) {
        let stamp = || self.stamps.fetch_add(1, Ordering::SeqCst);
        let began = stamp();
        let answer = call.await;
        (began, answer, stamp())
    }

    /// The call as the history has it; none where it did nothing, since then there is nothing to explain.
    fn told<E: Classify>(
        &self,
        client: u32,
        (began, result, ended): (u64, Result<Answer, E>, u64),
        op: Op,
    ) -> Option<Call> {
        match result {
            Ok(answer) => Some(Call::answered(client, began, ended, op, answer)),
            Err(e) if e.outcome() == Outcome::Unknown => {
                Some(Call::unknown(client, began, Some(ended), op))
            }
            Err(_) => {
                self.not_applied.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

fn name(key: usize) -> String {
    format!("k{key}")
}
