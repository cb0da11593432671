//! What is done to a place that will be cut off.

use async_trait::async_trait;

use crate::check::{Outcome, Stop};
use crate::cx::Cx;
use crate::engine::work::{Crew, Found, Registered, Registers, found, value};
use crate::kv_client::{Handle, World};

/// As many seconds as nobody waits.
const FOR_EVER_SECS: u64 = 1 << 30;

struct Keys(Handle);

fn key(number: u64) -> String {
    format!("key {number}")
}

#[async_trait(?Send)]
impl Registers for Keys {
    async fn set(&mut self, number: u64, tag: u64) -> Outcome {
        if tag.is_multiple_of(5) {
            let put = self.0.put_with_ttl(key(number), value(tag), FOR_EVER_SECS);
            return put.await;
        }
        self.0.put(key(number), value(tag)).await
    }

    async fn delete(&mut self, number: u64) -> Outcome {
        self.0.delete(key(number)).await
    }

    async fn get(&mut self, number: u64) -> Result<Found, Stop> {
        let bytes = self.0.get(key(number)).await?;
        Ok(found(bytes.as_deref()))
    }
}

pub(super) async fn hire(cx: &Cx<dyn World>) -> Result<Crew, Stop> {
    let mut crew = Crew::new();
    for (worker, name) in (0..).zip(["a", "b", "c"]) {
        let keys = Keys(cx.open_as(name, "p").await?);
        crew.push(Registered::hired(cx.seed(), worker, Box::new(keys)));
    }
    Ok(crew)
}
