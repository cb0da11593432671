//! What is done to a place that will be cut off.

use async_trait::async_trait;
use bytes::Bytes;
use larder_traits::Metadata;

use super::objects::{chunks, name};
use crate::backend::{Handle, World};
use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::work::{Crew, Found, Registered, Registers, found, value};

/// What objects are handed over in pieces of.
const CHUNK_LEN: usize = 8_192;

struct Objects(Handle);

fn key(number: u64) -> larder_traits::ObjectId {
    name(&format!("key-{number}"))
}

/// Metadata that go with one payload only.
const OF: &str = "of";

#[async_trait(?Send)]
impl Registers for Objects {
    async fn set(&mut self, number: u64, tag: u64) -> Outcome {
        let mut metadata = Metadata::new();
        metadata.custom.insert(OF.into(), tag.to_string());
        let payload = Bytes::from(value(tag));
        let chunks = chunks(&payload, CHUNK_LEN, false);
        self.0.put_chunks(&key(number), &metadata, chunks).await
    }

    async fn delete(&mut self, number: u64) -> Outcome {
        self.0.delete(&key(number)).await
    }

    async fn get(&mut self, number: u64) -> Result<Found, Stop> {
        let Some(object) = self.0.get(&key(number)).await? else {
            return Ok(Found::Absent);
        };
        let of = object.metadata.custom.get(OF);
        match found(Some(&object.payload)) {
            Found::Value(tag) if of != Some(&tag.to_string()) => Ok(Found::Torn(format!(
                "the payload of {tag:x} with the metadata of {of:?}"
            ))),
            found => Ok(found),
        }
    }
}

pub(super) async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    let mut handles = Vec::new();
    for name in NAMES {
        handles.push(cx.open_as(name, "p").await?);
    }
    Ok(crew(cx.seed(), handles))
}

/// The names of those who work on a place.
pub(in crate::checks) const NAMES: [&str; 3] = ["a", "b", "c"];

/// A worker on each of these handles.
pub(in crate::checks) fn crew(seed: u64, handles: Vec<Handle>) -> Crew {
    let hired = |(worker, handle)| Registered::hired(seed, worker, Box::new(Objects(handle)));
    (0..).zip(handles).map(hired).collect()
}
