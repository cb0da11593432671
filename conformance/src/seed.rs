//! Chance that can be repeated.

use std::hash::{BuildHasher, RandomState};

/// FNV-1a, 64 bits: stable over versions and machines, which is all that is asked of it here.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The seed of one check in a run: the same pair always gives the same seed.
pub(crate) fn of_check(run_seed: u64, check: &str, attempt: u32) -> u64 {
    let mut bytes = run_seed.to_le_bytes().to_vec();
    bytes.extend_from_slice(check.as_bytes());
    bytes.extend_from_slice(&attempt.to_le_bytes());
    hash(&bytes)
}

/// A seed that nobody chose.
#[must_use]
pub fn random() -> u64 {
    // `RandomState` is seeded by the system anew in each process and changed for each instance.
    RandomState::new().hash_one(std::thread::current().id())
}

/// A name that no other run uses.
pub(crate) fn private_name() -> String {
    format!("t{:016x}", random())
}
