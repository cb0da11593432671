//! How much work a run does.

use std::time::Duration;

/// How thorough a run is. The checks are the same; the repetitions are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// For every change: seconds.
    #[default]
    Quick,
    /// Before a merge: a minute or two.
    Standard,
    /// By night.
    Soak,
}

impl Profile {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Soak => "soak",
        }
    }

    /// The profile of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Quick, Self::Standard, Self::Soak]
            .into_iter()
            .find(|profile| profile.name() == name)
    }

    /// How many operations a model check performs in all, on a server or in this process.
    pub(crate) fn model_operations(self, is_remote: bool) -> usize {
        match (self, is_remote) {
            (Self::Quick, false) => 300,
            (Self::Quick, true) => 40,
            (Self::Standard, false) => 2_000,
            (Self::Standard, true) => 300,
            (Self::Soak, _) => 50_000,
        }
    }

    /// How many epochs a linearizability check runs, on a server or in this process.
    pub(crate) fn lin_epochs(self, is_remote: bool) -> usize {
        match (self, is_remote) {
            (Self::Quick, false) => 100,
            (Self::Quick, true) => 6,
            (Self::Standard, false) => 600,
            (Self::Standard, true) => 24,
            (Self::Soak, _) => 20_000,
        }
    }

    /// Of many alike cases one in so many is run, on a server or in this process. The numbers are primes, so that a product
    /// of a few things in a few ways is passed through on every one of them.
    pub(crate) fn one_in(self, is_remote: bool) -> usize {
        match (self, is_remote) {
            (Self::Quick, true) => 11,
            (Self::Standard, true) => 5,
            (_, false) | (Self::Soak, true) => 1,
        }
    }

    /// How many processes a check kills, on a server or on files of this machine. What breaks a store is open for a moment
    /// only, and a kill takes little.
    pub(crate) fn kills(self, is_remote: bool) -> usize {
        match (self, is_remote) {
            (Self::Quick, true) => 2,
            (Self::Quick, false) => 6,
            (Self::Standard, true) => 10,
            (Self::Standard, false) => 60,
            (Self::Soak, _) => 600,
        }
    }

    /// How many damaged worlds a check opens.
    pub(crate) fn damages(self) -> usize {
        match self {
            Self::Quick => 10,
            Self::Standard => 200,
            Self::Soak => 2_000,
        }
    }

    /// How many moments a check cuts the power at.
    #[cfg_attr(
        not(all(feature = "power", target_os = "linux")),
        expect(dead_code, reason = "there is no power to cut")
    )]
    pub(crate) fn power_states(self) -> usize {
        match self {
            Self::Quick => 6,
            Self::Standard => 100,
            Self::Soak => 2_000,
        }
    }

    /// The largest value that a check writes only in order to see a large value.
    pub(crate) fn value_len_bytes_max(self) -> usize {
        match self {
            Self::Quick => (8 << 20) + 1,
            Self::Standard | Self::Soak => 96 << 20,
        }
    }

    /// How long one check may take before the watchdog calls it a hang, on a server or in this process.
    pub(crate) fn watchdog(self, is_remote: bool) -> Duration {
        match (self, is_remote) {
            (Self::Quick, false) => Duration::from_secs(60),
            (Self::Quick, true) => Duration::from_secs(240),
            (Self::Standard, _) => Duration::from_secs(600),
            (Self::Soak, _) => Duration::from_secs(7_200),
        }
    }
}
