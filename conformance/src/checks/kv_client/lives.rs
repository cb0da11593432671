//! KV-3.6 and C-6.6: a value and its end are one, also where a put is given up between them. The checks stand in the tables
//! of their clauses.

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
