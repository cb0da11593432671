//! What the tests ask a server with, where the suite is not the one who asks.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_s3::S3Config;

use crate::server::{ACCESS_KEY, BUCKET, SECRET_KEY};

/// How long a part is.
pub(crate) const PART: usize = 16 << 10;

pub(crate) fn config(endpoint: &str) -> S3Config {
    S3Config::new(BUCKET)
        .with_endpoint(endpoint)
        .with_prefix("p")
        .with_credentials(ACCESS_KEY, SECRET_KEY)
        .with_part_len_bytes(NonZeroUsize::new(PART).expect("it is not zero"))
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) fn pattern(seed: u8, len: usize) -> Bytes {
    (0..len)
        .map(|at| u8::try_from(at % 251).expect("it is below 251") ^ seed)
        .collect()
}
