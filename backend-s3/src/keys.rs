//! Credentials of the provider that a place was given, as long as they are good.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::{ProvideCredentials, SharedCredentialsProvider};
use larder_traits::{Clock, SystemClock};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long whoever gives out credentials may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long before their end credentials are asked for anew, and how long those are good that have no end.
const MARGIN: Duration = Duration::from_secs(10);
const AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// Who is asked, and what was answered.
pub(crate) struct Keys {
    provider: SharedCredentialsProvider,
    known: RwLock<Option<(Credentials, SystemTime)>>,
    turn: Mutex<()>,
}

impl Keys {
    pub(crate) fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            known: RwLock::new(None),
            turn: Mutex::new(()),
        }
    }

    pub(crate) async fn get(&self) -> Result<Credentials, CredentialsError> {
        if let Some(keys) = self.known() {
            return Ok(keys);
        }
        let _turn = self.turn.lock().await;
        // Somebody else may have asked meanwhile.
        if let Some(keys) = self.known() {
            return Ok(keys);
        }
        let found = timeout(PATIENCE, self.provider.provide_credentials()).await;
        let found = found.map_err(|_e| CredentialsError::provider_timed_out(PATIENCE))??;
        let far = SystemClock::default().now() + AGE_MAX;
        let end = found
            .expiry()
            .map(|end| end.checked_sub(MARGIN).unwrap_or(end));
        let end = end.unwrap_or(far);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *known = Some((found.clone(), end));
        Ok(found)
    }

    fn known(&self) -> Option<Credentials> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (keys, end) = known.as_ref()?;
        (SystemClock::default().now() < *end).then(|| keys.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_credential_types::provider::future;

    use super::*;

    /// Gives out credentials that end after so long, and counts them.
    #[derive(Debug)]
    struct Giver {
        good_for: Option<Duration>,
        given: AtomicUsize,
    }

    impl ProvideCredentials for &'static Giver {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                tokio::task::yield_now().await;
                self.given.fetch_add(1, Ordering::Relaxed);
                let end = self.good_for.map(|it| SystemClock::default().now() + it);
                Ok(Credentials::new("access", "secret", None, end, "test"))
            })
        }
    }

    #[tokio::test]
    async fn credentials_are_kept_while_they_are_good() {
        let hour = Duration::from_secs(3_600);
        for (good_for, given) in [
            (None, 1),
            (Some(hour), 1),
            // They end within the margin.
            (Some(MARGIN / 2), 8),
        ] {
            let giver: &'static Giver = Box::leak(Box::new(Giver {
                good_for,
                given: AtomicUsize::new(0),
            }));
            let keys = Keys::new(SharedCredentialsProvider::new(giver));
            let all = futures_util::future::join_all((0..8).map(|_| keys.get())).await;
            assert!(all.iter().all(Result::is_ok));
            assert_eq!(giver.given.load(Ordering::Relaxed), given, "{good_for:?}");
        }
    }
}
