//! The suite on a store of one's own. `cargo run -p larder-conformance --example hashmap_kv`

mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use larder_conformance::{BoxError, Caps, Env, Fixture, kv_client};
use store::HashMapKv;

#[derive(Default)]
struct Place(Mutex<HashMap<String, Arc<HashMapKv>>>);

impl Fixture for Place {
    async fn new(_: &Env) -> Result<Self, BoxError> {
        Ok(Self::default())
    }
    fn caps(&self) -> Caps {
        store::CAPS
    }
}
impl kv_client::Open for Place {
    type Store = Arc<HashMapKv>;
    async fn open(&self, place: &str) -> Result<Self::Store, BoxError> {
        let mut stores = self.0.lock().map_err(|e| e.to_string())?;
        Ok(Arc::clone(stores.entry(place.into()).or_default()))
    }
}
larder_conformance::main!(kv_client: Place);
