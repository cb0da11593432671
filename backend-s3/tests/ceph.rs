//! The suite on Ceph's object gateway.
//!
//! `cargo xtask test` starts one, and so does `cargo xtask services up ceph`, which prints the variable that names it.
//! Where there is none, the checks are ignored and say so.

mod real;

use std::process::ExitCode;

use larder_conformance::{backend, blob_multi, high_volume};

use real::{Ceph, Rows, World};

fn main() -> ExitCode {
    let index = "where a PUT replaces an object while it is deleted, Ceph can drop it from its index (see the README)";
    real::main::<Ceph>(vec![
        blob_multi::suite::<World<Ceph>>().known("BM-6.4", index),
        backend::suite::<World<Ceph>>(),
        high_volume::suite::<Rows<Ceph>>(),
    ])
}
