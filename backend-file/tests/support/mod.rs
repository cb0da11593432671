//! What the test binaries of this crate share.

pub(crate) mod switch;
pub(crate) mod world;
