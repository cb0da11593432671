//! Recovery from more changes than are claimed at once, whoever has left them, and whatever they are at.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use larder_conformance::schedule::{Run, step};
use larder_conformance::{FaultKind, Faults};
use larder_traits::{
    Backend, BackendError, ChangeLog, ClientStream, Clock, ErrorKind, Fault, GetResponse, Metadata,
    ObjectId, WriterId,
};

use super::checks::{Checked, join, plain};
use super::puts::{look, put};
use super::recoveries::spawn_recovery;
use super::{Does, LEASE, Made, Make, Parts, Start, World, id, now, payload, recover};

/// Whose the changes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    One,
    /// As many as there are changes.
    Each,
}

/// How the first recovery goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Undisturbed,
    /// It is killed after so many steps for each change.
    Killed(usize),
    /// No payload can be removed, and the same process recovers again.
    RemovesNothing,
    /// The same, and the next process does.
    RemovesNothingAndEnds,
    /// The payloads of one object in so many cannot be removed, and the next process recovers.
    MeetsStuck(usize),
}

const FIRSTS: [First; 8] = [
    First::Undisturbed,
    First::Killed(1),
    First::Killed(6),
    First::RemovesNothing,
    First::RemovesNothingAndEnds,
    First::MeetsStuck(3),
    First::MeetsStuck(40),
    First::MeetsStuck(1_000),
];

/// A long-term tier that cannot remove the payloads of one object in so many.
#[derive(Debug)]
struct Stuck {
    inner: Arc<dyn Backend>,
    one_in: usize,
}

/// Whether an object, or a payload by its name, is one of those.
fn is_stuck(id: &ObjectId, one_in: usize) -> bool {
    let number = id.key.strip_prefix('k').unwrap_or_default();
    // Behind the key may stand what makes it the name of a payload.
    let end = number.find(|c: char| !c.is_ascii_digit());
    let number = number[..end.unwrap_or(number.len())].parse::<usize>();
    number.is_ok_and(|number| number % one_in == 0)
}

#[async_trait]
impl Backend for Stuck {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    async fn put_object(
        &self,
        id: &ObjectId,
        metadata: &Metadata,
        stream: ClientStream,
    ) -> Result<(), BackendError> {
        self.inner.put_object(id, metadata, stream).await
    }
    async fn get_object(&self, id: &ObjectId) -> Result<GetResponse, BackendError> {
        self.inner.get_object(id).await
    }
    async fn get_metadata(&self, id: &ObjectId) -> Result<Option<Metadata>, BackendError> {
        self.inner.get_metadata(id).await
    }
    async fn delete_object(&self, id: &ObjectId) -> Result<(), BackendError> {
        match is_stuck(id, self.one_in) {
            true => Err(Fault::not_applied(ErrorKind::Unavailable, "stuck").into()),
            false => self.inner.delete_object(id).await,
        }
    }
    async fn join(&self) {
        self.inner.join().await;
    }
}

/// A call on a key of its own, and how many polls it comes to.
#[derive(Clone, Copy, Debug)]
struct Left {
    start: Start,
    does: Does,
    polls: usize,
}

/// More polls than a call takes.
const POLLS_MAX: usize = 12;

/// All kinds of calls over all kinds of rows, at any of their polls, beginning with the `nth`.
fn mixed(nth: usize) -> Left {
    Left {
        start: Start::ALL[nth % Start::ALL.len()],
        does: Does::WRITES[nth / Start::ALL.len() % Does::WRITES.len()],
        polls: nth / Start::ALL.len() / Does::WRITES.len() % POLLS_MAX,
    }
}

/// What is found of an object.
type Value = Option<String>;

fn value(does: Does, tag: &str, nth: usize) -> Value {
    let is_large = does == Does::PutLarge;
    let text = String::from_utf8_lossy(&payload(&format!("{tag}{nth}"), is_large)).into_owned();
    (does != Does::Delete).then_some(text)
}

async fn perform(store: &Made, key: &str, does: Does, value: Value) -> Result<(), String> {
    let ended = match value {
        None => store.delete_object(&id(key)).await,
        Some(text) => put(store, key, &Metadata::new(), text.into(), None).await,
    };
    ended.map_err(|e| format!("{does:?} of {key}: {e}"))
}

fn key(nth: usize) -> String {
    format!("k{nth}")
}

struct Backlog<'a> {
    left: &'a [Left],
    writers: Writers,
    first: First,
}

impl Backlog<'_> {
    /// How many changes were left behind.
    fn run(&self, make: Make<'_>) -> Checked {
        let world = World::new();
        let old = self.prepare(&world, make)?;
        let done = self.leave(&world, make)?;
        let changes = world.log.held().changes;
        let (run, store) = self.recover(&world, make)?;
        let keys = self.keys();
        world.in_order_at(&keys, false)?;
        for (nth, left) in self.left.iter().enumerate() {
            let (seen, _) = look(&run, &store, &keys[nth])?;
            let seen = seen.map(|it| String::from_utf8_lossy(&it.payload).into_owned());
            let new = value(left.does, "new", nth);
            if seen != new && (done[nth] || seen != old[nth]) {
                return Err(format!("{left:?} at {}: {seen:?}", keys[nth]));
            }
        }
        Ok(changes)
    }

    /// What is there before.
    fn prepare(&self, world: &World, make: Make<'_>) -> Checked<Vec<Value>> {
        let run = plain();
        let store = world.open(&run, make);
        let old: Vec<(Does, Value)> = self
            .left
            .iter()
            .enumerate()
            .map(|(nth, left)| {
                let does = match left.start {
                    Start::Absent => Does::Delete,
                    Start::Inline => Does::PutSmall,
                    Start::Redirect => Does::PutLarge,
                };
                (does, value(does, "old", nth))
            })
            .collect();
        let (theirs, puts) = (Arc::clone(&store), old.clone());
        run.finish(async move {
            for (nth, (does, value)) in puts.into_iter().enumerate() {
                perform(&theirs, &key(nth), does, value).await?;
            }
            Ok::<_, String>(())
        })?;
        join(&run, &store);
        Ok(old.into_iter().map(|(_, value)| value).collect())
    }

    /// Lets all calls begin, each on the heels of the other, and ends everything. Which of them were answered before.
    fn leave(&self, world: &World, make: Make<'_>) -> Checked<Vec<bool>> {
        let run = plain();
        let shared = world.open(&run, make);
        let mut calls = Vec::new();
        for (nth, left) in self.left.iter().enumerate() {
            let store = match self.writers {
                Writers::One => Arc::clone(&shared),
                Writers::Each => world.open(&run, make),
            };
            let Left { does, polls, .. } = *left;
            let call = async move {
                let value = value(does, "new", nth);
                perform(&store, &key(nth), does, value).await
            };
            calls.push((call.boxed(), polls, false));
        }
        let (calls, ended) = run.finish(async move {
            let mut ended = Ok(());
            for round in 0..POLLS_MAX {
                for (call, polls, is_done) in &mut calls {
                    if round < *polls
                        && !*is_done
                        && let Some(answer) = call.now_or_never()
                    {
                        *is_done = true;
                        ended = ended.and(answer);
                    }
                }
                step().await;
            }
            (calls, ended)
        });
        let done = calls.iter().map(|(.., is_done)| *is_done).collect();
        run.crash();
        // After the crash: they leave nothing to their runtime any more.
        drop(calls);
        ended.map(|()| done)
    }

    /// The first recovery as it goes, and the one that brings everything to its end.
    fn recover(&self, world: &World, make: Make<'_>) -> Checked<(Run, Made)> {
        let run = plain();
        world.clock.advance(LEASE * 2);
        let store = world.open(&run, &|parts: Parts| match self.first {
            First::MeetsStuck(one_in) => {
                let inner = parts.long;
                let long = Arc::new(Stuck { inner, one_in });
                make(Parts { long, ..parts })
            }
            _ => make(parts),
        });
        match self.first {
            First::Undisturbed => {
                recover(&run, &store)?;
                return Ok((run, store));
            }
            First::Killed(steps) => {
                spawn_recovery(&run, &store);
                run.go_steps(steps * self.left.len());
                run.crash();
            }
            First::RemovesNothing | First::RemovesNothingAndEnds => {
                world.switch.only(&["delete_object"]);
                world.switch.arm_all(FaultKind::ErrorBefore);
                recover(&run, &store)?;
                world.switch.disarm();
                if self.first == First::RemovesNothing {
                    recover(&run, &store)?;
                    return Ok((run, store));
                }
                run.crash();
            }
            First::MeetsStuck(one_in) => {
                recover(&run, &store)?;
                run.crash();
                self.is_recovered_but(world, one_in)?;
            }
        }
        let run = plain();
        let store = world.recovered(&run, make)?;
        Ok((run, store))
    }

    /// What could not be recovered is in nobody's way.
    fn is_recovered_but(&self, world: &World, one_in: usize) -> Checked<()> {
        world.in_order_at(&self.keys(), true)?;
        let log = world.log.change_log();
        let far = world.clock.now() + LEASE * 1_000;
        let left = now(log.claim(WriterId::from_bytes([0xfe; 16]), far, 10_000));
        let left = left.map_err(|e| e.to_string())?;
        let in_the_way = left.iter().find(|it| !is_stuck(&it.object, one_in));
        match in_the_way {
            None => Ok(()),
            Some(change) => Err(format!("left beside what is stuck: {change:?}")),
        }
    }

    fn keys(&self) -> Vec<String> {
        (0..self.left.len()).map(key).collect()
    }

    fn checked(&self, make: Make<'_>) -> Checked {
        self.run(make).map_err(|why| {
            let (writers, first, count) = (self.writers, self.first, self.left.len());
            let kinds = &self.left[..count.min(3)];
            format!("{count} changes of {writers:?}, {kinds:?}, …, recovery {first:?}\n{why}")
        })
    }
}

/// TS-7: so many changes are left behind at once, by one writer or by as many, and one recovery brings all to their end,
/// also behind one that was killed, could remove nothing, or not everything. They are of all kinds.
/// How many changes the log held at most.
pub fn recovered_to_the_end(make: Make<'_>, counts: &[usize]) -> Checked {
    let mut changes_max = 0;
    for count in counts {
        for writers in [Writers::One, Writers::Each] {
            for first in FIRSTS {
                let of_all_kinds: Vec<Left> = (0..*count).map(mixed).collect();
                let backlog = Backlog {
                    left: &of_all_kinds,
                    writers,
                    first,
                };
                changes_max = changes_max.max(backlog.checked(make)?);
            }
        }
    }
    Ok(changes_max)
}

/// The same of so many changes of each kind. How many kinds there are.
pub fn of_each_kind(make: Make<'_>, count: usize) -> Checked {
    let kinds = Start::ALL.len() * Does::WRITES.len() * POLLS_MAX;
    for nth in 0..kinds {
        for writers in [Writers::One, Writers::Each] {
            let backlog = Backlog {
                left: &vec![mixed(nth); count],
                writers,
                first: First::Undisturbed,
            };
            backlog.checked(make)?;
        }
    }
    Ok(kinds)
}
