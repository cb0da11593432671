//! How checks are carried out. Each engine has a file; the sequential one needs none.

pub(crate) mod canary;
pub(crate) mod cancel;
pub(crate) mod cost;
pub(crate) mod damage;
pub(crate) mod fault;
#[cfg(all(feature = "power", target_os = "linux"))]
mod fuse;
pub(crate) mod kill;
pub(crate) mod lin;
pub(crate) mod meeting;
pub(crate) mod model;
pub(crate) mod power;
pub(crate) mod time;
#[cfg(all(feature = "power", target_os = "linux"))]
pub(crate) mod transfers;
pub(crate) mod work;
