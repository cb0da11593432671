//! The bodies of the checks on a medium that fails, and on a clock that jumps: C-1, C-5, BS-7, BS-12 and BS-15.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use larder_traits::{
    AlignedBlobBuf, BlobGuid, BlobStoreError, Classify, Clock, Durability, ErrorKind,
    Outcome as Effect,
};

use super::content::{Content, frame, own_frame};
use super::guid;
use crate::blob_store::{Batch, Handle, World};
use crate::check::{Outcome, Stop, describe};
use crate::checks::of_the_medium;
use crate::cx::Cx;
use crate::engine::fault::{each_met, enough};
use crate::fixture::{FaultKind, Faults};

/// How long what claims to have had no effect is watched.
const WATCHED: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    One,
    Batch,
    Delete,
}

impl Write {
    /// Without data-sync: where it was the sync that failed, the store has to be opened again (BS-12).
    const ALL: [Self; 3] = [Self::One, Self::Batch, Self::Delete];

    fn call(self, handle: &Handle, name: BlobGuid, tag: u64) -> Result<(), BlobStoreError> {
        let src = frame(tag);
        match self {
            Self::One => handle.try_write(name, tag),
            Self::Batch => handle.try_write_all(Batch::Plain, &[(name, &src)]),
            Self::Delete => handle.try_delete(name),
        }
    }

    /// What the blob is after it.
    fn after(self, tag: u64) -> Content {
        match self {
            Self::Delete => Content::Absent,
            _ => Content::Frame(tag),
        }
    }
}

/// What the checks of this file share: a failing medium, the handle that meets it, and one that looks.
struct Bench<'a> {
    cx: &'a Cx<dyn World>,
    faults: Arc<dyn Faults>,
    a: Handle,
    b: Handle,
    next: AtomicU64,
    met: AtomicU64,
    /// Blobs whose call said that it had no effect, and what they were before it.
    unchanged: Mutex<Vec<(BlobGuid, Content)>>,
}

impl<'a> Bench<'a> {
    async fn new(cx: &'a Cx<dyn World>) -> Result<Self, Stop> {
        let faults = cx.faults()?;
        let (a, b) = cx.open_two("p").await?;
        Ok(Self {
            cx,
            faults,
            a,
            b,
            next: AtomicU64::new(1_000),
            met: AtomicU64::new(0),
            unchanged: Mutex::default(),
        })
    }

    fn arm(&self, nth: u64, kind: FaultKind) {
        self.cx.log().push(format!("{kind:?} at call {nth}"));
        self.faults.arm(nth, kind);
    }

    /// Every call to the medium that this write makes goes wrong once.
    async fn each_write(&self, write: Write, kind: FaultKind, is_there: bool) -> Outcome {
        let attempt = |nth| async move { self.write(write, kind, is_there, nth) };
        let met = each_met(&*self.faults, kind, attempt).await?;
        self.met.fetch_add(met, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, write: Write, kind: FaultKind, is_there: bool, nth: u64) -> Result<bool, Stop> {
        let tag = self.next.fetch_add(2, Ordering::Relaxed);
        let name = guid(tag.into());
        // What comes before the call in question is not to fail.
        self.faults.disarm();
        let old = if is_there {
            self.a.write(name, tag + 1)?;
            Content::Frame(tag + 1)
        } else {
            Content::Absent
        };
        self.arm(nth, kind);
        let result = write.call(&self.a, name, tag);
        let met = self.faults.disarm();
        let what = format!("{write:?} with {kind:?} at its call {nth} to the medium");
        let (seen, after) = (self.b.content(name)?, write.after(tag));
        for reader in [&self.a, &self.b] {
            let named = (reader.list()?.contains(&name), reader.has(name)?);
            let is_there = seen != Content::Absent;
            self.cx.require(
                named == (is_there, is_there),
                format!("{what}: whether it is listed, and whether has_blob finds it"),
                format!("{named:?}"),
                format!("as it is read, which is {seen}"),
            )?;
        }
        let Err(e) = result else {
            self.cx
                .eq(format!("{what}, which was Ok: the blob"), &seen, &after)?;
            return Ok(met);
        };
        of_the_medium(&what, &e)?;
        if e.outcome() == Effect::Unknown {
            self.cx.require(
                seen == old || seen == after,
                format!("{what}, which was Unknown: the blob"),
                seen.to_string(),
                format!("{old} or {after}"),
            )?;
        } else {
            let what = format!("{what}, which was NotApplied: the blob");
            self.cx.eq(what, &seen, &old)?;
            let mut unchanged = self
                .unchanged
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            unchanged.push((name, old));
        }
        Ok(met)
    }

    fn read_failed(&self, what: &str, e: &BlobStoreError) -> Outcome {
        of_the_medium(what, e)?;
        let expected = "an error of a read is NotApplied";
        self.cx.require(
            e.outcome() == Effect::NotApplied,
            what,
            describe(e),
            expected,
        )
    }

    /// Every call to the medium that reads make goes wrong once: an error, or the right answer.
    async fn each_read(&self, kind: FaultKind) -> Outcome {
        let names = [guid(1), guid(2), guid(3)];
        self.faults.disarm();
        self.a.write(names[0], 1)?;
        self.a.write(names[1], 2)?;
        let read = |nth| async move {
            self.arm(nth, kind);
            let mut answers = Vec::new();
            for name in names {
                let mut dst = frame(77);
                let answer = self.a.store().read_blob(name, &mut dst);
                answers.push((name, answer.map(|()| Content::of(&dst))));
            }
            let met = self.faults.disarm();
            for ((name, answer), tag) in answers.into_iter().zip([Some(1), Some(2), None]) {
                let what = format!("read_blob({name}) with {kind:?} at call {nth} to the medium");
                match answer {
                    Ok(seen) if Some(&seen) == tag.map(Content::Frame).as_ref() => {}
                    Ok(seen) => {
                        let expected = "an error, or the frame of this blob";
                        return Err(Stop::fail(what, seen.to_string(), expected));
                    }
                    Err(e) if tag.is_none() && e.kind() == ErrorKind::NotFound => {}
                    Err(e) => self.read_failed(&what, &e)?,
                }
            }
            Ok(met)
        };
        let met = each_met(&*self.faults, kind, read).await?;
        self.met.fetch_add(met, Ordering::Relaxed);

        let many = |nth| async move { self.many_reads(&names, kind, nth) };
        let met = each_met(&*self.faults, kind, many).await?;
        self.met.fetch_add(met, Ordering::Relaxed);

        let ask = |nth| async move {
            self.arm(nth, kind);
            let list = self.a.store().list_blobs();
            let has = names.map(|name| self.a.store().has_blob(name));
            let met = self.faults.disarm();
            let what = format!("list_blobs() with {kind:?} at call {nth} to the medium");
            match list {
                Ok(list) => {
                    let is_whole = list.contains(&names[0])
                        && list.contains(&names[1])
                        && !list.contains(&names[2]);
                    let observed = format!("{} blobs, not the right ones", list.len());
                    let expected = "an error, or all blobs";
                    self.cx.require(is_whole, what, observed, expected)?;
                }
                Err(e) => self.read_failed(&what, &e)?,
            }
            for ((name, has), expected) in names.iter().zip(has).zip([true, true, false]) {
                let what = format!("has_blob({name}) with {kind:?} at call {nth}, or before it");
                match has {
                    Ok(has) => self.cx.eq(what, &has, &expected)?,
                    Err(e) => self.read_failed(&what, &e)?,
                }
            }
            Ok(met)
        };
        let met = each_met(&*self.faults, kind, ask).await?;
        self.met.fetch_add(met, Ordering::Relaxed);
        for (name, tag) in names.into_iter().zip([Some(1), Some(2), None]) {
            self.b.expect("once the medium works again", name, tag)?;
        }
        Ok(())
    }

    /// As each_read has it, in one call and by parts.
    fn many_reads(&self, names: &[BlobGuid; 3], kind: FaultKind, nth: u64) -> Result<bool, Stop> {
        const PART: std::ops::Range<usize> = 300_000..300_999;
        self.arm(nth, kind);
        let all = self.a.read_all(names);
        let parts = names.map(|name| {
            let mut dst = vec![0xaa; PART.len()];
            let answer = self.a.try_read_range(name, PART.start, &mut dst);
            answer.map(|()| dst)
        });
        let met = self.faults.disarm();
        let is_there = [Some(1), Some(2), None];
        for ((answer, tag), name) in all?.into_iter().zip(is_there).zip(names) {
            let what = format!("read_blobs, of it {name}, with {kind:?} at call {nth}");
            match answer {
                Ok(seen) => {
                    let expected = tag.map_or(Content::Absent, Content::Frame);
                    self.cx.eq(what, &seen, &expected)?;
                }
                Err(e) if tag.is_none() && e.kind() == ErrorKind::NotFound => {}
                Err(e) => self.read_failed(&what, &e)?,
            }
        }
        for ((answer, tag), name) in parts.into_iter().zip(is_there).zip(names) {
            let what = format!("read_blob_range({name}) with {kind:?} at call {nth}, or before it");
            match answer {
                Ok(seen) => self.cx.require(
                    tag.is_some_and(|tag| seen == frame(tag)[PART]),
                    what,
                    "other bytes",
                    "an error, or the part of this blob",
                )?,
                Err(e) if tag.is_none() && e.kind() == ErrorKind::NotFound => {}
                Err(e) => self.read_failed(&what, &e)?,
            }
        }
        Ok(met)
    }

    /// Watches for a while that nothing arrives of what was NotApplied, and that something was met at all.
    async fn watch(&self) -> Outcome {
        let unchanged = {
            let mut unchanged = self
                .unchanged
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *unchanged)
        };
        let started = Instant::now();
        while !unchanged.is_empty() && started.elapsed() < WATCHED {
            for (name, old) in &unchanged {
                let what = format!("{name}, whose call was NotApplied, within {WATCHED:?}");
                self.cx.eq(what, &self.b.content(*name)?, old)?;
            }
            tokio::time::sleep(WATCHED / 5).await;
        }
        // Nothing is left behind that would stop the next call.
        self.a.write(guid(999), 999)?;
        self.a.flush()?;
        self.b.expect("after all faults", guid(999), Some(999))?;
        enough(self.met.load(Ordering::Relaxed))
    }
}

pub(super) async fn c_1_1(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    for write in Write::ALL {
        for is_there in [true, false] {
            let kind = FaultKind::ErrorBefore;
            bench.each_write(write, kind, is_there).await?;
        }
    }
    bench.each_read(FaultKind::ErrorBefore).await?;
    bench.watch().await
}

pub(super) async fn c_1_2(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    for write in Write::ALL {
        // The same error at the same call, once in front of its effect and once behind it.
        for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
            bench.each_write(write, kind, true).await?;
        }
    }
    bench.watch().await
}

pub(super) async fn bs_15_3(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
        bench.each_read(kind).await?;
    }
    enough(bench.met.load(Ordering::Relaxed))
}

pub(super) async fn bs_15_2(cx: &Cx<dyn World>) -> Outcome {
    let bench = Bench::new(cx).await?;
    bench.a.write(guid(1), 1)?;
    bench.a.write(guid(2), 2)?;
    bench.a.flush()?;
    // What each blob must be in the end.
    let done = &Mutex::new(Vec::new());
    for write in Write::ALL {
        let bench = &bench;
        let attempt = |nth| async move {
            let tag = bench.next.fetch_add(2, Ordering::Relaxed);
            let name = guid(tag.into());
            bench.faults.disarm();
            bench.a.write(name, tag + 1)?;
            bench.arm(nth, FaultKind::ErrorBefore);
            let result = write.call(&bench.a, name, tag);
            let met = bench.faults.disarm();
            let what = format!("{write:?} after its call {nth} to the medium found no room");
            for reader in [&bench.a, &bench.b] {
                reader.expect(&what, guid(1), Some(1))?;
                reader.expect(&what, guid(2), Some(2))?;
            }
            if result.is_err() {
                // There is room again.
                let again = write.call(&bench.a, name, tag);
                again.map_err(|e| Stop::error(format!("{what}, and then did"), &e))?;
            }
            let what = format!("{what}, and then did");
            cx.eq(&*what, &bench.b.content(name)?, &write.after(tag))?;
            bench.a.flush()?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((name, write.after(tag)));
            Ok(met)
        };
        let met = each_met(&*bench.faults, FaultKind::ErrorBefore, attempt).await?;
        bench.met.fetch_add(met, Ordering::Relaxed);
    }
    enough(bench.met.load(Ordering::Relaxed))?;
    if cx.caps.durability == Durability::None {
        return Ok(());
    }
    let Bench { a, b, .. } = bench;
    let (a, _b) = cx.reopen("p", [a, b]).await?;
    a.expect("flushed before there was no room", guid(1), Some(1))?;
    a.expect("flushed before there was no room", guid(2), Some(2))?;
    let done = std::mem::take(&mut *done.lock().unwrap_or_else(PoisonError::into_inner));
    for (name, expected) in done {
        let what = format!("{name}, flushed once there was room");
        cx.eq(what, &a.content(name)?, &expected)?;
    }
    Ok(())
}

pub(super) async fn bs_7_2(cx: &Cx<dyn World>) -> Outcome {
    let bench = &Bench::new(cx).await?;
    for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
        let attempt = |nth| async move { half_a_batch(bench, kind, nth) };
        let met = each_met(&*bench.faults, kind, attempt).await?;
        bench.met.fetch_add(met, Ordering::Relaxed);
    }
    enough(bench.met.load(Ordering::Relaxed))
}

/// A batch over old blobs and new ones whose `nth` call to the medium goes wrong; whether it did.
fn half_a_batch(bench: &Bench<'_>, kind: FaultKind, nth: u64) -> Result<bool, Stop> {
    const LEN: u64 = 6;
    let cx = bench.cx;
    let first = bench.next.fetch_add(4 * LEN, Ordering::Relaxed);
    let name = |at: u64| guid((first + at).into());
    let old = |at: u64| match at % 3 {
        2 => Content::Absent,
        _ => Content::Frame(first + LEN + at),
    };
    bench.faults.disarm();
    for at in (0..LEN).filter(|at| at % 3 != 2) {
        bench.a.write(name(at), first + LEN + at)?;
    }
    let sources: Vec<AlignedBlobBuf> = (0..LEN)
        .map(|at| match at % 2 {
            0 => frame(first + at),
            _ => own_frame(&**bench.a.store(), first + at),
        })
        .collect();
    let batch: Vec<_> = (0..LEN).map(name).zip(&sources).collect();
    bench.arm(nth, kind);
    let result = bench.a.try_write_all(Batch::Plain, &batch);
    let met = bench.faults.disarm();
    let what = format!("write_blobs with {kind:?} at call {nth} to the medium");
    let seen = (0..LEN).map(|at| bench.b.content(name(at)));
    let seen = seen.collect::<Result<Vec<_>, Stop>>()?;
    let landed = (0..LEN).zip(&seen);
    let landed = landed.take_while(|(at, seen)| **seen == Content::Frame(first + at));
    let landed = landed.count();
    for (at, seen) in (0..LEN).zip(&seen).skip(landed) {
        let what = format!("{what}: frame {at} of the batch, of which {landed} landed");
        cx.eq(what, seen, &old(at))?;
    }
    if let Err(e) = result {
        of_the_medium(&what, &e)?;
        cx.require(
            e.outcome() == Effect::Unknown || landed == 0,
            &*what,
            format!("{landed} frames landed, and {}", describe(&e)),
            "Unknown, or no effect",
        )?;
        // The whole batch once more heals it, whatever came between, and so does one of the same names.
        if nth.is_multiple_of(2) {
            for at in 0..LEN / 2 {
                bench.b.write(name(at), first + 2 * LEN + at)?;
            }
        } else {
            let others: Vec<_> = (0..LEN).map(|at| frame(first + 3 * LEN + at)).collect();
            let others: Vec<_> = (0..LEN).map(name).zip(&others).collect();
            bench.a.write_all(Batch::Plain, &others)?;
            for at in 0..LEN {
                let what = "after another batch of the same names";
                bench.b.expect(what, name(at), Some(first + 3 * LEN + at))?;
            }
        }
        bench.a.write_all(Batch::Plain, &batch)?;
    } else {
        cx.eq(
            format!("{what}, which was Ok: frames that landed"),
            &landed,
            &batch.len(),
        )?;
    }
    for at in 0..LEN {
        bench
            .b
            .expect("after the whole batch", name(at), Some(first + at))?;
    }
    Ok(met)
}

pub(super) async fn bs_12_1(cx: &Cx<dyn World>) -> Outcome {
    let faults = &cx.faults()?;
    let unknown = &AtomicU64::new(0);
    let refused = &AtomicU64::new(0);
    let mut met = 0;
    for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
        let attempt = |nth| failed_flush(cx, &**faults, kind, nth, (unknown, refused));
        met += each_met(&**faults, kind, attempt).await?;
    }
    enough(met)?;
    if unknown.load(Ordering::Relaxed) == 0 {
        // One of the calls that went wrong was the sync itself.
        cx.require(
            refused.load(Ordering::Relaxed) == 0,
            "flushes of which each call to the medium went wrong once",
            "each that failed says NotApplied, the one whose sync went wrong among them",
            "Unknown where the sync went wrong: nobody knows what is on the medium",
        )?;
        let why = "no flush ended as Unknown, so what follows one was not seen";
        return Err(Stop::Inconclusive(why.into()));
    }
    Ok(())
}

/// A flush whose `nth` call to the medium goes wrong, in a place of its own; whether it did.
async fn failed_flush(
    cx: &Cx<dyn World>,
    faults: &dyn Faults,
    kind: FaultKind,
    nth: u64,
    (unknown, refused): (&AtomicU64, &AtomicU64),
) -> Result<bool, Stop> {
    faults.disarm();
    let order = match kind {
        FaultKind::ErrorBefore => "before",
        _ => "after",
    };
    let place = format!("{order}/{nth}");
    let a = cx.open(&place).await?;
    for at in 1..=3 {
        a.write(guid(at.into()), at)?;
    }
    a.flush()?;
    a.write(guid(1), 11)?;
    a.delete(guid(3))?;
    a.write(guid(4), 4)?;
    cx.log().push(format!("{kind:?} at call {nth}"));
    faults.arm(nth, kind);
    let result = a.store().flush();
    let met = faults.disarm();
    let what = format!("flush() with {kind:?} at its call {nth} to the medium");
    cx.log().push(match &result {
        Ok(()) => "flush() -> Ok".into(),
        Err(e) => format!("flush() -> {}", describe(e)),
    });
    let mut is_unknown = false;
    match result {
        Ok(()) => {}
        Err(e) if e.outcome() == Effect::NotApplied => {
            refused.fetch_add(1, Ordering::Relaxed);
            a.flush()?;
        }
        Err(_) => {
            is_unknown = true;
            unknown.fetch_add(1, Ordering::Relaxed);
            // A sync that is asked again may say Ok and mean nothing: only an open brings the store back.
            let src = frame(5);
            let batch = |how| a.try_write_all(how, &[(guid(5), &src), (guid(2), &src)]);
            let refused = [
                ("a flush", a.store().flush()),
                ("a write", a.try_write(guid(5), 5)),
                ("a batch", batch(Batch::Plain)),
                ("a batch with data-sync", batch(Batch::DataSync)),
                ("a delete", a.try_delete(guid(2))),
                ("a second flush", a.store().flush()),
            ];
            for (call, result) in refused {
                cx.require(
                    result.is_err(),
                    format!("{call} after {what} was Unknown"),
                    "Ok",
                    "refused until the store is opened again",
                )?;
            }
        }
    }
    let (a, b) = cx.reopen(&place, [a]).await?;
    let states: [(u128, &[Content]); 4] = [
        (1, &[Content::Frame(11), Content::Frame(1)]),
        (2, &[Content::Frame(2)]),
        (3, &[Content::Absent, Content::Frame(3)]),
        (4, &[Content::Frame(4), Content::Absent]),
    ];
    for (name, states) in states {
        let states = if is_unknown { states } else { &states[..1] };
        let seen = a.content(guid(name))?;
        cx.require(
            states.contains(&seen),
            format!("blob {name} after {what}, reopened"),
            seen.to_string(),
            states
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" or "),
        )?;
    }
    a.write(guid(6), 6)?;
    a.flush()?;
    b.expect("after the store was opened again", guid(6), Some(6))?;
    Ok(met)
}

pub(super) async fn c_5_1(cx: &Cx<dyn World>) -> Outcome {
    const HOUR: Duration = Duration::from_secs(3_600);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    let clock = cx.clock()?;
    let (a, b) = cx.open_two("p").await?;
    let now = clock.now();
    let jumps = [
        ("at first", now),
        ("a year ahead", now + YEAR),
        ("an hour back", now + YEAR - HOUR),
        ("years back", SystemTime::UNIX_EPOCH + HOUR),
        ("another hour back", SystemTime::UNIX_EPOCH),
        ("now again", now),
    ];
    a.write(guid(1), 1)?;
    for ((what, to), tag) in jumps.into_iter().zip(100_u64..) {
        cx.log().push(format!("clock = {to:?}"));
        clock.set(to);
        b.expect(what, guid(1), Some(1))?;
        a.write(guid(2), tag)?;
        b.expect(what, guid(2), Some(tag))?;
        a.flush()?;
        b.delete(guid(2))?;
        a.expect(what, guid(2), None)?;
        a.write(guid(tag.into()), tag)?;
        cx.eq("has_blob()", &b.has(guid(tag.into()))?, &true)?;
        for earlier in 100..=tag {
            b.expect(what, guid(earlier.into()), Some(earlier))?;
        }
    }
    Ok(())
}
