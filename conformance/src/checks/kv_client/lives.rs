//! KV-3.6, KV-4.4 and C-6.6: a value and its end are one, also where a put is given up between them. The checks stand in
//! the tables of their clauses.

use std::time::Duration;

use bytes::Bytes;
use larder_traits::{KvClientError, LateLanding};

use crate::check::{Outcome, Stop};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::cancel::{POLLS_MAX, poll_then_drop};
use crate::engine::fault::{each_met, enough};
use crate::fixture::FaultKind;
use crate::kv_client::{Handle, World, show_value};

const SHORT_SECS: u64 = 50;
const LONG_SECS: u64 = 5_000;

/// How a value is put, and so how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Plain,
    Short,
    Long,
}

impl Life {
    fn outlives_short(self) -> bool {
        self != Self::Short
    }

    async fn put(self, handle: &Handle, key: &str, value: &[u8]) -> Result<(), KvClientError> {
        let key = key.as_bytes();
        match self {
            Self::Plain => handle.try_put(key, value).await,
            Self::Short => handle.try_put_with_ttl(key, value, SHORT_SECS).await,
            Self::Long => handle.try_put_with_ttl(key, value, LONG_SECS).await,
        }
    }
}

/// What is there before, and what is put over it.
const CASES: [(Option<Life>, Life); 7] = [
    (None, Life::Short),
    (Some(Life::Plain), Life::Short),
    (Some(Life::Long), Life::Short),
    (Some(Life::Short), Life::Plain),
    (Some(Life::Short), Life::Long),
    (Some(Life::Short), Life::Short),
    (Some(Life::Long), Life::Plain),
];

/// A key whose put was given up, or failed.
struct Left {
    key: String,
    old: Option<Life>,
    new: Life,
    how: String,
}

impl Left {
    fn value(&self, word: &str) -> Vec<u8> {
        pattern(&format!("{word} {}", self.key), 600)
    }

    async fn begin(&self, handle: &Handle) -> Outcome {
        let Some(old) = self.old else { return Ok(()) };
        let put = old.put(handle, &self.key, &self.value("old")).await;
        put.map_err(|e| Stop::error(format!("a put of {:?}", self.key), &e))
    }

    /// What has to be there once the short lives are over, by what was there before.
    fn later(&self, seen: Option<&Bytes>) -> Result<Option<Bytes>, Stop> {
        let (old, new) = (self.value("old"), self.value("new"));
        let life = match (seen, self.old) {
            (None, None) => return Ok(None),
            (Some(seen), _) if *seen == new => self.new,
            (Some(seen), Some(life)) if *seen == old => life,
            _ => {
                return Err(Stop::fail(
                    format!("get({:?}) after {}", self.key, self.how),
                    show_value(seen),
                    "the old value or the new one, whole",
                ));
            }
        };
        Ok(seen.filter(|_| life.outlives_short()).cloned())
    }
}

/// Whether these checks can tell what they are about, or the reason why they cannot.
fn can_tell(cx: &Cx<dyn World>) -> Outcome {
    if let LateLanding::MayLandLate(_) = cx.caps.late_landing {
        return Err(Stop::Ignored(
            "declared: a put that was given up may come later, and its time begins then".into(),
        ));
    }
    cx.clock().map(drop)
}

/// Sees what became of each, lets the short lives end, and looks again.
async fn lives_on(cx: &Cx<dyn World>, reader: &Handle, left: Vec<Left>) -> Outcome {
    let clock = cx.clock()?;
    cx.settle().await;
    let mut expected = Vec::new();
    for it in &left {
        expected.push(it.later(reader.get(&it.key).await?.as_ref())?);
    }
    let over = Duration::from_secs(SHORT_SECS) + cx.caps.kv_client.ttl_granularity;
    cx.log().push(format!("clock + {over:?}"));
    clock.advance(over);
    for (it, expected) in left.iter().zip(expected) {
        let Left { key, old, new, how } = it;
        let what = format!("{key:?}, {new:?} over {old:?}, after {how} and {over:?}");
        reader.expect(&what, key, expected.as_deref()).await?;
    }
    Ok(())
}

/// C-6.6.
pub(super) async fn c_6_6(cx: &Cx<dyn World>) -> Outcome {
    can_tell(cx)?;
    let (a, b) = cx.open_two("p").await?;
    let mut left = Vec::new();
    for (old, new) in CASES {
        for polls in 1..POLLS_MAX {
            let it = Left {
                key: format!("{old:?} {new:?} {polls}"),
                old,
                new,
                how: format!("a drop at poll {polls}"),
            };
            it.begin(&b).await?;
            cx.log().push(format!("{:?}: {}", it.key, it.how));
            let value = it.value("new");
            let ended = poll_then_drop(polls, new.put(&a, &it.key, &value)).await;
            let is_done = ended.is_some();
            left.push(it);
            if is_done {
                break;
            }
        }
    }
    lives_on(cx, &b, left).await
}

/// KV-3.6.
pub(super) async fn kv_3_6(cx: &Cx<dyn World>) -> Outcome {
    can_tell(cx)?;
    let faults = cx.faults()?;
    let (a, b) = cx.open_two("p").await?;
    let left = &std::cell::RefCell::new(Vec::new());
    let mut met = 0;
    for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
        for (old, new) in CASES {
            let (faults, a, b) = (faults.as_ref(), &a, &b);
            let attempt = |nth| async move {
                let it = Left {
                    key: format!("{old:?} {new:?} {kind:?} {nth}"),
                    old,
                    new,
                    how: format!("{kind:?} at call {nth} to the medium"),
                };
                faults.disarm();
                it.begin(b).await?;
                cx.log().push(format!("{:?}: {}", it.key, it.how));
                faults.arm(nth, kind);
                // Whatever the answer says: what is there has its own end.
                drop(new.put(a, &it.key, &it.value("new")).await);
                left.borrow_mut().push(it);
                Ok(faults.disarm())
            };
            met += each_met(faults, kind, attempt).await?;
        }
    }
    enough(met)?;
    lives_on(cx, &b, left.take()).await
}

/// What is put over that which another put may have left.
struct Over<'a> {
    key: String,
    old: Option<Life>,
    newer: Life,
    by: &'a Handle,
}

impl Over<'_> {
    fn value(&self) -> Vec<u8> {
        pattern(&format!("newer {}", self.key), 500)
    }

    async fn begin(&self) -> Outcome {
        match self.old {
            Some(_) => self.by.put(&self.key, "old").await,
            None => Ok(()),
        }
    }

    /// The put that nobody waits for, or that fails.
    async fn short(&self, handle: &Handle) -> Option<()> {
        let put = Life::Short.put(handle, &self.key, b"for a short time");
        put.await.ok()
    }

    async fn end(&self) -> Outcome {
        let put = self.newer.put(self.by, &self.key, &self.value()).await;
        put.map_err(|e| Stop::error(format!("a put of {:?}", self.key), &e))
    }
}

/// Who is there before, and who comes after; through the handle whose put is given up, and through another one.
fn overs<'a>(
    a: &'a Handle,
    b: &'a Handle,
) -> impl Iterator<Item = (Option<Life>, Life, &'a Handle)> {
    let cases = [
        (None, Life::Plain),
        (Some(Life::Plain), Life::Plain),
        (None, Life::Long),
        (Some(Life::Plain), Life::Long),
    ];
    let by = [a, b, b, a];
    cases
        .into_iter()
        .zip(by)
        .map(|((old, newer), by)| (old, newer, by))
}

/// KV-4.4.
pub(super) async fn kv_4_4(cx: &Cx<dyn World>) -> Outcome {
    can_tell(cx)?;
    let (a, b) = cx.open_two("p").await?;
    let mut all = Vec::new();
    for (old, newer, by) in overs(&a, &b) {
        for polls in 1..POLLS_MAX {
            let key = format!("{old:?} {newer:?} poll {polls}");
            let it = Over {
                key,
                old,
                newer,
                by,
            };
            it.begin().await?;
            cx.log()
                .push(format!("{:?}: dropped at poll {polls}", it.key));
            let ended = poll_then_drop(polls, it.short(&a)).await;
            it.end().await?;
            all.push(it);
            if ended.is_some() {
                break;
            }
        }
    }
    outlives(cx, &all).await?;

    let faults = cx.faults()?;
    let all = &std::cell::RefCell::new(Vec::new());
    let mut met = 0;
    for kind in [FaultKind::ErrorBefore, FaultKind::ErrorAfter] {
        for (old, newer, by) in overs(&a, &b) {
            let (faults, a) = (faults.as_ref(), &a);
            let attempt = |nth| async move {
                let key = format!("{old:?} {newer:?} {kind:?} {nth}");
                let it = Over {
                    key,
                    old,
                    newer,
                    by,
                };
                faults.disarm();
                it.begin().await?;
                cx.log().push(format!(
                    "{:?}: {kind:?} at call {nth} to the medium",
                    it.key
                ));
                faults.arm(nth, kind);
                it.short(a).await;
                let met = faults.disarm();
                it.end().await?;
                all.borrow_mut().push(it);
                Ok(met)
            };
            met += each_met(faults, kind, attempt).await?;
        }
    }
    enough(met)?;
    outlives(cx, &all.take()).await
}

/// Fails unless each newer value is there, and stays so once the short lives are over.
async fn outlives(cx: &Cx<dyn World>, all: &[Over<'_>]) -> Outcome {
    let clock = cx.clock()?;
    cx.settle().await;
    let over = Duration::from_secs(SHORT_SECS) + cx.caps.kv_client.ttl_granularity;
    for when in ["at once", "after the end of what was given up"] {
        for it in all {
            let what = format!("{:?}, put over what may be left, {when}", it.key);
            it.by.expect(&what, &it.key, Some(&it.value())).await?;
        }
        if when == "at once" {
            cx.log().push(format!("clock + {over:?}"));
            clock.advance(over);
        }
    }
    Ok(())
}
