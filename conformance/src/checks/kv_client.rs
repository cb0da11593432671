//! The checks of `KvClient`.

mod clients;
mod common;
mod concurrent;
mod dropped;
mod ends;
mod expiry;
mod failing;
mod keys;
mod lives;
mod outside;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_engines;
mod values;
mod work;

use bytes::Bytes;
use larder_traits::{ErrorKind, KvClientError};

use crate::check::{Check, Stop, describe};
use crate::checks::refused;
use crate::kv_client::World;

pub(crate) static TABLES: &[&[Check<dyn World>]] = &[
    common::CHECKS,
    values::CHECKS,
    expiry::CHECKS,
    keys::CHECKS,
    outside::CHECKS,
];

/// Fails unless the call was refused as `InvalidArgument`, by the variant and by the two answers of C-1.
fn invalid<T: std::fmt::Debug>(what: &str, result: Result<T, KvClientError>) -> Result<(), Stop> {
    if let Err(e) = &result
        && !matches!(e, KvClientError::InvalidArgument(_))
    {
        return Err(Stop::fail(what, describe(e), "InvalidArgument"));
    }
    refused(what, result, ErrorKind::InvalidInput)
}

fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}
