//! What is left of a tiered store on a file of rows and a folder of payloads after the processes that wrote to it were
//! killed (TS-3, TS-7). It stands here since this package is the one that knows all of them.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::file::{FileBackend, ObjectsConfig};
use larder::sqlite::{SqliteConfig, SqlitePlace};
use larder::tiered::{AuditOptions, TieredConfig, TieredStorage};
use larder::{
    Backend, ChangeLog, Classify, ErrorKind, Metadata, ObjectContext, ObjectId, WriterId,
};

const PATH: &str = "LARDER_TIERED_TEST_PATH";
const NAME: &str = "LARDER_TIERED_TEST_NAME";
const FIRST: &str = "LARDER_TIERED_TEST_FIRST";

/// Payloads up to this are small.
const THRESHOLD_BYTES: usize = 1_000;

const LEASE: Duration = Duration::from_secs(1);

/// How many victims run at once, how many lanes each has, and how many objects each lane goes round.
const VICTIMS: [&str; 2] = ["x", "y"];
const LANES: u64 = 3;
const KEYS: u64 = 5;

struct Opened {
    rows: SqlitePlace,
    payloads: FileBackend,
    storage: TieredStorage,
}

async fn open(path: &Path) -> Opened {
    let rows = SqlitePlace::open(SqliteConfig::new(path.join("rows")));
    let rows = rows.await.unwrap();
    let payloads = FileBackend::open(ObjectsConfig::new(path.join("payloads")));
    let payloads = payloads.await.unwrap();
    let config = TieredConfig::new(rows.caps(), payloads.caps())
        .with_threshold_bytes(THRESHOLD_BYTES)
        .with_lease(LEASE)
        .with_grace(Duration::ZERO);
    let (high, log) = (rows.high_volume(), rows.change_log());
    let storage = TieredStorage::new(high, payloads.clone(), log, config).unwrap();
    Opened {
        rows,
        payloads,
        storage,
    }
}

fn id(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

fn key_of(name: &str, lane: u64, n: u64) -> String {
    format!("{name} {lane} {}", n % KEYS)
}

/// What the `n`th call of a lane leaves of its object. A lane comes to each object with each kind of call in turn.
fn effect(n: u64) -> Option<u64> {
    (n % 7 != 6).then_some(n)
}

/// The payload of the `n`th call: its number in every word; small or large.
fn payload(n: u64) -> Vec<u8> {
    let words = match n % 7 {
        3 | 4 => 1 + n % 100,
        _ => 126 + n % 6 * 2_003,
    };
    n.to_le_bytes().repeat(words.try_into().unwrap())
}

/// Which call this is the payload of.
fn number(payload: &[u8]) -> u64 {
    let n = u64::from_le_bytes(*payload.first_chunk().unwrap());
    assert!(
        payload == self::payload(n),
        "a payload is of one put, whole"
    );
    n
}

async fn call(storage: &TieredStorage, key: &str, n: u64) {
    let id = id(key);
    loop {
        let called = match effect(n) {
            None => storage.delete_object(&id).await,
            Some(n) => {
                let whole = payload(n);
                let pieces = whole.chunks(10_000).map(Bytes::copy_from_slice).map(Ok);
                let pieces: Vec<_> = pieces.collect();
                let stream = stream::iter(pieces).boxed();
                storage.put_object(&id, &Metadata::new(), stream).await
            }
        };
        match called {
            Ok(()) => return,
            // The machine was so busy that the lease ended; the same call again leaves the same.
            Err(e) if e.kind() == ErrorKind::Conflict => {}
            Err(e) => panic!("{key} {n}: {e:?}"),
        }
    }
}

async fn get(storage: &TieredStorage, key: &str) -> Option<u64> {
    let (_, payload) = storage.get_object(&id(key)).await.unwrap()?;
    let payload: Vec<_> = payload.try_collect().await.unwrap();
    Some(number(&payload.concat()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other tests run it as a process of its own"]
async fn victim() {
    let (Ok(path), Ok(name)) = (std::env::var(PATH), std::env::var(NAME)) else {
        return;
    };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let storage = open(Path::new(&path)).await.storage;
    let lanes = (0..LANES).map(|lane| {
        let (storage, name) = (storage.clone(), name.clone());
        tokio::spawn(async move {
            for n in first.. {
                call(&storage, &key_of(&name, lane, n), n).await;
                writeln!(std::io::stdout(), "ack {lane} {n}").unwrap();
                // All lanes of all victims meet here.
                call(&storage, &key_of("shared", 0, n), n).await;
            }
        })
    });
    let lanes: Vec<_> = lanes.collect();
    // What the victims before this one left, while this one is at work.
    while lanes.iter().all(|lane| !lane.is_finished()) {
        storage.recover().await.unwrap();
        tokio::time::sleep(LEASE / 4).await;
    }
}

/// A process that works on the store, and what it tells.
struct Victim {
    child: Child,
    told: BufReader<ChildStdout>,
    /// The last call of each lane that was acknowledged.
    last: BTreeMap<u64, u64>,
}

impl Victim {
    fn start(path: &Path, name: &str, first: u64) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact", "--ignored", "--nocapture"])
            .env(PATH, path)
            .env(NAME, name)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let mut child = child.unwrap();
        Self {
            told: BufReader::new(child.stdout.take().unwrap()),
            child,
            last: BTreeMap::new(),
        }
    }

    /// Whether there was another line.
    fn read(&mut self) -> bool {
        let mut line = String::new();
        let len = self.told.read_line(&mut line).unwrap();
        // The last one may have been cut.
        let numbers = line.strip_prefix("ack ").zip(line.strip_suffix('\n'));
        if let Some((lane, n)) = numbers.and_then(|(it, _)| it.trim_end().split_once(' ')) {
            let (lane, n) = (lane.parse().unwrap(), n.parse().unwrap());
            self.last.insert(lane, n);
        }
        len > 0
    }

    fn wait_for_work(&mut self) {
        while self.last.is_empty() {
            assert!(self.read(), "a victim ended before it had done anything");
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while self.read() {}
    }
}

/// What each object may hold.
#[derive(Default)]
struct Told(BTreeMap<String, BTreeSet<Option<u64>>>);

impl Told {
    fn may_hold(&mut self, key: String, held: Option<u64>) {
        // Before its first call it holds nothing.
        let may_hold = self.0.entry(key).or_insert_with(|| [None].into());
        may_hold.insert(held);
    }

    /// The calls of a lane up to the last that was acknowledged, and the one under way.
    fn lane(&mut self, name: &str, lane: u64, first: u64, last: Option<u64>) {
        let next = last.map_or(first, |last| last + 1);
        for n in first..next {
            self.0.insert(key_of(name, lane, n), [effect(n)].into());
        }
        self.may_hold(key_of(name, lane, next), effect(next));
    }
}

/// Nothing that was acknowledged is lost, every redirect has its payload, every payload its redirect, and the log is
/// empty.
async fn judge(path: &Path, told: &mut Told) -> (usize, u64) {
    tokio::time::sleep(LEASE + LEASE / 4).await;
    let Opened {
        rows,
        payloads,
        storage,
    } = open(path).await;
    let report = storage.recover().await.unwrap();
    assert_eq!(report.kept, 0, "{report:?}");
    storage.join().await;
    for (key, may_hold) in &mut told.0 {
        let held = get(&storage, key).await;
        assert!(
            may_hold.contains(&held),
            "{key} holds {held:?} and not one of {may_hold:?}"
        );
        *may_hold = [held].into();
    }
    for n in 0..KEYS {
        // Of whichever lane, but whole.
        get(&storage, &key_of("shared", 0, n)).await;
    }
    let options = AuditOptions::default().with_min_age(Duration::ZERO);
    let audit = storage.audit(&payloads, options).await.unwrap();
    assert_eq!(audit.listed, audit.referenced, "{audit:?}");
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33);
    let left = rows.change_log();
    let left = left.claim(WriterId::from_bytes([0xff; 16]), far, 100).await;
    assert_eq!(left.unwrap(), []);
    rows.close().await;
    (report.finished, audit.referenced)
}

#[tokio::test]
async fn what_was_told_is_there_and_nothing_else_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let mut acks = 0;
    for round in 0..6_u64 {
        let first = round * 1_000_000;
        let mut victims = VICTIMS.map(|name| Victim::start(folder.path(), name, first));
        for victim in &mut victims {
            victim.wait_for_work();
        }
        tokio::time::sleep(Duration::from_millis(500 + 130 * round)).await;
        for victim in &mut victims {
            victim.kill();
        }
        for (name, victim) in VICTIMS.iter().zip(&victims) {
            for lane in 0..LANES {
                let last = victim.last.get(&lane).copied();
                acks += last.map_or(0, |last| last + 1 - first);
                told.lane(name, lane, first, last);
            }
        }
        // Every second time what is left is recovered by the next victims, while they are at work and until they are
        // killed.
        if round % 2 == 1 {
            let (finished, payloads) = judge(folder.path(), &mut told).await;
            println!(
                "after {} kills: {acks} calls acknowledged, {finished} changes recovered, {payloads} payloads",
                (round + 1) * 2
            );
        }
    }
}
