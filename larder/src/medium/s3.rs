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
    if let Some(endpoint) = keys.take::<String>("endpoint")? {
        config = config.with_endpoint(endpoint);
    }
    if let Some(region) = keys.take::<String>("region")? {
        config = config.with_region(region);
    }
    if let Some(path_style) = keys.take("path_style")? {
        config = config.with_path_style(path_style);
    }
    if let Some(milliseconds) = keys.take("attempt_timeout_ms")? {
        config = config.with_attempt_timeout(Duration::from_millis(milliseconds));
    }
    if let Some(milliseconds) = keys.take("call_timeout_ms")? {
        config = config.with_call_timeout(Duration::from_millis(milliseconds));
    }
    if let Some(max) = keys.take("attempts_max")? {
        config = config.with_attempts_max(max);
    }
    if let Some(max) = keys.take("in_flight_max")? {
        config = config.with_in_flight_max(max);
    }
    if let Some(max) = keys.take("fan_out_max")? {
        config = config.with_fan_out_max(max);
    }
    if let Some(len) = keys.take("part_len_bytes")? {
        config = config.with_part_len_bytes(len);
    }
    if let Some(max) = keys.take("page_keys_max")? {
        config = config.with_page_keys_max(max);
    }
    if let Some(conditional_writes) = keys.take("conditional_writes")? {
        config = config.with_conditional_writes(conditional_writes);
    }
    if let Some(max) = keys.take("value_len_bytes_max")? {
        config = config.with_value_len_bytes_max(max);
    }
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
            prefix: format!("{}~{}", self.prefix, name.replace('/', "+")),
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
