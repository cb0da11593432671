//! The checks of `BlobStore`.

mod buffers;
mod common;
pub(crate) mod content;
mod crash;
mod failing;
mod flushes;
mod frames;
mod names;
mod pace;
mod reads;
mod tail;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_engines;
mod threads;
#[cfg(all(feature = "power", target_os = "linux"))]
mod transfers;
mod work;
mod writes;

use larder_traits::{BlobGuid, Caps, Durability};

use crate::blob_store::World;
use crate::check::{Check, Gate};

pub(crate) static TABLES: &[&[Check<dyn World>]] = &[
    common::CHECKS,
    frames::CHECKS,
    names::CHECKS,
    writes::CHECKS,
    buffers::CHECKS,
    crash::CHECKS,
];

/// The blob of that number.
const fn guid(number: u128) -> BlobGuid {
    BlobGuid::from_u128(number)
}

/// For checks of what outlives the last handle.
fn durable(caps: &Caps) -> Gate {
    if caps.durability == Durability::None {
        Gate::Ignore("declares that nothing outlives the process")
    } else {
        Gate::Run
    }
}
