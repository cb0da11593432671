//! A store as the concurrent checks use it: several clients, with one handle for all or one for each.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::{Classify, ErrorKind, KvClientError, Outcome as Effect};

use super::bytes;
use crate::check::{Stop, describe};
use crate::checks::pattern;
use crate::cx::{Cx, show};
use crate::engine::lin::{Driver, Performed, Wrong};
use crate::kv_client::{Handle, World};
use crate::lin::{Answer, Op, Row};

const NAMES: [&str; 5] = ["c0", "c1", "c2", "c3", "c4"];

/// The value that stands for a text: the text, and after it a tail that follows from it, of various lengths.
fn encode(text: &str) -> Vec<u8> {
    const TAILS: [usize; 5] = [0, 1, 40, 300, 4_100];
    let at = text.bytes().map(usize::from).sum::<usize>() % TAILS.len();
    let mut value = text.as_bytes().to_vec();
    value.push(b'|');
    value.extend(pattern(text, TAILS[at]));
    value
}

/// The text of a value, if it is one whole value.
fn decode(value: &[u8]) -> Option<String> {
    let end = value.iter().position(|byte| *byte == b'|')?;
    let text = std::str::from_utf8(&value[..end]).ok()?;
    (encode(text) == value).then(|| text.to_owned())
}

/// The clients of one place.
pub(super) struct Clients {
    handles: Vec<Handle>,
    wrong: Wrong,
}

impl Clients {
    /// Opens so many handles; clients share them in turn.
    pub(super) async fn open(
        cx: &Cx<dyn World>,
        place: &str,
        handles: usize,
    ) -> Result<Arc<Self>, Stop> {
        let mut opened = Vec::new();
        for name in &NAMES[..handles] {
            opened.push(cx.open_as(name, place).await?);
        }
        Ok(Arc::new(Self {
            handles: opened,
            wrong: Wrong::default(),
        }))
    }

    fn of(&self, client: u32) -> &Handle {
        let at = usize::try_from(client).unwrap_or_default();
        &self.handles[at % self.handles.len()]
    }

    fn failed(&self, what: &str, is_write: bool, e: &KvClientError) -> Performed {
        // These say that the call or the store is wrong, and neither is.
        let is_groundless = matches!(
            e.kind(),
            ErrorKind::InvalidInput
                | ErrorKind::Unsupported
                | ErrorKind::NotFound
                | ErrorKind::Corrupt
                | ErrorKind::PermissionDenied
                | ErrorKind::Closed
        );
        if is_groundless {
            self.wrong.note(Stop::error(what, e));
        }
        match e.outcome() {
            Effect::Unknown if is_write => Performed::Unknown,
            Effect::Unknown => {
                let expected = "an error of a read is NotApplied (C-1)";
                self.wrong.note(Stop::fail(what, describe(e), expected));
                Performed::NotApplied
            }
            Effect::NotApplied => Performed::NotApplied,
        }
    }

    /// The text of what a read found.
    fn text(&self, what: &str, found: Option<&Bytes>) -> Option<String> {
        let found = found?;
        let text = decode(found);
        if text.is_none() {
            let observed = show(found);
            let expected = "one whole value that was put";
            self.wrong.note(Stop::fail(what, observed, expected));
        }
        text
    }

    pub(super) async fn put(
        &self,
        client: u32,
        key: &str,
        text: &str,
        ttl_secs: Option<u64>,
    ) -> Performed {
        let (handle, value) = (self.of(client), encode(text));
        let result = match ttl_secs {
            None => handle.try_put(key.as_bytes(), &value).await,
            Some(secs) => handle.try_put_with_ttl(key.as_bytes(), &value, secs).await,
        };
        match result {
            Ok(()) => Performed::Answered(Answer::Done),
            Err(e) => self.failed(&format!("a put of {key:?}"), true, &e),
        }
    }

    async fn delete(&self, client: u32, key: &str) -> Performed {
        match self.of(client).try_delete(key.as_bytes()).await {
            Ok(()) => Performed::Answered(Answer::Done),
            Err(e) => self.failed(&format!("delete({key:?})"), true, &e),
        }
    }

    async fn get(&self, client: u32, key: &str) -> Performed {
        let what = format!("get({key:?})");
        match self.of(client).try_get(key.as_bytes()).await {
            Ok(found) => {
                let text = self.text(&what, found.as_ref());
                Performed::Answered(Answer::Row(text.map(Row::Inline)))
            }
            Err(e) => self.failed(&what, false, &e),
        }
    }

    async fn get_multi(&self, client: u32, keys: &[String]) -> Performed {
        let what = format!("get_multi({keys:?})");
        let keys: Vec<Bytes> = keys.iter().map(bytes).collect();
        match self.of(client).try_get_multi(&keys).await {
            Ok(found) if found.len() != keys.len() => {
                let observed = format!("{} answers", found.len());
                let expected = format!("{} answers", keys.len());
                self.wrong.note(Stop::fail(what, observed, expected));
                Performed::NotApplied
            }
            Ok(found) => {
                let texts = found.iter().map(|value| self.text(&what, value.as_ref()));
                Performed::Answered(Answer::Values(texts.collect()))
            }
            Err(e) => self.failed(&what, false, &e),
        }
    }
}

#[async_trait]
impl Driver for Clients {
    async fn perform(&self, client: u32, op: &Op) -> Performed {
        match op {
            Op::Set { key, value, .. } => self.put(client, key, value, None).await,
            Op::Delete { key } => self.delete(client, key).await,
            Op::Get { key } => self.get(client, key).await,
            Op::GetMulti { keys } => self.get_multi(client, keys).await,
            other => {
                self.wrong.note(Stop::Inconclusive(format!(
                    "{other} is no call of this contract"
                )));
                Performed::NotApplied
            }
        }
    }

    fn wrong(&self) -> &Wrong {
        &self.wrong
    }
}
