//! Every kind of write over every kind of row: what readers find between its steps and after it, and what lies in which
//! tier then.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use larder_conformance::schedule::Run;
use larder_traits::{
    Backend, BackendError, Clock, Compression, ExpirationPolicy, HighVolumeBackend, Metadata,
    TieredGet,
};

use super::checks::{Checked, join, plain};
use super::{Made, Make, THRESHOLD_BYTES, World, id, now};

/// What came before, one after another.
#[derive(Clone, Copy, Debug)]
enum Before {
    Put(usize),
    Delete,
    /// Its deadline came.
    End,
}

const LARGE: usize = 40;

const ROWS: [&[Before]; 13] = {
    use Before::{Delete, End, Put};
    [
        &[],
        &[Put(0)],
        &[Put(5)],
        &[Put(LARGE)],
        &[Put(5), Delete],
        &[Put(LARGE), Delete],
        &[Put(5), End],
        &[Put(LARGE), End],
        &[Put(5), Put(LARGE)],
        &[Put(LARGE), Put(5)],
        &[Put(LARGE), Put(0)],
        &[Put(LARGE), Put(LARGE)],
        &[Put(LARGE), Delete, Put(LARGE)],
    ]
};

const LENS: [usize; 7] = [
    0,
    1,
    THRESHOLD_BYTES - 1,
    THRESHOLD_BYTES,
    THRESHOLD_BYTES + 1,
    LARGE,
    10 * THRESHOLD_BYTES,
];

/// How long that lives which came before.
const OLD_LIFE: Duration = Duration::from_secs(1_000);

const LIFE: Duration = Duration::from_secs(5_000);

/// What a put says beside the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    /// Everything that there is to say, with a policy.
    All(ExpirationPolicy),
    /// And the deadline too.
    Deadline(ExpirationPolicy),
}

const SAYS: [Says; 4] = [
    Says::Nothing,
    Says::All(ExpirationPolicy::Manual),
    Says::All(ExpirationPolicy::TimeToLive(LIFE)),
    Says::Deadline(ExpirationPolicy::TimeToIdle(LIFE)),
];

/// What a put tells of its size: nothing, the truth, less and more, on this side of the threshold and on that.
fn told(len: usize) -> BTreeSet<Option<u64>> {
    let lens = [
        0,
        3,
        len.saturating_sub(1),
        len,
        len + 1,
        THRESHOLD_BYTES,
        LARGE,
    ];
    let lens = lens.map(|len| u64::try_from(len).ok());
    lens.into_iter().chain([None, Some(u64::MAX)]).collect()
}

/// Metadata with something in every field that says nothing of deadlines or of the size.
fn full(policy: ExpirationPolicy, tag: &str, clock: &dyn Clock) -> Metadata {
    let mut metadata = Metadata::with_policy(policy);
    metadata.time_created = Some(clock.now() - Duration::from_secs(86_400));
    metadata.content_type = Some(format!("application/{tag}"));
    metadata.compression = Some(match tag {
        "old" => Compression::Gzip,
        _ => Compression::Zstd,
    });
    metadata.origin = Some(format!("{tag}.example"));
    metadata.filename = Some(format!("{tag}.bin"));
    let custom = [("a", tag), (tag, "b"), ("", "")];
    metadata.custom = custom.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    metadata
}

/// Bytes that differ from their neighbours.
pub fn bytes(len: usize, salt: usize) -> Bytes {
    (0..len)
        .map(|n| u8::try_from((n * 7 + salt) % 251).expect("below 251"))
        .collect()
}

/// Puts an object in pieces of this length with empty ones between, or in one piece.
pub async fn put(
    store: &Made,
    key: &str,
    metadata: &Metadata,
    payload: Bytes,
    piece: Option<usize>,
) -> Result<(), BackendError> {
    let pieces: Vec<_> = match piece {
        None => vec![Ok(payload)],
        Some(piece) => payload
            .chunks(piece)
            .flat_map(|it| [Ok(Bytes::new()), Ok(Bytes::copy_from_slice(it))])
            .collect(),
    };
    let stream = stream::iter(pieces).boxed();
    store.put_object(&id(key), metadata, stream).await
}

/// An object as a reader has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Object {
    pub metadata: Metadata,
    pub payload: Bytes,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, metadata) = (self.payload.len(), &self.metadata);
        let first = self.payload.first();
        write!(f, "{len} bytes from {first:?} on with {metadata:?}")
    }
}

impl Object {
    /// Without what an access may change.
    fn lasting(&self) -> Self {
        let mut lasting = self.clone();
        lasting.metadata.time_expires = None;
        lasting
    }
}

/// What a get finds, and a look at the metadata alone.
pub fn look(run: &Run, store: &Made, key: &str) -> Checked<(Option<Object>, Option<Metadata>)> {
    let (store, id) = (Arc::clone(store), id(key));
    let found = run.finish(async move {
        let shown = store.get_metadata(&id).await?;
        let Some((metadata, payload)) = store.get_object(&id).await? else {
            return Ok((None, shown));
        };
        let pieces: Vec<Bytes> = payload.try_collect().await?;
        let payload = pieces.concat().into();
        Ok::<_, BackendError>((Some(Object { metadata, payload }), shown))
    });
    found.map_err(|e| format!("a read of {key}: {e}"))
}

/// One write over one row.
#[derive(Debug)]
struct Case {
    row: &'static [Before],
    write: Write,
}

#[derive(Debug)]
enum Write {
    Put {
        len: usize,
        told: Option<u64>,
        says: Says,
        piece: Option<usize>,
    },
    Delete,
}

/// A store and somebody else who reads it.
struct Stage {
    world: World,
    run: Run,
    store: Made,
    eyes: Run,
    reader: Made,
}

impl Stage {
    fn new(make: Make<'_>) -> Self {
        let (world, run, eyes) = (World::new(), plain(), plain());
        Self {
            store: world.open(&run, make),
            reader: world.open(&eyes, make),
            world,
            run,
            eyes,
        }
    }

    /// Puts an object without a reader beside it.
    fn put(&self, key: &str, metadata: &Metadata, payload: &Bytes) -> Checked<Object> {
        let stored = self.stored(metadata, payload)?;
        let (store, key, metadata) = (Arc::clone(&self.store), key.to_owned(), metadata.clone());
        let payload = payload.clone();
        let put = self.run.finish(async move {
            let ended = put(&store, &key, &metadata, payload, None).await;
            store.join().await;
            ended
        });
        put.map_err(|e| format!("a put before: {e}"))?;
        Ok(stored)
    }

    /// What is there after a put that begins now.
    fn stored(&self, metadata: &Metadata, payload: &Bytes) -> Checked<Object> {
        let len = u64::try_from(payload.len()).map_err(|e| e.to_string())?;
        let stored = metadata.stamped(self.world.clock.now(), len);
        Ok(Object {
            metadata: stored.map_err(|e| e.to_string())?,
            payload: payload.clone(),
        })
    }

    /// Brings the row about. What is there then.
    fn prepare(&self, row: &[Before]) -> Checked<Option<Object>> {
        let mut there = None;
        let policy = ExpirationPolicy::TimeToLive(OLD_LIFE);
        for (nth, before) in row.iter().enumerate() {
            there = match before {
                Before::Put(len) => {
                    let metadata = full(policy, "old", &*self.world.clock);
                    Some(self.put("k", &metadata, &bytes(*len, 100 + nth))?)
                }
                Before::Delete => {
                    let store = Arc::clone(&self.store);
                    let deleted = self.run.finish(async move {
                        let ended = store.delete_object(&id("k")).await;
                        store.join().await;
                        ended
                    });
                    deleted.map_err(|e| format!("a delete before: {e}"))?;
                    None
                }
                Before::End => {
                    self.world.clock.advance(OLD_LIFE);
                    None
                }
            };
        }
        Ok(there)
    }

    /// What a reader finds of the object, the same both times.
    fn seen(&self) -> Checked<Option<Object>> {
        let (seen, shown) = look(&self.eyes, &self.reader, "k")?;
        if seen.as_ref().map(|it| &it.metadata) != shown.as_ref() {
            return Err(format!("get finds {seen:?}, and get_metadata {shown:?}"));
        }
        Ok(seen)
    }

    /// What lies where.
    fn in_tiers(&self, object: Option<&Object>) -> Checked<()> {
        let row = now(self.world.high.high_volume().get_tiered_object(&id("k")));
        let found = match row.map_err(|e| e.to_string())? {
            TieredGet::NotFound => None,
            TieredGet::Object(metadata, stream) => Some((true, metadata, stream)),
            TieredGet::Tombstone(redirect) => {
                let long = self.world.long.high_volume();
                let found = now(Backend::get_object(&long, &redirect.target));
                let Some((metadata, stream)) = found.map_err(|e| e.to_string())? else {
                    return Err("a redirect to nothing".into());
                };
                let ends = (redirect.expiration_policy, redirect.time_expires);
                if ends != (metadata.expiration_policy, metadata.time_expires) {
                    return Err(format!("the redirect ends {ends:?}, and not {metadata:?}"));
                }
                Some((false, metadata, stream))
            }
        };
        let Some((is_inline, metadata, stream)) = found else {
            return match object {
                None => Ok(()),
                Some(_) => Err("no row".into()),
            };
        };
        let pieces: Vec<Bytes> = now(stream.try_collect()).map_err(|e| e.to_string())?;
        let payload = pieces.concat().into();
        let found = Object { metadata, payload };
        if object != Some(&found) {
            return Err(format!("in the tiers lies {found:?}"));
        }
        match is_inline == (found.payload.len() <= THRESHOLD_BYTES) {
            true => Ok(()),
            false => Err(format!(
                "{} bytes with a threshold of {THRESHOLD_BYTES} lie inline: {is_inline}",
                found.payload.len()
            )),
        }
    }
}

/// More polls than a write takes that nothing is in the way of.
const POLLS_MAX: usize = 200;

impl Case {
    fn run(&self, make: Make<'_>) -> Checked<()> {
        let stage = Stage::new(make);
        let clock = Arc::clone(&stage.world.clock);
        let neighbours = full(ExpirationPolicy::Manual, "l", &*clock);
        let neighbour = stage.put("l", &neighbours, &bytes(LARGE, 200))?;
        let old = stage.prepare(self.row)?;
        let (call, new) = {
            let store = Arc::clone(&stage.store);
            match &self.write {
                Write::Delete => {
                    let call = async move { store.delete_object(&id("k")).await };
                    (call.boxed(), None)
                }
                Write::Put {
                    len,
                    told,
                    says,
                    piece,
                } => {
                    let metadata = said(*says, *told, &*clock);
                    let (payload, piece) = (bytes(*len, 0), *piece);
                    let new = stage.stored(&metadata, &payload)?;
                    let call = async move { put(&store, "k", &metadata, payload, piece).await };
                    (call.boxed(), Some(new))
                }
            }
        };
        self.meanwhile(&stage, call, old.as_ref(), new.as_ref())?;
        join(&stage.run, &stage.store);
        let seen = stage.seen()?;
        if seen != new {
            return Err(format!("what is there is {seen:?}, and not {new:?}"));
        }
        stage.in_tiers(new.as_ref())?;
        // What has ended may lie there for as long as the tier likes.
        stage.world.sweep();
        stage.world.in_order(false)?;
        self.later(&stage, new.as_ref())?;
        let (beside, _) = look(&stage.eyes, &stage.reader, "l")?;
        match beside.as_ref() == Some(&neighbour) {
            true => Ok(()),
            false => Err(format!("at another key: {beside:?}, and not {neighbour:?}")),
        }
    }

    /// Polls the write to its end. Between any two of its steps the old object is there or the new one.
    fn meanwhile(
        &self,
        stage: &Stage,
        mut call: BoxFuture<'static, Result<(), BackendError>>,
        old: Option<&Object>,
        new: Option<&Object>,
    ) -> Checked<()> {
        let mut is_new = false;
        for nth in 0..POLLS_MAX {
            if let Some(ended) = (&mut call).now_or_never() {
                return ended.map_err(|e| format!("it was answered {e}"));
            }
            let seen = stage.seen()?;
            let is_expected = seen.as_ref() == new || (seen.as_ref() == old && !is_new);
            if !is_expected {
                return Err(format!("after {nth} steps there is {seen:?}"));
            }
            is_new |= seen.as_ref() != old;
        }
        Err("a write without an end".into())
    }

    /// At the deadline of what was there before, and at its own.
    fn later(&self, stage: &Stage, new: Option<&Object>) -> Checked<()> {
        let is_mortal = new.is_some_and(|it| it.metadata.time_expires.is_some());
        for (life, may_have_ended) in [(OLD_LIFE, false), (LIFE, is_mortal)] {
            stage.world.clock.advance(life);
            let (seen, _) = look(&stage.eyes, &stage.reader, "k")?;
            let seen = seen.map(|it| it.lasting());
            let expected = new.filter(|_| !may_have_ended).map(Object::lasting);
            if seen != expected {
                return Err(format!("{life:?} later there is {seen:?}"));
            }
        }
        Ok(())
    }
}

fn said(says: Says, told: Option<u64>, clock: &dyn Clock) -> Metadata {
    let mut metadata = match says {
        Says::Nothing => Metadata::new(),
        Says::All(policy) | Says::Deadline(policy) => full(policy, "new", clock),
    };
    if matches!(says, Says::Deadline(_)) {
        // So near to what the policy says that an access at once does not extend it.
        metadata.time_expires = Some(clock.now() + LIFE - OLD_LIFE / 2);
    }
    metadata.size = told;
    metadata
}

/// TS-1, TS-9, BK-1, BK-2, BK-3: puts of every length, whatever they say of it and of themselves, and deletes, over
/// whatever was there.
pub fn over_every_row(make: Make<'_>) -> Checked {
    let mut cases = Vec::new();
    for row in ROWS {
        let write = Write::Delete;
        cases.push(Case { row, write });
        for len in LENS {
            for told in told(len) {
                for says in SAYS {
                    for piece in [None, Some(3)] {
                        let write = Write::Put {
                            len,
                            told,
                            says,
                            piece,
                        };
                        cases.push(Case { row, write });
                    }
                }
            }
        }
    }
    for case in &cases {
        case.run(make).map_err(|why| format!("{case:?}\n{why}"))?;
    }
    Ok(cases.len())
}
