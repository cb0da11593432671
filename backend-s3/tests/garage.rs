//! The suite on one node of Garage.
//!
//! `cargo xtask services up garage` starts one, and prints the variables that name it. Where there is none, the checks are
//! ignored and say so. It keeps no conditions, so there are no rows; that this is noticed is in `garage_conditions`.

mod real;

use std::process::ExitCode;

use larder_conformance::{backend, blob_multi};

use real::{Garage, World, without_idle_times};

fn main() -> ExitCode {
    real::main::<Garage>(vec![
        blob_multi::suite::<World<Garage>>(),
        without_idle_times(backend::suite::<World<Garage>>()),
    ])
}
