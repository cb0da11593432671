//! The methods as values, for checks that do the same to each of them, and what may be found after a call that was
//! dropped or that failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_traits::stash::{Append, StashDriver, StashDriverExt};
use larder_traits::{
    Antichain, Classify, CollectionId, Diff, ErrorKind, Outcome as Effect, StashError, Timestamp,
};

use super::{Names, at, row};
use crate::check::{Outcome, Stop, describe};
use crate::cx::{Cx, brief};
use crate::model::stash::{Stashes, Step, Update};
use crate::stash::{Failed, Handle, World};

/// A handle as a driver, where there is one.
pub(super) type Beyond = Option<Arc<dyn StashDriver>>;

type Rows = Vec<Update<String, String>>;

/// A call that changes something, with its arguments, made for a [`Scene`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Update,
    UpdateMany,
    Seal,
    Compact,
    Consolidate,
    SealBatch,
    CompactBatch,
    ConsolidateBatch,
    /// Only a driver has these two.
    Append,
    Discard,
}

const OF_THE_TRAIT: [Write; 8] = [
    Write::Update,
    Write::UpdateMany,
    Write::Seal,
    Write::Compact,
    Write::Consolidate,
    Write::SealBatch,
    Write::CompactBatch,
    Write::ConsolidateBatch,
];

/// All that can be called.
pub(super) fn writes(driver: &Beyond) -> Vec<Write> {
    let mut all = OF_THE_TRAIT.to_vec();
    if driver.is_some() {
        all.extend([Write::Append, Write::Discard]);
    }
    all
}

/// What a write does, in the order in which it does it.
enum Change {
    Step(usize, Step<String, String>),
    Discard(usize),
}

fn many_rows() -> Rows {
    let mut rows: Rows = (0..12)
        .map(|n| row(&format!("new {n}"), "v", 11 + n % 3, 1))
        .collect();
    rows.extend([
        row("k", "v", 12, 1),
        row("k", "v", 12, 1),
        row("l", "w", 13, -1),
    ]);
    rows
}

fn append_rows() -> [Rows; 2] {
    [
        vec![row("new", "v", 12, 1), row("k", "v", 12, -1)],
        vec![row("new", "v", 11, 1)],
    ]
}

impl Write {
    fn seals() -> [(usize, Timestamp); 3] {
        [(0, 12), (1, 13), (0, 15)]
    }

    fn compactions() -> [(usize, Timestamp); 3] {
        [(0, 3), (1, 4), (0, 5)]
    }

    fn changes(self) -> Vec<Change> {
        use Change::Step as Do;
        let frontiers = |items: [(usize, Timestamp); 3], step: fn(Antichain<Timestamp>) -> _| {
            items.map(|(c, time)| Do(c, step(at(time)))).into()
        };
        let [of_c, of_d] = append_rows();
        match self {
            Self::Update => vec![Do(0, Step::Update(vec![row("new", "v", 12, 1)]))],
            Self::UpdateMany => vec![Do(0, Step::Update(many_rows()))],
            Self::Seal => vec![Do(0, Step::Seal(at(15)))],
            Self::Compact => vec![Do(0, Step::Compact(at(4)))],
            Self::Consolidate => vec![Do(0, Step::Consolidate)],
            Self::SealBatch => frontiers(Self::seals(), Step::Seal),
            Self::CompactBatch => frontiers(Self::compactions(), Step::Compact),
            Self::ConsolidateBatch => {
                vec![Do(0, Step::Consolidate), Do(1, Step::Consolidate)]
            }
            Self::Append => vec![
                Do(0, Step::ExpectUpper(at(10))),
                Do(0, Step::Update(of_c)),
                Do(0, Step::Seal(at(15))),
                Do(0, Step::Compact(at(4))),
                Do(1, Step::ExpectUpper(at(10))),
                Do(1, Step::Update(of_d)),
                Do(1, Step::Seal(at(12))),
            ],
            Self::Discard => vec![Change::Discard(0)],
        }
    }

    /// Makes the call.
    pub(super) async fn call(
        self,
        handle: &mut Handle,
        driver: &Beyond,
        scene: &Scene,
    ) -> Result<(), StashError> {
        let [c, d] = scene.ids;
        let ids = |items: [(usize, Timestamp); 3]| items.map(|(n, time)| (scene.ids[n], at(time)));
        let result = match self {
            Self::Update => handle.update(c, ("new".into(), "v".into()), 12, 1).await,
            Self::UpdateMany => handle.update_many(c, many_rows()).await,
            Self::Seal => handle.seal(c, at(15)).await,
            Self::Compact => handle.compact(c, at(4)).await,
            Self::Consolidate => handle.consolidate(c).await,
            Self::SealBatch => handle.seal_batch(&ids(Self::seals())).await,
            Self::CompactBatch => handle.compact_batch(&ids(Self::compactions())).await,
            Self::ConsolidateBatch => handle.consolidate_batch(&[c, d]).await,
            Self::Append => return beyond(driver)?.append(scene.append()?).await,
            Self::Discard => {
                let name = &scene.names[0];
                return beyond(driver)?.drop_collection(name).await.map(drop);
            }
        };
        result.map_err(|failed| failed.error)
    }
}

fn beyond(driver: &Beyond) -> Result<&Arc<dyn StashDriver>, StashError> {
    driver.as_ref().ok_or_else(|| {
        let what = "the suite called a driver where there is none";
        larder_traits::Fault::not_applied(ErrorKind::Unsupported, what).into()
    })
}

/// A call that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Iter,
    IterKey,
    Since,
    Upper,
    PeekTimestamp,
    Peek,
    PeekOne,
    PeekKeyOne,
}

pub(super) const READS: [Read; 8] = [
    Read::Iter,
    Read::IterKey,
    Read::Since,
    Read::Upper,
    Read::PeekTimestamp,
    Read::Peek,
    Read::PeekOne,
    Read::PeekKeyOne,
];

impl Read {
    /// Makes the call; the answer as a text.
    pub(super) async fn call(self, handle: &mut Handle, scene: &Scene) -> Result<String, Failed> {
        let (c, key) = (scene.ids[0], "l".to_owned());
        Ok(match self {
            Self::Iter => format!("{:?}", handle.iter(c).await?),
            Self::IterKey => format!("{:?}", handle.iter_key(c, &key).await?),
            Self::Since => format!("{:?}", handle.since(c).await?),
            Self::Upper => format!("{:?}", handle.upper(c).await?),
            Self::PeekTimestamp => format!("{:?}", handle.peek_timestamp(c).await?),
            Self::Peek => format!("{:?}", handle.peek(c).await?),
            Self::PeekOne => format!("{:?}", handle.peek_one(c).await?),
            Self::PeekKeyOne => format!("{:?}", handle.peek_key_one(c, &key).await?),
        })
    }

    /// The text of the right answer, before anything was done to the scene.
    pub(super) fn right(self, scene: &Scene) -> String {
        let c = scene.model.get(scene.model_ids[0]);
        let c = c.expect("the scene has just made it");
        let key = "l".to_owned();
        let text = match self {
            Self::Iter => c.iter().map(|it| format!("{it:?}")),
            Self::IterKey => c.iter_key(&key).map(|it| format!("{it:?}")),
            Self::Since => Ok(format!("{:?}", c.since())),
            Self::Upper => Ok(format!("{:?}", c.upper())),
            Self::PeekTimestamp => c.peek_timestamp().map(|it| format!("{it:?}")),
            Self::Peek => c.peek().map(|it| format!("{it:?}")),
            Self::PeekOne => c.peek_one().map(|it| format!("{it:?}")),
            Self::PeekKeyOne => c.peek_key_one(&key).map(|it| format!("{it:?}")),
        };
        text.expect("the scene can be read in every way")
    }
}

/// Two collections in a state that every method has something to do with.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) names: [String; 2],
    pub(super) ids: [Names; 2],
    model: Stashes<String, String>,
    model_ids: [CollectionId; 2],
}

impl Scene {
    pub(super) async fn new(handle: &mut Handle, name: &str) -> Result<Self, Stop> {
        let names = [format!("{name} c"), format!("{name} d")];
        let mut model = Stashes::default();
        let model_ids = [model.open(&names[0]), model.open(&names[1])];
        let mut ids = Vec::new();
        for name in &names {
            let c: Option<Names> = there(async || handle.collection(name).await).await?;
            ids.push(c.ok_or_else(|| Stop::fail("collection", "NoCollection", "a collection"))?);
        }
        let ids = [ids[0], ids[1]];
        let rows = vec![
            row("k", "v", 1, 1),
            row("l", "v", 2, 1),
            row("l", "v", 3, -1),
            row("l", "w", 3, 1),
            row("m", "late", 20, 1),
        ];
        for (c, of_model) in ids.into_iter().zip(model_ids) {
            handle.update_many(c, rows.clone()).await?;
            handle.seal(c, at(10)).await?;
            handle.compact(c, at(2)).await?;
            for step in [
                Step::Update(rows.clone()),
                Step::Seal(at(10)),
                Step::Compact(at(2)),
            ] {
                model
                    .apply(of_model, step)
                    .expect("the steps of the scene are allowed");
            }
        }
        Ok(Self {
            names,
            ids,
            model,
            model_ids,
        })
    }

    /// The call [`Write::Append`].
    pub(super) fn append(&self) -> Result<Append, StashError> {
        let [c, d] = self.ids;
        let [of_c, of_d] = append_rows();
        let mut append = Append::new();
        append
            .collection(c)
            .expect_upper(at(10))
            .update(of_c)?
            .seal(at(15))
            .compact(at(4));
        append
            .collection(d)
            .expect_upper(at(10))
            .update(of_d)?
            .seal(at(12));
        Ok(append)
    }

    fn found(&self, model: &Stashes<String, String>) -> Found {
        self.model_ids.map(|id| {
            let Ok(c) = model.get(id) else {
                return Seen::default();
            };
            Seen {
                rows: c.iter().ok(),
                since: Some(c.since().clone()),
                upper: Some(c.upper().clone()),
                peek: c.peek().ok(),
            }
        })
    }

    /// What may be found: before the write, after it, and in between where a batch need not be whole.
    pub(super) fn states(&self, write: Write, whole: bool) -> Vec<Found> {
        let mut model = self.model.clone();
        let mut all = vec![self.found(&model)];
        for change in write.changes() {
            match change {
                Change::Step(c, step) => {
                    let applied = model.apply(self.model_ids[c], step);
                    applied.expect("the writes are made for the scene");
                }
                Change::Discard(c) => drop(model.discard(&self.names[c])),
            }
            all.push(self.found(&model));
        }
        if whole {
            all.drain(1..all.len() - 1);
        }
        all
    }
}

/// What the reads say of a collection; nothing where it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    rows: Option<Rows>,
    since: Option<Antichain<Timestamp>>,
    upper: Option<Antichain<Timestamp>>,
    peek: Option<Vec<(String, String, Diff)>>,
}

/// The same of both collections.
pub(super) type Found = [Seen; 2];

impl Seen {
    /// Each answer by itself, for a look that a write may come in between.
    fn parts(&self) -> [(&'static str, String); 4] {
        [
            ("iter", format!("{:?}", self.rows)),
            ("since", format!("{:?}", self.since)),
            ("upper", format!("{:?}", self.upper)),
            ("peek", format!("{:?}", self.peek)),
        ]
    }
}

/// How long a store may take to find its way back after a failure.
const RECOVERY: Duration = Duration::from_secs(5);

/// Makes a call until the store has recovered from what was done to it; `None` where the collection is gone.
pub(super) async fn there<T, E: AsRef<StashError> + Into<Stop>>(
    mut call: impl AsyncFnMut() -> Result<T, E>,
) -> Result<Option<T>, Stop> {
    let until = Instant::now() + RECOVERY;
    loop {
        let failed = match call().await {
            Ok(answer) => return Ok(Some(answer)),
            Err(failed) => failed,
        };
        if matches!(failed.as_ref(), StashError::NoCollection { .. }) {
            return Ok(None);
        }
        let passing = matches!(
            failed.as_ref().kind(),
            ErrorKind::Unavailable | ErrorKind::Timeout
        );
        if !passing || Instant::now() > until {
            return Err(failed.into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads all that there is to read of both collections.
pub(super) async fn find(handle: &mut Handle, scene: &Scene) -> Result<Found, Stop> {
    let mut found = Found::default();
    for (seen, c) in found.iter_mut().zip(scene.ids) {
        *seen = Seen {
            rows: there(async || handle.iter(c).await).await?,
            since: there(async || handle.since(c).await).await?,
            upper: there(async || handle.upper(c).await).await?,
            peek: there(async || handle.peek(c).await).await?,
        };
    }
    Ok(found)
}

/// A scene that something was done to, and what may be found there from now on.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) scene: Scene,
    pub(super) allowed: Vec<Found>,
    /// What was done, and how it ended.
    pub(super) story: String,
}

impl Watched {
    /// `answer` is `None` for a call that was dropped; `begun` tells whether it was ever polled.
    pub(super) fn after(
        cx: &Cx<dyn World>,
        scene: Scene,
        write: Write,
        answer: Option<&Result<(), StashError>>,
        begun: bool,
        how: &str,
    ) -> Self {
        let mut allowed = scene.states(write, cx.caps.stash.batch_atomic);
        let ended = match answer {
            None if !begun => {
                allowed.truncate(1);
                "was dropped before its first poll".into()
            }
            None => "was dropped".into(),
            Some(Ok(())) => {
                allowed.drain(..allowed.len() - 1);
                "was answered with Ok".into()
            }
            Some(Err(e)) => {
                if e.outcome() == Effect::NotApplied {
                    allowed.truncate(1);
                }
                format!("failed: {}", describe(e))
            }
        };
        let story = format!("{write:?} {how}, which {ended}");
        cx.log().push(format!("-- {story} --"));
        Self {
            scene,
            allowed,
            story,
        }
    }

    /// Fails unless each answer is one of those allowed. The write may still be on its way, between two of the reads.
    pub(super) async fn look(&self, handle: &mut Handle) -> Outcome {
        let found = find(handle, &self.scene).await?;
        for (n, seen) in found.iter().enumerate() {
            for (part, (call, text)) in seen.parts().into_iter().enumerate() {
                let mut allowed: Vec<String> = self
                    .allowed
                    .iter()
                    .map(|it| it[n].parts()[part].1.clone())
                    .collect();
                if !allowed.contains(&text) {
                    allowed.dedup();
                    let which = ["first", "second"][n];
                    return Err(Stop::fail(
                        format!("{call} of the {which} collection after {}", self.story),
                        brief_text(&text),
                        brief_text(&allowed.join(" or ")),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Fails unless what is found is one of the states allowed, as a whole.
    pub(super) async fn look_whole(&self, handle: &mut Handle) -> Outcome {
        let found = find(handle, &self.scene).await?;
        if self.allowed.contains(&found) {
            return Ok(());
        }
        Err(Stop::fail(
            format!("both collections after {}, all being over", self.story),
            brief(&found),
            format!("one of {}", brief(&self.allowed)),
        ))
    }
}

/// A text as failures show it, which is no debug form of one.
fn brief_text(text: &str) -> String {
    const CHARS_MAX: usize = 600;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// How often the watch looks.
const LOOKS: u32 = 3;

/// Looks at all scenes through all handles in turn, several times within `time`.
pub(super) async fn watch(
    handles: &mut [&mut Handle],
    watched: &[Watched],
    time: Duration,
) -> Outcome {
    let count = handles.len();
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(time / (LOOKS - 1)).await;
        }
        for (n, watched) in watched.iter().enumerate() {
            let turn = usize::try_from(look).unwrap_or(0) + n;
            watched.look_whole(handles[turn % count]).await?;
        }
    }
    Ok(())
}
