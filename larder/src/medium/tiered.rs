//! `tiered:?high_volume=URL&long_term=URL`, each URL percent-encoded as far as it has `&`, `%` or `+` of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use larder_tiered::{TieredConfig, TieredStorage};
use larder_traits::{Backend, Caps, Clock, Contract};

use super::{Medium, Opened};
use crate::keys::Keys;
use crate::location::Location;
use crate::open_error::OpenError;
use crate::store::OpenOptions;

#[derive(Clone, Debug)]
struct Tiered {
    high_volume: Location,
    long_term: Location,
    /// Where the change log lies if not in the high-volume tier.
    change_log: Option<Location>,
    threshold_bytes: Option<usize>,
    lease: Option<Duration>,
    grace: Option<Duration>,
}

pub(super) fn configure(path: &str, mut keys: Keys) -> Result<Arc<dyn Medium>, OpenError> {
    let malformed = |why| OpenError::Malformed {
        url: format!("tiered:{path}"),
        why,
    };
    if !path.is_empty() {
        return Err(malformed("it has no path; its tiers are keys"));
    }
    let high_volume = keys.take::<Location>("high_volume")?;
    let long_term = keys.take::<Location>("long_term")?;
    let change_log = keys.take("change_log")?;
    let threshold_bytes = keys.take("threshold_bytes")?;
    let lease = keys.take("lease_ms")?.map(Duration::from_millis);
    let grace = keys.take("grace_ms")?.map(Duration::from_millis);
    keys.finish()?;
    let (Some(high_volume), Some(long_term)) = (high_volume, long_term) else {
        return Err(malformed("it needs tiered:?high_volume=URL&long_term=URL"));
    };
    Ok(Arc::new(Tiered {
        high_volume,
        long_term,
        change_log,
        threshold_bytes,
        lease,
        grace,
    }))
}

#[async_trait]
impl Medium for Tiered {
    fn scheme(&self) -> &'static str {
        "tiered"
    }

    fn child(&self, name: &str) -> Arc<dyn Medium> {
        Arc::new(Self {
            high_volume: self.high_volume.child(name),
            long_term: self.long_term.child(name),
            change_log: self.change_log.as_ref().map(|log| log.child(name)),
            ..self.clone()
        })
    }

    fn erase(&self) -> io::Result<()> {
        let tiers = [&self.high_volume, &self.long_term];
        // One that cannot be erased is no reason to leave the others.
        let mut erased = Ok(());
        for location in tiers.into_iter().chain(&self.change_log) {
            erased = erased.and(location.erase());
        }
        erased.map_err(io::Error::other)
    }

    /// Also brings to its end what processes left that are gone (TS-7).
    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Box<dyn Opened>, OpenError> {
        let options = OpenOptions::new().with_clock(Arc::clone(&clock));
        let high = self.high_volume.open(&options).await?;
        let long = self.long_term.open(&options).await?;
        let log = match &self.change_log {
            Some(log) => log.open(&options).await?.change_log().await?,
            None => high.change_log().await?,
        };
        let mut config = TieredConfig::new(
            high.caps_of(Contract::HighVolume),
            long.caps_of(Contract::Backend),
        )
        .with_clock(clock);
        if let Some(threshold_bytes) = self.threshold_bytes {
            config = config.with_threshold_bytes(threshold_bytes);
        }
        if let Some(lease) = self.lease {
            config = config.with_lease(lease);
        }
        if let Some(grace) = self.grace {
            config = config.with_grace(grace);
        }
        let tiers = (high.high_volume().await?, long.backend().await?);
        let storage = TieredStorage::new(tiers.0, tiers.1, log, config)?;
        storage.recover().await?;
        Ok(Box::new(storage))
    }
}

#[async_trait]
impl Opened for TieredStorage {
    fn scheme(&self) -> &'static str {
        "tiered"
    }

    fn caps(&self) -> Caps {
        Self::caps(self)
    }

    fn offers(&self) -> &'static [Contract] {
        &[Contract::Backend]
    }

    async fn backend(&self) -> Result<Arc<dyn Backend>, OpenError> {
        Ok(Arc::new(self.clone()))
    }
}
