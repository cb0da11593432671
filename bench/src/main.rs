//! Larder beside its peers.
fn main() {}
