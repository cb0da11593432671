//! What a world on any server offers to the suite: its places, answers that look like a success and are none, and the
//! names of what others put around a place.

use std::sync::{Arc, Mutex};

use larder_conformance::proxy::{Answer, Misbehaviour, Proxy};
use larder_conformance::{BoxError, FaultKind, Faults};
use larder_s3::{S3Config, S3Place};
use larder_traits::TestClock;

/// The places that a world has opened, on one clock.
#[derive(Default)]
pub(crate) struct Places {
    clock: Arc<TestClock>,
    opened: Mutex<Vec<S3Place>>,
}

impl Places {
    pub(crate) fn clock(&self) -> Arc<TestClock> {
        Arc::clone(&self.clock)
    }

    pub(crate) async fn open(&self, config: S3Config) -> Result<S3Place, BoxError> {
        let place = S3Place::open(config.with_clock(self.clock())).await?;
        let mut opened = self.opened.lock().map_err(|e| e.to_string())?;
        opened.push(place.clone());
        Ok(place)
    }

    pub(crate) async fn settle(&self) {
        let opened = self.opened.lock().expect("nothing panics with it").clone();
        for place in opened {
            place.settled().await;
        }
    }
}

/// The kinds of such answers, with the words for how they are wrong.
pub(crate) fn garbled(proxy: &Arc<Proxy>) -> Vec<(&'static str, Arc<dyn Faults>)> {
    let noise: &[u8] = b"\xff\0<<&;\r\n\x01nothing of this makes sense";
    let cut: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult><Name>pan";
    let octets = "application/octet-stream";
    let kinds = [
        (
            "an error inside an answer of 200",
            Misbehaviour::Answer(Answer::s3(200, "InternalError")),
            Misbehaviour::ShortBody { len_bytes: 0 },
        ),
        (
            "an answer that breaks off",
            Misbehaviour::Answer(Answer::new(200).body("application/xml", cut)),
            Misbehaviour::CutBody { after_bytes: 40 },
        ),
        (
            "an answer that is shorter than it should be",
            Misbehaviour::Answer(Answer::new(200)),
            Misbehaviour::ShortBody { len_bytes: 150 },
        ),
        (
            "noise",
            Misbehaviour::Answer(Answer::new(200).body(octets, noise)),
            Misbehaviour::ShortBody { len_bytes: 7 },
        ),
    ];
    let garble = |(words, before, after)| {
        let proxy = Arc::clone(proxy);
        let garble = Garble {
            proxy,
            before,
            after,
        };
        (words, Arc::new(garble) as Arc<dyn Faults>)
    };
    kinds.into_iter().map(garble).collect()
}

struct Garble {
    proxy: Arc<Proxy>,
    /// What is answered to a request that the server never gets.
    before: Misbehaviour,
    /// What becomes of the answer to one that it does get.
    after: Misbehaviour,
}

impl Faults for Garble {
    fn arm(&self, nth: u64, kind: FaultKind) {
        match kind {
            FaultKind::ErrorBefore => self.proxy.misbehave(nth, self.before.clone()),
            FaultKind::ErrorAfter => self.proxy.misbehave(nth, self.after.clone()),
            kind => self.proxy.arm(nth, kind),
        }
    }

    fn disarm(&self) -> bool {
        self.proxy.disarm()
    }
}

/// The names of what lies around `place` in its bucket, and among its blobs without being one.
pub(crate) fn foreign_names(place: &str) -> Vec<String> {
    let around = [
        "",
        "/",
        "/x",
        "1",
        "1/!blobs/x",
        "/1/!blobs/x",
        "!blobs/x",
        "/!blobs",
        "/!blobs1/x",
        "/!objects/x",
        "/blobs/x",
    ];
    // No key has one of these names, though they lie among those that keys have.
    let among = [
        "", "/", "//", "/a", "a/", "a//b", ".", "..", "a/../b", "!", "!4", "!zz", "!41", "!2f",
        "a b", "a%20b", "\u{e9}", "!C3", "a.tmp~", "#tmp#",
    ];
    let among = among.iter().map(|name| format!("{place}/!blobs/{name}"));
    let all = around.iter().map(|name| format!("{place}{name}"));
    all.chain(among.filter(|name| name != &format!("{place}/!blobs/!")))
        .collect()
}
