//! The suite on the ring, or on whatever engine the machine allows instead.

mod support;

use support::world::World;

type OnRing = World<true>;

larder_conformance::main!(blob_store: OnRing);
