//! `cargo xtask bench`: Larder beside its peers, optimized.

use crate::{Result, cargo, root, services};

pub(crate) fn run(rest: &[String]) -> Result {
    let folder = root().join("target").join("larder").join("bench");
    let folder = folder.display().to_string();
    let mut arguments = vec![
        "run",
        "--release",
        "--package",
        "larder-bench",
        "--",
        "--folder",
        &folder,
    ];
    arguments.extend(rest.iter().map(String::as_str));
    if rest.iter().any(|word| word == "s3") {
        let ceph = services::Server::start(services::CEPH)?;
        return cargo::run(&arguments, &ceph.env());
    }
    cargo::run(&arguments, &[])
}
