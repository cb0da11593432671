//! What is left of objects after the processes that wrote them were killed.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_file::{FileBackend, ObjectsConfig};
use larder_traits::{Backend, Metadata, ObjectContext, ObjectId};

const PATH: &str = "LARDER_FILE_TEST_PATH";
const NAME: &str = "LARDER_FILE_TEST_NAME";

/// How many objects a victim goes round.
const KEYS: u64 = 5;

async fn open(path: &Path) -> FileBackend {
    FileBackend::open(ObjectsConfig::new(path)).await.unwrap()
}

fn id(key: &str) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

fn key_of(name: &str, n: u64) -> String {
    format!("{name} {}", n % KEYS)
}

/// The payload of a victim's `n`th put: its number in every word, of lengths on both sides of what is written at once.
fn payload(n: u64) -> Vec<u8> {
    let words = usize::try_from(n % 7).unwrap() * 9_001 + 1;
    n.to_le_bytes().repeat(words)
}

/// Which put this is the payload of.
fn number(payload: &[u8]) -> u64 {
    let n = u64::from_le_bytes(*payload.first_chunk().unwrap());
    assert!(
        payload == self::payload(n),
        "a payload is of one put, whole"
    );
    n
}

async fn put(handle: &FileBackend, key: &str, n: u64) {
    let pieces: Vec<_> = payload(n)
        .chunks(40_000)
        .map(Bytes::copy_from_slice)
        .collect();
    let stream = stream::iter(pieces.into_iter().map(Ok)).boxed();
    let mut metadata = Metadata::new();
    metadata.custom.insert("n".to_owned(), n.to_string());
    handle
        .put_object(&id(key), &metadata, stream)
        .await
        .unwrap();
}

async fn get(handle: &FileBackend, key: &str) -> Option<u64> {
    let (metadata, payload) = handle.get_object(&id(key)).await.unwrap()?;
    let payload: Vec<_> = payload.try_collect().await.unwrap();
    let n = number(&payload.concat());
    assert_eq!(
        metadata.custom["n"],
        n.to_string(),
        "metadata and payload are of one put"
    );
    Some(n)
}

#[tokio::test]
#[ignore = "the other tests run it as a process of its own"]
async fn victim() {
    let (Ok(path), Ok(name)) = (std::env::var(PATH), std::env::var(NAME)) else {
        return;
    };
    let handle = open(Path::new(&path)).await;
    for n in 0..u64::MAX {
        let own = key_of(&name, n);
        let shared = key_of("shared", n);
        // Each eleventh time it removes the object instead.
        if n % 11 == 10 {
            handle.delete_object(&id(&own)).await.unwrap();
        } else {
            tokio::join!(put(&handle, &own, n), put(&handle, &shared, n));
        }
        writeln!(std::io::stdout(), "ack {n}").unwrap();
    }
}

fn start(path: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--ignored", "--nocapture"])
        .env(PATH, path)
        .env(NAME, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The last number that a victim said was acknowledged.
fn acknowledged(child: &mut Child) -> u64 {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let numbers = lines.filter_map(|line| line.ok()?.strip_prefix("ack ")?.parse().ok());
    numbers
        .last()
        .expect("something was acknowledged in that time")
}

#[tokio::test]
async fn what_two_processes_were_told_is_there_after_both_were_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("place");
    for round in 0..4_u64 {
        let names = [format!("x{round}"), format!("y{round}")];
        let mut children = names.clone().map(|name| start(&path, &name));
        tokio::time::sleep(Duration::from_millis(600 + 130 * round)).await;
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let handle = open(&path).await;
        let tmp = path.join("tmp").read_dir().unwrap().count();
        assert_eq!(tmp, 0, "what they left half done is gone");
        for (name, mut child) in names.iter().zip(children) {
            let last = acknowledged(&mut child);
            // By object: what the last acknowledged call left, and what the one under way may have made of it.
            let mut told: BTreeMap<String, Option<u64>> = BTreeMap::new();
            let effect = |n: u64| (n % 11 != 10).then_some(n);
            for n in 0..=last {
                told.insert(key_of(name, n), effect(n));
            }
            let next = last + 1;
            for (key, left) in told {
                let seen = get(&handle, &key).await;
                let is_next = key == key_of(name, next) && seen == effect(next);
                assert!(seen == left || is_next, "{key}: {seen:?}, told {left:?}");
            }
        }
        for n in 0..KEYS {
            // Of whichever of the two, or of an earlier round, but whole.
            get(&handle, &key_of("shared", n)).await;
        }
        assert_eq!(handle.sweep().await.unwrap(), 0);
    }
}
