//! The suite on positioned reads and writes.

mod support;

use support::world::World;

type OnCalls = World<false>;

larder_conformance::main!(blob_store: OnCalls);
