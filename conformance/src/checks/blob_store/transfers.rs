//! BS-15: transfers that are cut short or interrupted.

use std::collections::BTreeMap;

use larder_traits::{BlobStoreError, Classify, ErrorKind, Outcome as Effect};

use super::content::{Content, frame};
use super::guid;
use crate::blob_store::{Batch, Handle, World};
use crate::check::{Outcome, Stop, describe};
use crate::checks::of_the_medium;
use crate::cx::Cx;
use crate::engine::fault::enough;
use crate::engine::transfers::{Medium, Wrong};
use crate::fixture::Folders;
use crate::profile::Profile;

/// How many blobs there are before anything goes wrong.
const BLOBS: u64 = 4;

/// More calls to the medium than a few frames may need.
const CALLS_MAX: u64 = 400;

/// What each blob may be, by its number.
type May = BTreeMap<u64, Vec<Content>>;

/// Everything that is there at first, flushed.
fn at_first() -> May {
    let held = (0..BLOBS).map(|at| (at, vec![Content::Frame(at)]));
    held.chain([(BLOBS, vec![Content::Absent])]).collect()
}

/// What a call leaves that was to make `new` of a blob.
fn left(may: &mut May, name: u64, new: &Content, result: &Result<(), BlobStoreError>) {
    let may = may.entry(name).or_insert_with(|| vec![Content::Absent]);
    match result {
        Ok(()) => *may = vec![new.clone()],
        Err(e) if e.outcome() == Effect::NotApplied => {}
        Err(_) => may.push(new.clone()),
    }
}

/// What was cut short or interrupted says nothing of arguments, of absence, or of what is stored.
fn grounded(what: &str, e: &dyn Classify) -> Outcome {
    if e.kind() == ErrorKind::Corrupt {
        let expected = "no error, or one of the medium";
        return Err(Stop::fail(what, describe(e), expected));
    }
    of_the_medium(what, e)
}

fn holds(a: &Handle, what: &str, may: &May) -> Outcome {
    for (name, may) in may {
        let seen = a.content(guid((*name).into()))?;
        if !may.contains(&seen) {
            let may: Vec<String> = may.iter().map(ToString::to_string).collect();
            let what = format!("{what}: blob {name}");
            return Err(Stop::fail(what, seen.to_string(), may.join(" or ")));
        }
    }
    Ok(())
}

pub(super) async fn bs_15_1(cx: &Cx<dyn World>) -> Outcome {
    let unable = |e| Stop::Ignored(format!("no medium that cuts transfers short: {e}"));
    let medium = Medium::new(cx.seed()).map_err(unable)?;
    let world = cx.moved(Folders::under(medium.root())).await?;
    if world.env().folders.given().is_empty() {
        let why = "needs a world in folders of Env::tempdir";
        return Err(Stop::Ignored(why.into()));
    }
    let ended = each_call(&world, &medium).await;
    let history = world.log().lines();
    drop(world);
    ended.map_err(|stop| match stop {
        Stop::Fail(mut failure) => {
            failure.history = history;
            Stop::Fail(failure)
        }
        other => other,
    })
}

async fn each_call(world: &Cx<dyn World>, medium: &Medium) -> Outcome {
    let a = world.open("p").await?;
    for at in 0..BLOBS {
        a.write(guid(at.into()), at)?;
    }
    a.flush()?;
    drop(a);
    // So that no handle from before is still at it.
    drop(world.reopen("p", []).await?);
    let seeds = match world.profile {
        Profile::Quick => 1,
        Profile::Standard => 8,
        Profile::Soak => 100,
    };
    let first = &medium.save();
    let mut met = 0;
    for wrong in Wrong::ALL {
        for seed in 0..seeds {
            for (nth, is_open) in (1..=CALLS_MAX).flat_map(|nth| [(nth, false), (nth, true)]) {
                medium.restore(first);
                let round = Round {
                    world,
                    medium,
                    wrong,
                    nth,
                    // The first seed keeps nothing that was not synced.
                    seed: if seed == 0 {
                        0
                    } else {
                        seed << 16 | nth << 1 | 2
                    },
                };
                let was_met = if is_open {
                    round.opened().await?
                } else {
                    round.worked().await?
                };
                met += u64::from(was_met);
                if !was_met && !is_open {
                    break;
                }
            }
        }
    }
    enough(met)
}

/// One call that goes wrong.
struct Round<'a> {
    world: &'a Cx<dyn World>,
    medium: &'a Medium,
    wrong: Wrong,
    nth: u64,
    seed: u64,
}

impl Round<'_> {
    fn arm(&self, what: &str) -> String {
        let what = format!("{:?} at call {} of {what}", self.wrong, self.nth);
        self.world.log().push(what.clone());
        self.medium.arm(self.nth, self.wrong);
        what
    }

    async fn open(&self) -> Result<Handle, Stop> {
        let (a, _b) = self.world.reopen("p", []).await?;
        Ok(a)
    }

    /// It goes wrong while the store is opened and read.
    async fn opened(&self) -> Result<bool, Stop> {
        // As a process leaves it that was killed, so that there is something to be made sure of.
        let a = self.open().await?;
        a.write(guid(1), 101)?;
        a.flush()?;
        let unclean = self.medium.save();
        drop(a);
        self.medium.restore(&unclean);
        self.medium.cut(self.seed);
        let mut may = at_first();
        may.insert(1, vec![Content::Frame(101)]);
        let what = self.arm("an open and reads");
        let opened = self.world.try_open_as("a", "p").await;
        if let Ok(a) = &opened {
            read_all(a, &what, &may)?;
        }
        let met = self.medium.disarm();
        let a = match opened {
            Ok(a) => a,
            Err(_) => self.open().await?,
        };
        holds(&a, &what, &may)?;
        self.goes_on(a, &format!("{what}, and the power went"), may)
            .await?;
        Ok(met)
    }

    /// It goes wrong among writes, reads and a flush.
    async fn worked(&self) -> Result<bool, Stop> {
        let a = self.open().await?;
        let before = at_first();
        let mut may = before.clone();
        let what = self.arm("writes, reads and a flush");
        let result = a.try_write(guid(0), 100);
        left(&mut may, 0, &Content::Frame(100), &result);
        let mut results = vec![result];
        let (first, second) = (frame(101), frame(104));
        let batch = [(guid(1), &first), (guid(BLOBS.into()), &second)];
        let result = a.try_write_all(Batch::Plain, &batch);
        left(&mut may, 1, &Content::Frame(101), &result);
        left(&mut may, BLOBS, &Content::Frame(104), &result);
        results.push(result);
        let result = a.try_delete(guid(2));
        left(&mut may, 2, &Content::Absent, &result);
        results.push(result);
        read_all(&a, &what, &may)?;
        let flushed = a.store().flush();
        let shown = flushed.as_ref().err().map(|e| describe(e));
        let shown = shown.map_or_else(|| "Ok".into(), |e| format!("Err({e})"));
        self.world.log().push(format!("a.flush() -> {shown}"));
        let met = self.medium.disarm();
        for e in results
            .iter()
            .chain([&flushed])
            .filter_map(|result| result.as_ref().err())
        {
            grounded(&what, e)?;
        }
        holds(&a, &what, &may)?;
        if flushed.is_err() {
            // Of what was not flushed anything may be there.
            for (name, old) in before {
                may.entry(name).or_default().extend(old);
            }
        }
        drop(a);
        self.medium.cut(self.seed);
        let a = self.open().await?;
        let what = format!("{what}, and the power went");
        holds(&a, &what, &may)?;
        self.goes_on(a, &what, may).await?;
        Ok(met)
    }

    /// What is written and flushed from now on outlasts the power, and so does the rest.
    async fn goes_on(&self, a: Handle, what: &str, mut may: May) -> Outcome {
        a.write(guid(9), 9)?;
        a.flush()?;
        drop(a);
        self.medium.cut(self.seed);
        may.insert(9, vec![Content::Frame(9)]);
        holds(&self.open().await?, what, &may)
    }
}

/// Each read is right, or an error that says what it was.
fn read_all(a: &Handle, what: &str, may: &May) -> Outcome {
    for (name, may) in may {
        let seen = match a.try_read(guid((*name).into())) {
            Err(e) if e.kind() == ErrorKind::NotFound && may.contains(&Content::Absent) => continue,
            Err(e) => {
                grounded(&format!("{what}: read_blob of blob {name}"), &e)?;
                continue;
            }
            Ok(seen) => seen,
        };
        if !may.contains(&seen) {
            let what = format!("{what}: read_blob of blob {name}");
            return Err(Stop::fail(what, seen.to_string(), "the frame, or an error"));
        }
    }
    Ok(())
}
