//! C-1.1, C-1.2, ST-12, ST-13.3 and ST-13.5: a medium that fails. The checks stand in the tables of their clauses.

use std::sync::Arc;
use std::time::Duration;

use larder_traits::stash::StashDriverExt;
use larder_traits::{
    Classify, CollectionId, Diff, ErrorKind, Outcome as Effect, StashCollection, StashError,
    Timestamp,
};
use tokio::sync::Mutex;

use super::methods::{Beyond, READS, Read, Scene, Watched, Write, there, watch, writes};
use super::{DriverError, Names, at, empty, row};
use crate::check::{Outcome, Stop, describe};
use crate::checks::{of_the_medium, refused};
use crate::cx::{Cx, brief};
use crate::engine::fault::{each_met, enough};
use crate::fixture::{FaultKind, Faults};
use crate::stash::{Handle, Moody, World};

/// How long what had no effect is watched for one.
const WATCH: Duration = Duration::from_secs(1);

/// How long a call may take beside failures, the repetitions of the store itself included.
const ENDS: Duration = Duration::from_secs(30);

/// A call without an answer, or with a lost one.
const ERRORS: [FaultKind; 2] = [FaultKind::ErrorBefore, FaultKind::ErrorAfter];

/// Two handles on a medium that can be made to fail, and all that was done to it.
struct Stage<'a> {
    cx: &'a Cx<dyn World>,
    faults: Arc<dyn Faults>,
    driver: Beyond,
    /// What a call is told that meets a fault, where that follows from the fault alone.
    told: Option<ErrorKind>,
    /// The one that calls, and the one that prepares and looks.
    handles: Mutex<(Handle, Handle)>,
    watched: Mutex<Vec<Watched>>,
}

impl<'a> Stage<'a> {
    async fn new(cx: &'a Cx<dyn World>) -> Result<Self, Stop> {
        let faults = cx.faults()?;
        Ok(Self {
            cx,
            faults,
            driver: cx.driver_if_any("p").await?,
            told: None,
            handles: Mutex::new(cx.open_two("p").await?),
            watched: Mutex::default(),
        })
    }

    /// Makes the first, the second, … call to the medium of this write fail; how often the fault was met.
    async fn each(&self, write: Write, kind: FaultKind) -> Result<u64, Stop> {
        each_met(self.faults.as_ref(), kind, |nth| {
            self.write(write, nth, kind)
        })
        .await
    }

    async fn write(&self, write: Write, nth: u64, kind: FaultKind) -> Result<bool, Stop> {
        let (a, b) = &mut *self.handles.lock().await;
        self.faults.disarm();
        let scene = Scene::new(b, &format!("{write:?} {kind:?} {nth}")).await?;
        let how = format!("with {kind:?} in call {nth} to the medium");
        self.cx
            .log()
            .push(format!("-- armed: {kind:?} in call {nth} --"));
        self.faults.arm(nth, kind);
        let call = write.call(a, &self.driver, &scene);
        let answer = self.cx.within(ENDS, format!("{write:?} {how}"), call).await;
        let (met, answer) = (self.faults.disarm(), answer?);
        if let Err(e) = &answer {
            let what = format!("{write:?} {how}");
            of_the_medium(&what, e)?;
            if let Some(told) = self.told {
                self.cx
                    .eq(format!("{what}: {}", describe(e)), &e.kind(), &told)?;
            }
        }
        let after = Watched::after(self.cx, scene, write, Some(&answer), true, &how);
        for handle in [a, b] {
            after.look(handle).await?;
        }
        self.watched.lock().await.push(after);
        Ok(met)
    }

    /// A read that fails says so, and has no outcome but one; a read that does not fail is right.
    async fn read(
        &self,
        read: Read,
        scene: &Scene,
        nth: u64,
        kind: FaultKind,
    ) -> Result<bool, Stop> {
        let (a, _) = &mut *self.handles.lock().await;
        let what = format!("{read:?} with {kind:?} in call {nth} to the medium");
        self.faults.disarm();
        self.faults.arm(nth, kind);
        let answer = self
            .cx
            .within(ENDS, what.clone(), read.call(a, scene))
            .await;
        let met = self.faults.disarm();
        match answer? {
            Ok(answer) => self.cx.eq(what.clone(), &answer, &read.right(scene))?,
            Err(failed) => no_outcome(&what, &failed.error)?,
        }
        // And the next one is right again.
        let again = there(async || read.call(a, scene).await).await?;
        let right = read.right(scene);
        let what = format!("{read:?} after {what}");
        self.cx.eq(what, &again.as_deref(), &Some(&right[..]))?;
        Ok(met)
    }

    /// The list of names, which is right or an error, and right again once the medium is.
    async fn names(&self, nth: u64, kind: FaultKind) -> Result<bool, Stop> {
        let Some(driver) = &self.driver else {
            return Ok(false);
        };
        let list = async || driver.collections().await.map_err(DriverError);
        self.faults.disarm();
        let right = there(list).await?;
        let what = format!("collections() with {kind:?} in call {nth} to the medium");
        self.faults.arm(nth, kind);
        let answer = self.cx.within(ENDS, what.clone(), list()).await;
        let met = self.faults.disarm();
        match answer? {
            Ok(answer) => self.cx.eq(what.clone(), &Some(answer), &right)?,
            Err(e) => no_outcome(&what, e.as_ref())?,
        }
        let what = format!("collections() after {what}");
        self.cx.eq(what, &there(list).await?, &right)?;
        Ok(met)
    }

    /// Whatever was done, no state changes any more from a known one to another.
    async fn watch(&self, time: Duration) -> Outcome {
        self.cx.settle().await;
        let (a, b) = &mut *self.handles.lock().await;
        watch(&mut [a, b], &self.watched.lock().await, time).await
    }
}

/// Fails unless the error of a read is `NotApplied`, and of a kind that a medium can be the cause of.
pub(super) fn no_outcome(what: &str, e: &StashError) -> Outcome {
    if e.outcome() != Effect::NotApplied {
        let expected = "NotApplied, as of every read";
        return Err(Stop::fail(what, describe(e), expected));
    }
    of_the_medium(what, e)
}

pub(super) async fn c_1_1(cx: &Cx<dyn World>) -> Outcome {
    let (mut a, mut b) = cx.open_two("p").await?;
    let kept = refusals(cx, &mut a, &mut b).await?;
    let stage = match Stage::new(cx).await {
        Ok(stage) => stage,
        Err(without) => {
            watch(&mut [&mut a, &mut b], &[kept], WATCH).await?;
            return Err(without);
        }
    };
    stage.watched.lock().await.push(kept);
    let mut met = 0;
    for write in writes(&stage.driver) {
        for kind in ERRORS {
            met += stage.each(write, kind).await?;
        }
    }
    stage.faults.disarm();
    let scene = Scene::new(&mut b, "reads").await?;
    let faults = stage.faults.as_ref();
    for read in READS {
        for kind in ERRORS {
            met += each_met(faults, kind, |nth| stage.read(read, &scene, nth, kind)).await?;
        }
    }
    for kind in ERRORS {
        met += each_met(faults, kind, |nth| stage.names(nth, kind)).await?;
    }
    enough(met)?;
    stage.watch(WATCH).await
}

/// Every refusal that arguments alone can provoke; what they must have left alone.
async fn refusals(cx: &Cx<dyn World>, a: &mut Handle, b: &mut Handle) -> Result<Watched, Stop> {
    use ErrorKind::{InvalidInput, NotFound};
    let scene = Scene::new(b, "refused").await?;
    let [c, d] = scene.ids;
    let late = |time| vec![row("new", "v", 12, 1), row("new", "w", time, 1)];
    for time in [9, Timestamp::MIN] {
        let result = a.update_many(c, late(time)).await;
        refused("an update with a sealed time", result, InvalidInput)?;
        let result = b.update(c, ("new".into(), "v".into()), time, 1).await;
        refused("an update at a sealed time", result, InvalidInput)?;
    }
    refused("a seal back", a.seal(c, at(9)).await, InvalidInput)?;
    refused("a compaction back", b.compact(c, at(1)).await, InvalidInput)?;
    for since in [at(11), empty()] {
        let result = a.compact(c, since).await;
        refused("a compaction past upper", result, InvalidInput)?;
    }
    let result = a.seal_batch(&[(c, at(9)), (d, at(15))]).await;
    refused("a batch whose first item seals back", result, InvalidInput)?;
    let result = b.compact_batch(&[(c, at(1)), (d, at(5))]).await;
    refused(
        "a batch whose first item compacts back",
        result,
        InvalidInput,
    )?;
    let none: Names = StashCollection::new(CollectionId::new(u64::MAX));
    refused(
        "a row for no collection",
        a.update_many(none, late(12)).await,
        NotFound,
    )?;
    refused(
        "a seal of no collection",
        b.seal(none, at(12)).await,
        NotFound,
    )?;
    refused(
        "no collection, consolidated",
        a.consolidate(none).await,
        NotFound,
    )?;
    let result = a.consolidate_batch(&[none, c]).await;
    refused("a batch whose first item is none", result, NotFound)?;
    refused("the rows of no collection", b.iter(none).await, NotFound)?;
    refused("upper of no collection", a.upper(none).await, NotFound)?;
    let moods: StashCollection<u64, Moody> = a.collection("moods").await?;
    let rows = vec![((1, Moody::Good), 1, 1), ((1, Moody::Bad), 1, 1)];
    let result = a.update_many(moods, rows).await;
    refused("a row that will not be encoded", result, InvalidInput)?;
    cx.eq("the rows of its batch", &b.iter(moods).await?, &Vec::new())?;
    unreadable(a, b).await?;
    let name = "n".repeat(cx.caps.stash.name_len_bytes_max.min(1 << 20) + 1);
    if name.len() > cx.caps.stash.name_len_bytes_max {
        let result = a.collection::<String, String>(&name).await;
        refused("a name above the bound", result, InvalidInput)?;
    }
    Ok(Watched {
        allowed: scene.states(Write::Update, true)[..1].to_vec(),
        scene,
        story: "refusals that were all NotApplied".into(),
    })
}

/// States that some of the reads refuse.
async fn unreadable(a: &mut Handle, b: &mut Handle) -> Outcome {
    use ErrorKind::InvalidInput;
    let c: Names = a.collection("not to be read").await?;
    let k = "k".to_owned();
    refused("a peek before a seal", b.peek(c).await, InvalidInput)?;
    refused("its time", b.peek_timestamp(c).await, InvalidInput)?;
    let rows = vec![row("k", "v", 1, 1), row("k", "w", 1, 1)];
    a.update_many(c, rows).await?;
    a.seal(c, at(2)).await?;
    refused("one of two values", b.peek_one(c).await, InvalidInput)?;
    refused(
        "one of two values",
        b.peek_key_one(c, &k).await,
        InvalidInput,
    )?;
    a.update_many(c, vec![row("k", "v", 2, Diff::MAX); 2])
        .await?;
    refused("a sum that does not fit", b.iter(c).await, InvalidInput)?;
    refused(
        "a sum that does not fit",
        b.iter_key(c, &k).await,
        InvalidInput,
    )?;
    a.seal(c, empty()).await?;
    a.compact(c, empty()).await?;
    refused("rows with an empty since", b.iter(c).await, InvalidInput)
}

pub(super) async fn c_1_2(cx: &Cx<dyn World>) -> Outcome {
    let stage = Stage::new(cx).await?;
    let mut met = 0;
    let mut all = vec![Write::UpdateMany, Write::Seal];
    if stage.driver.is_some() {
        all.push(Write::Append);
    }
    // The same error at the same call, before it and after: the look behind each of them tells the two apart.
    for write in all {
        for kind in ERRORS {
            met += stage.each(write, kind).await?;
        }
    }
    enough(met)?;
    stage.watch(Duration::ZERO).await
}

/// The batches under faults, as far as the medium of this world can be made to fail.
pub(super) async fn batches(cx: &Cx<dyn World>, all: &[Write]) -> Outcome {
    if cx.world().faults().is_none() {
        return Ok(());
    }
    let stage = Stage::new(cx).await?;
    for write in all {
        for kind in ERRORS {
            stage.each(*write, kind).await?;
        }
    }
    stage.watch(Duration::ZERO).await
}

pub(super) async fn st_13_3(cx: &Cx<dyn World>) -> Outcome {
    let stage = Stage::new(cx).await?;
    let faults = stage.faults.as_ref();
    let mut met = 0;
    // A sum tells how often an update was applied: the rows of the writes are there once, or not at all.
    for write in [Write::Update, Write::UpdateMany] {
        for kind in ERRORS {
            met += stage.each(write, kind).await?;
        }
    }
    for kind in ERRORS {
        met += each_met(faults, kind, |nth| created(&stage, nth, kind)).await?;
        if stage.driver.is_some() {
            met += stage.each(Write::Append, kind).await?;
            met += each_met(faults, kind, |nth| appended(&stage, nth, kind)).await?;
            met += each_met(faults, kind, |nth| discarded(&stage, nth, kind)).await?;
        }
    }
    enough(met)?;
    stage.watch(WATCH).await
}

/// A caller that repeats an append until it is answered with `Ok`, or finds that it went through.
async fn appended(stage: &Stage<'_>, nth: u64, kind: FaultKind) -> Result<bool, Stop> {
    const TRIES: usize = 10;
    let Some(driver) = &stage.driver else {
        return Ok(false);
    };
    let (a, b) = &mut *stage.handles.lock().await;
    stage.faults.disarm();
    let scene = Scene::new(b, &format!("repeated {kind:?} {nth}")).await?;
    let append = scene
        .append()
        .map_err(|e| Stop::error("encoding an append", &e))?;
    let how = format!("repeated, with {kind:?} in call {nth} to the medium");
    stage.faults.arm(nth, kind);
    let mut met = false;
    let mut through = false;
    for _ in 0..TRIES {
        let call = driver.append(append.clone());
        let result = stage
            .cx
            .within(ENDS, format!("an append, {how}"), call)
            .await?;
        met |= stage.faults.disarm();
        let shown = match &result {
            Ok(()) => "Ok".into(),
            Err(e) => describe(e),
        };
        stage.cx.log().push(format!("driver.append -> {shown}"));
        through = matches!(result, Ok(()) | Err(StashError::UpperMismatch { .. }));
        if through {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let what = format!("an append, {how}");
    let expected = "Ok, or UpperMismatch where it went through";
    stage.cx.require(
        through,
        what,
        format!("neither after {TRIES} tries"),
        expected,
    )?;
    let after = Watched::after(stage.cx, scene, Write::Append, Some(&Ok(())), true, &how);
    for handle in [a, b] {
        after.look(handle).await?;
    }
    stage.watched.lock().await.push(after);
    Ok(met)
}

/// A creation whose answer is lost does not make two collections of one name.
async fn created(stage: &Stage<'_>, nth: u64, kind: FaultKind) -> Result<bool, Stop> {
    let cx = stage.cx;
    let (a, b) = &mut *stage.handles.lock().await;
    let name = format!("created {kind:?} {nth}");
    let what = format!("a creation with {kind:?} in call {nth} to the medium");
    stage.faults.disarm();
    stage.faults.arm(nth, kind);
    let call = a.collection::<String, String>(&name);
    let answer = cx.within(ENDS, what.clone(), call).await;
    let met = stage.faults.disarm();
    let answer = answer?;
    let listed = match &stage.driver {
        Some(driver) => {
            let names = driver.collections().await;
            let names = names.map_err(|e| Stop::error("collections()", &e))?;
            Some(names.iter().filter(|(found, _)| *found == name).count())
        }
        None => None,
    };
    let refused = matches!(&answer, Err(e) if e.outcome() == Effect::NotApplied);
    let possible = match listed {
        Some(0) => answer.is_err(),
        Some(1) => !refused,
        Some(_) => false,
        None => true,
    };
    cx.require(
        possible,
        format!("how often the name is listed after {what}"),
        format!("{listed:?}, the answer being {}", brief(&answer)),
        "once, or never after an error; never after NotApplied",
    )?;
    let mut ids = Vec::new();
    for handle in [a, b] {
        let c: Option<Names> = there(async || handle.collection(&name).await).await?;
        ids.extend(c.map(|c| c.id()));
    }
    ids.extend(answer.ok().map(|c| c.id()));
    ids.dedup();
    cx.require(
        ids.len() == 1,
        format!("the ids of one name after {what}"),
        brief(&ids),
        "one",
    )?;
    Ok(met)
}

/// A drop whose answer is lost does not say that there was nothing to drop.
async fn discarded(stage: &Stage<'_>, nth: u64, kind: FaultKind) -> Result<bool, Stop> {
    let (cx, Some(driver)) = (stage.cx, &stage.driver) else {
        return Ok(false);
    };
    let (a, b) = &mut *stage.handles.lock().await;
    let name = format!("discarded {kind:?} {nth}");
    let what = format!("a drop with {kind:?} in call {nth} to the medium");
    stage.faults.disarm();
    let c: Option<Names> = there(async || b.collection(&name).await).await?;
    let c = c.ok_or_else(|| Stop::fail("collection", "NoCollection", "a collection"))?;
    b.update(c, ("k".into(), "v".into()), 1, 1).await?;
    stage.faults.arm(nth, kind);
    let call = driver.drop_collection(&name);
    let answer = cx.within(ENDS, what.clone(), call).await;
    let met = stage.faults.disarm();
    let answer = answer?;
    cx.log().push(format!("driver.drop -> {}", brief(&answer)));
    let list = there(async || driver.collections().await.map_err(DriverError)).await?;
    let is_there = list.is_some_and(|list| list.iter().any(|(found, _)| *found == name));
    // What is of no known outcome may still arrive.
    let expected = match &answer {
        Ok(true) => Some(false),
        Ok(false) => {
            let observed = "false: there was none";
            let expected = "true, or an error: it was there, and nobody else dropped it";
            return Err(Stop::fail(what, observed, expected));
        }
        Err(e) => {
            of_the_medium(&what, e)?;
            (e.outcome() == Effect::NotApplied).then_some(true)
        }
    };
    let Some(expected) = expected else {
        return Ok(met);
    };
    let answer = brief(&answer);
    let what = format!("whether the collection is there after {what}, the answer being {answer}");
    cx.eq(format!("{what}: in the list"), &is_there, &expected)?;
    for handle in [a, b] {
        let rows = there(async || handle.iter(c).await).await?;
        cx.eq(format!("{what}: iter"), &rows.is_some(), &expected)?;
    }
    Ok(met)
}

pub(super) async fn st_13_5(cx: &Cx<dyn World>) -> Outcome {
    let no_space = cx.world().no_space();
    let no_space = no_space.ok_or_else(|| Stop::Ignored("needs the power no_space()".into()))?;
    let stage = Stage {
        cx,
        faults: Arc::clone(&no_space),
        driver: cx.driver_if_any("p").await?,
        told: Some(ErrorKind::NoSpace),
        handles: Mutex::new(cx.open_two("p").await?),
        watched: Mutex::default(),
    };
    let mut met = 0;
    for write in [Write::UpdateMany, Write::SealBatch, Write::Consolidate] {
        met += each_met(no_space.as_ref(), FaultKind::ErrorBefore, |nth| {
            full(&stage, write, nth)
        })
        .await?;
    }
    enough(met)?;
    stage.watch(Duration::ZERO).await
}

/// A write for which there is no room, and once there is room again, the same and others.
async fn full(stage: &Stage<'_>, write: Write, nth: u64) -> Result<bool, Stop> {
    let met = stage.write(write, nth, FaultKind::ErrorBefore).await?;
    let (a, b) = &mut *stage.handles.lock().await;
    for handle in [&mut *a, &mut *b] {
        let scene = Scene::new(handle, &format!("{write:?} {nth} {}", handle.name())).await?;
        let result = write.call(handle, &stage.driver, &scene).await;
        let how = format!("once there is room again, after {nth} writes");
        result.map_err(|e| Stop::error(format!("{write:?} {how}"), &e))?;
        let after = Watched::after(stage.cx, scene, write, Some(&Ok(())), true, &how);
        after.look(handle).await?;
        stage.watched.lock().await.push(after);
    }
    Ok(met)
}
