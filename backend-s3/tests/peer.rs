//! A server that lies, breaks off and goes on and on: nothing of that is an answer, and nothing of it takes for ever.

mod client;
mod server;

use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_conformance::Faults;
use larder_conformance::proxy::{Answer, Direction, Misbehaviour, Proxy};
use larder_s3::{S3Blob, S3Config, S3Place};
use larder_traits::{Atomicity, BlobMulti, Classify, ErrorKind, Outcome};

use client::{PART, pattern, soon};
use server::{BUCKET, Endless, Server};

fn config(endpoint: &str) -> S3Config {
    client::config(endpoint).with_conditional_writes(false)
}

async fn place(server: &Server) -> S3Place {
    let place = S3Place::open(config(&server.endpoint())).await;
    place.expect("the server is there")
}

async fn place_behind(proxy: &Proxy) -> S3Place {
    let place = S3Place::open(config(&format!("http://{}", proxy.addr()))).await;
    place.expect("the server is there")
}

/// Failure: an object that had lost all its bytes was read as an empty value. Cause: a server refuses a range of an empty
/// object, with a status and without the checksum, and the refusal was taken for the value. Fix: it is asked for again
/// without a range, and held against its checksum.
#[tokio::test]
async fn an_object_without_its_bytes_is_no_empty_value() {
    let server = Server::start().await.unwrap();
    let place = place(&server).await;
    let blobs = place.blob_multi();
    let set = blobs.set(
        soon(),
        "long",
        pattern(1, 3 * PART),
        Atomicity::RequireAtomic,
    );
    set.await.unwrap();
    for (len, after_long) in [0, 1, 3 * PART]
        .into_iter()
        .flat_map(|len| [(len, false), (len, true)])
    {
        let set = blobs.set(soon(), "k", pattern(1, len), Atomicity::RequireAtomic);
        set.await.unwrap();
        // After a long value the first request has a range.
        let before = if after_long { "long" } else { "k" };
        assert!(blobs.get(soon(), before).await.unwrap().is_some());
        server
            .store
            .damage(BUCKET, "p/!blobs/k", |body| body.clear());
        let found = blobs.get(soon(), "k").await;
        if len == 0 {
            assert_eq!(found.unwrap(), Some(Vec::new()));
            let past = blobs.get_range(soon(), "k", 5..9).await.unwrap();
            assert_eq!(past, Some(Bytes::new()));
        } else {
            assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
    // Nor is a refusal the value of an object that has one.
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let behind = place_behind(&proxy).await.blob_multi();
    let set = blobs.set(soon(), "k", pattern(2, 9), Atomicity::RequireAtomic);
    set.await.unwrap();
    proxy.misbehave(1, Misbehaviour::Answer(Answer::s3(416, "InvalidRange")));
    let found = behind.get(soon(), "k").await.unwrap();
    assert_eq!(found.unwrap(), pattern(2, 9));
    proxy.misbehave_always(Misbehaviour::Answer(Answer::s3(416, "InvalidRange")));
    let e = behind.get(soon(), "k").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
}

/// Failure: a value that another tool had put there came back short. Cause: the server left out which part of it an
/// answer was, the SDK does not tell the status of an answer, and so the first part was taken for the whole; the
/// checksum, which such a value has not, would have told. Fix: a part has to say that it is one.
#[tokio::test]
async fn a_part_that_does_not_say_so_is_not_the_whole() {
    let server = Server::start().await.unwrap();
    let blobs = place(&server).await.blob_multi();
    server
        .store
        .plant(BUCKET, "p/!blobs/theirs", pattern(3, 2 * PART));
    let found = blobs.get(soon(), "theirs").await.unwrap();
    assert_eq!(found.unwrap(), pattern(3, 2 * PART));
    server.store.with_quirks(|quirks| quirks.hides_range = true);
    let e = blobs.get(soon(), "theirs").await.unwrap_err();
    assert_eq!(
        (e.kind(), e.outcome()),
        (ErrorKind::Unavailable, Outcome::NotApplied)
    );
}

/// Failure: a long value took longer to read than all at once. Cause: each get asked for the whole of it and left what the
/// server had at hand beyond the first part. Fix: after a long value the next one is asked for in parts.
#[tokio::test]
async fn after_a_long_value_the_next_one_is_asked_for_in_parts() {
    let server = Server::start().await.unwrap();
    let blobs = place(&server).await.blob_multi();
    for (key, len) in [("long", 3 * PART), ("short", 1)] {
        let set = blobs.set(soon(), key, pattern(4, len), Atomicity::RequireAtomic);
        set.await.unwrap();
    }
    // It answers a request for a part by the whole, which ends the matter; one for the whole is only the first of some.
    server
        .store
        .with_quirks(|quirks| quirks.ignores_range = true);
    for (key, one) in [
        ("long", false),
        ("long", true),
        ("long", true),
        ("short", true),
        ("long", false),
    ] {
        let before = server.store.count("GetObject");
        assert!(blobs.get(soon(), key).await.unwrap().is_some());
        let asked = server.store.count("GetObject") - before;
        assert_eq!(asked == 1, one, "{key}: {asked}");
    }
}

/// Failure: a listing that did not end was read until the memory was full or the deadline came, and one that gave a key
/// twice passed it on twice. Cause: only a page that named itself as the next one was refused. Fix: no object is taken
/// twice, and not any number of pages without one.
#[tokio::test]
async fn a_listing_that_never_ends_is_an_error() {
    let server = Server::start().await.unwrap();
    let place = place(&server).await;
    let blobs = place.blob_multi();
    for key in ["a", "b", "c", "d", "e"] {
        let set = blobs.set(soon(), key, Bytes::new(), Atomicity::RequireAtomic);
        set.await.unwrap();
    }
    let far = Instant::now() + Duration::from_secs(1_000_000_000);
    for endless in [Endless::SamePage, Endless::InCircles, Endless::Nothing] {
        server.store.with_quirks(|quirks| {
            quirks.page_keys_max = Some(3);
            quirks.lists_for_ever = Some(endless);
        });
        let list = tokio::time::timeout(Duration::from_secs(60), blobs.list_keys(far));
        let e = list.await.expect("it ends").unwrap_err();
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::Unavailable, Outcome::NotApplied),
            "{endless:?}"
        );
    }
}

/// Failure: one object with a name that is no text made every listing of the place fail. Cause: such a name was taken for
/// an answer that makes no sense. Fix: it is somebody else's, as every name is that no key has.
#[tokio::test]
async fn names_that_are_no_text_are_not_ours() {
    let server = Server::start().await.unwrap();
    let blobs = place(&server).await.blob_multi();
    let set = blobs.set(soon(), "k", Bytes::new(), Atomicity::RequireAtomic);
    set.await.unwrap();
    for name in ["p/%21blobs/%FF", "p/%21blobs/%C3", "p/!blobs/%", ""] {
        server
            .store
            .with_quirks(|quirks| quirks.lists_besides = Some(name));
        assert_eq!(blobs.list_keys(soon()).await.unwrap(), ["k"], "{name}");
    }
}

/// Failure: a sweep that got no list of uploads said that it had swept everything. Cause: an answer without anything in
/// it is a list of nothing to the SDK. Fix: a list says whether it goes on.
#[tokio::test]
async fn a_sweep_that_was_told_nothing_has_not_swept() {
    let server = Server::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let place = place_behind(&proxy).await;
    proxy.misbehave_always(Misbehaviour::Answer(Answer::new(200)));
    let e = place.sweep_uploads(Duration::ZERO).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    let more =
        "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated></ListMultipartUploadsResult>";
    proxy.misbehave_always(Misbehaviour::Answer(
        Answer::new(200).body("application/xml", more),
    ));
    let e = place.sweep_uploads(Duration::ZERO).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
}

/// What the server has under the key.
fn stored(server: &Server, key: &str) -> Option<Bytes> {
    let name = format!("p/!blobs/{key}");
    let found = server.store.objects(BUCKET).remove(&name);
    found.map(|stored| stored.body)
}

/// Calls whose connection breaks after so many bytes; whether each ended as if nothing had been wrong.
async fn calls_with_cuts(
    server: &Server,
    proxy: &Proxy,
    blobs: &S3Blob,
    len: usize,
    cut: (Direction, u64),
) -> [bool; 4] {
    let (old, new) = (pattern(1, len), pattern(2, len));
    let plain = place(server).await.blob_multi();
    let reset = plain.set(soon(), "k", old.clone(), Atomicity::RequireAtomic);
    reset.await.expect("the way to the server is clear");
    let arm = || proxy.cut_after(cut.0, cut.1);
    let told = format!("{len} bytes, cut {cut:?}");

    arm();
    let got = blobs.get(soon(), "k").await;
    proxy.disarm();
    if let Ok(found) = &got {
        assert_eq!(found.as_deref(), Some(&old[..]), "{told}");
    }
    arm();
    let listed = blobs.list_keys(soon()).await;
    proxy.disarm();
    if let Ok(found) = &listed {
        assert_eq!(found, &["k"], "{told}");
    }
    arm();
    let set = blobs.set(soon(), "k", new.clone(), Atomicity::RequireAtomic);
    let set = set.await;
    proxy.disarm();
    let there = stored(server, "k").expect("nobody removed it");
    match &set {
        Ok(()) => assert_eq!(there, new, "{told}"),
        Err(e) if e.outcome() == Outcome::NotApplied => assert_eq!(there, old, "{told}"),
        Err(_) => assert!(there == old || there == new, "{told}"),
    }
    arm();
    let delete = blobs.delete(soon(), "k").await;
    proxy.disarm();
    match &delete {
        Ok(()) => assert_eq!(stored(server, "k"), None, "{told}"),
        Err(e) if e.outcome() == Outcome::NotApplied => {
            assert!(stored(server, "k").is_some(), "{told}");
        }
        Err(_) => {}
    }
    let went_well = [got.is_ok(), listed.is_ok(), set.is_ok(), delete.is_ok()];
    let errors = [got.err(), listed.err(), set.err(), delete.err()];
    for e in errors.into_iter().flatten() {
        assert_eq!(e.kind(), ErrorKind::Unavailable, "{told}: {e:?}");
    }
    went_well
}

#[tokio::test]
async fn a_connection_may_break_anywhere() {
    let server = Server::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let blobs = place_behind(&proxy).await.blob_multi();
    let mut bad = 0;
    for len in [10, 3 * PART] {
        for direction in [Direction::Up, Direction::Down] {
            for after in [1, 40, 200, 400, 700, 1_000, 9_000, 20_000, 40_000] {
                let cut = (direction, after);
                let [got, listed, set, delete] =
                    calls_with_cuts(&server, &proxy, &blobs, len, cut).await;
                // What may be repeated is, and each cut comes once.
                assert!(got && listed, "{len} bytes, cut {cut:?}");
                bad += usize::from(!set) + usize::from(!delete);
            }
        }
    }
    assert!(bad > 0, "no write was ever cut, so nothing was tried");
}
