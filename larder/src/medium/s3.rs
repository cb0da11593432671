//! `s3://bucket/prefix`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use larder_s3::{S3Config, S3Place};
use larder_traits::{Backend, BlobMulti, Caps, Clock, Contract, HighVolumeBackend};

use super::{Medium, Opened};
use crate::keys::Keys;
use crate::open_error::OpenError;

#[derive(Clone, Debug)]
struct S3 {
    prefix: String,
    /// Whether requests go unsigned. Credentials never stand in a URL, which is printed and logged.
    anonymous: bool,
    /// All settings but the prefix, which stands above, and the credentials.
    config: S3Config,
}

pub(super) fn configure(path: &str, mut keys: Keys) -> Result<Arc<dyn Medium>, OpenError> {
    let bucket = path.strip_prefix("//").unwrap_or_default();
    let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
    if bucket.is_empty() {
        return Err(OpenError::Malformed {
            url: format!("s3:{path}"),
            why: "a bucket is s3://bucket, or s3://bucket/prefix",
        });
    }
    let mut config = S3Config::new(bucket);
    config = keys.set::<_, String>("endpoint", config, S3Config::with_endpoint)?;
    config = keys.set::<_, String>("region", config, S3Config::with_region)?;
    config = keys.set("path_style", config, S3Config::with_path_style)?;
    config = keys.set("attempt_timeout_ms", config, |config, milliseconds| {
        config.with_attempt_timeout(Duration::from_millis(milliseconds))
    })?;
    config = keys.set("call_timeout_ms", config, |config, milliseconds| {
        config.with_call_timeout(Duration::from_millis(milliseconds))
    })?;
    config = keys.set("attempts_max", config, S3Config::with_attempts_max)?;
    config = keys.set("in_flight_max", config, S3Config::with_in_flight_max)?;
    config = keys.set("fan_out_max", config, S3Config::with_fan_out_max)?;
    config = keys.set("part_len_bytes", config, S3Config::with_part_len_bytes)?;
    config = keys.set("page_keys_max", config, S3Config::with_page_keys_max)?;
    config = keys.set(
        "conditional_writes",
        config,
        S3Config::with_conditional_writes,
    )?;
    config = keys.set(
        "value_len_bytes_max",
        config,
        S3Config::with_value_len_bytes_max,
    )?;
    let anonymous = keys.take("anonymous")?.unwrap_or_default();
    keys.finish()?;
    let prefix = prefix.to_owned();
    Ok(Arc::new(S3 {
        prefix,
        anonymous,
        config,
    }))
}

#[async_trait]
impl Medium for S3 {
    fn scheme(&self) -> &'static str {
        "s3"
    }

    /// A prefix beside this one. Slashes of a name are written otherwise than the step to a child.
    fn child(&self, name: &str) -> Arc<dyn Medium> {
        Arc::new(Self {
            // Of what a prefix may be made of: names of places have none of these.
            prefix: format!("{}({})", self.prefix, name.replace('/', "*")),
            ..self.clone()
        })
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Box<dyn Opened>, OpenError> {
        let mut config = self.config.clone().with_prefix(&self.prefix);
        if !self.anonymous {
            config = config.with_credentials_from_env()?;
        }
        Ok(Box::new(S3Place::open(config.with_clock(clock)).await?))
    }
}

#[async_trait]
impl Opened for S3Place {
    fn scheme(&self) -> &'static str {
        "s3"
    }

    fn caps(&self) -> Caps {
        Self::caps(self)
    }

    fn caps_of(&self, contract: Contract) -> Caps {
        match (contract, self.row_caps()) {
            (Contract::HighVolume, Some(rows)) => rows,
            _ => Self::caps(self),
        }
    }

    /// Rows only on a server that was seen to keep the conditions of writes.
    fn offers(&self) -> &'static [Contract] {
        if self.has_conditional_writes() {
            &[Contract::BlobMulti, Contract::HighVolume, Contract::Backend]
        } else {
            &[Contract::BlobMulti, Contract::Backend]
        }
    }

    async fn blob_multi(&self) -> Result<Arc<dyn BlobMulti>, OpenError> {
        Ok(Arc::new(Self::blob_multi(self)))
    }

    async fn backend(&self) -> Result<Arc<dyn Backend>, OpenError> {
        Ok(Arc::new(Self::backend(self)))
    }

    async fn high_volume(&self) -> Result<Arc<dyn HighVolumeBackend>, OpenError> {
        if !self.has_conditional_writes() {
            return Err(self.lacks("high-volume on this server"));
        }
        Ok(Arc::new(Self::high_volume(self)))
    }
}
