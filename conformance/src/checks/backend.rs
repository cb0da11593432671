//! The checks of `Backend`.

pub(in crate::checks) mod access;
pub(in crate::checks) mod calls;
pub(in crate::checks) mod cancel;
pub(in crate::checks) mod common;
pub(in crate::checks) mod faults;
mod lifecycle;
pub(in crate::checks) mod lin;
pub(in crate::checks) mod objects;
mod payloads;
mod replacing;
pub(in crate::checks) mod shape;
pub(in crate::checks) mod time;
pub(in crate::checks) mod work;

use crate::backend::World;
use crate::check::Check;

/// The BK clauses, to which every backend is held.
pub(crate) static OBJECTS: &[&[Check<dyn World>]] =
    &[replacing::CHECKS, payloads::CHECKS, lifecycle::CHECKS];

/// Those of a plain backend: the BK clauses, what is common to all contracts, and HV-8 and HV-9 where they speak of
/// objects.
pub(crate) static TABLES: &[&[Check<dyn World>]] = &[
    common::CHECKS,
    replacing::CHECKS,
    payloads::CHECKS,
    lifecycle::CHECKS,
    shape::CHECKS,
];
