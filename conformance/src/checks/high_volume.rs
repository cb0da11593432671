//! The checks of `HighVolumeBackend`. Those of `Backend` run beside them.

mod bench;
mod common;
mod lin;
mod matrix;
mod plain;
mod races;
mod random;
mod repeats;
mod shape;
#[cfg(test)]
mod tests;

use crate::check::Check;
use crate::high_volume::World;

pub(crate) static TABLES: &[&[Check<dyn World>]] = &[
    common::CHECKS,
    matrix::CHECKS,
    random::CHECKS,
    repeats::CHECKS,
    races::CHECKS,
    shape::CHECKS,
    plain::CHECKS,
];
