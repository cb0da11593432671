//! A server that is killed and started again while clients write and read: whatever they were told has to fit together.

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_conformance::lin::{Answer, Call, History, Limits, ModelName, Op, Row, Verdict, check};
use larder_s3::{S3Blob, S3Config, S3Place};
use larder_traits::{Atomicity, BlobMulti, Classify, Outcome};

use server::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};

const CLIENTS: u32 = 4;
const CALLS: u64 = 60;
const KEYS: u64 = 3;
const KILLS: u32 = 8;

/// One client's calls on a handle of its own.
async fn client(number: u32, blobs: S3Blob, stamps: Arc<AtomicU64>) -> Vec<Call> {
    let stamp = || stamps.fetch_add(1, Ordering::SeqCst);
    let mut calls = Vec::new();
    for nth in 0..CALLS {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mixed = nth
            .wrapping_mul(2_654_435_761)
            .wrapping_add(u64::from(number) * 40_503)
            >> 3;
        let key = format!("k{}", mixed % KEYS);
        let began = stamp();
        let (op, result) = match mixed % 7 {
            0..=2 => {
                // Every third value goes in parts.
                let long = if nth % 3 == 0 {
                    "x".repeat(40 << 10)
                } else {
                    String::new()
                };
                let value = format!("{number}/{nth}");
                let body = format!("{value}/{long}");
                let set = blobs.set(deadline, &key, body.into(), Atomicity::RequireAtomic);
                let result = set.await.map(|()| Answer::Done);
                (
                    Op::Set {
                        key,
                        value,
                        ttl: None,
                    },
                    result,
                )
            }
            3 => {
                let result = blobs.delete(deadline, &key).await.map(|()| Answer::Done);
                (Op::Delete { key }, result)
            }
            _ => {
                let found = blobs.get(deadline, &key).await;
                let shown = |bytes: Vec<u8>| {
                    let text = String::from_utf8(bytes).expect("only text was written");
                    let (value, _) = text.rsplit_once('/').expect("each value has a slash");
                    Row::inline(value)
                };
                let result = found.map(|found| Answer::Row(found.map(shown)));
                (Op::Get { key }, result)
            }
        };
        let ended = stamp();
        match result {
            Ok(answer) => calls.push(Call::answered(number, began, ended, op, answer)),
            Err(e) if e.outcome() == Outcome::Unknown => {
                calls.push(Call::unknown(number, began, Some(ended), op));
            }
            // It did nothing, and there is nothing to explain.
            Err(_) => {}
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_through_kills_of_the_server_are_linearizable() {
    let server = Arc::new(Server::start().await.unwrap());
    let stamps = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let config = S3Config::new(BUCKET)
            .with_endpoint(server.endpoint())
            .with_credentials(ACCESS_KEY, SECRET_KEY)
            .with_part_len_bytes((16_usize << 10).try_into().unwrap())
            .with_conditional_writes(false);
        let blobs = S3Place::open(config).await.unwrap().blob_multi();
        clients.push(tokio::spawn(client(number, blobs, Arc::clone(&stamps))));
    }
    let done = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn({
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        async move {
            let mut kills = 0;
            while kills < KILLS && !done.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(60)).await;
                server.kill();
                tokio::time::sleep(Duration::from_millis(30)).await;
                server.start_again().await.unwrap();
                kills += 1;
            }
            kills
        }
    });
    let mut calls = Vec::new();
    for client in clients {
        calls.extend(client.await.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    assert!(killer.await.unwrap() > 0);
    let report = check(&History::new(calls), ModelName::Register, Limits::default()).unwrap();
    assert!(
        report.overlapping > 20,
        "there was little to judge: {report:?}"
    );
    assert!(
        matches!(report.verdict, Verdict::Linearizable),
        "{report:?}"
    );
}
