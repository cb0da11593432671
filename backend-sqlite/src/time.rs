//! Moments as the file keeps them: whole milliseconds since 1970, negative before that.

use std::time::{Duration, SystemTime};

use larder_traits::Fault;

use crate::error::corrupt;

/// The last whole millisecond that `at` has reached. What is beyond the range is at its end.
pub(crate) fn millis_reached(at: SystemTime) -> i64 {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -millis_up(before.duration()).unwrap_or(i64::MAX),
    }
}

/// The first whole millisecond that is not before `at`; `None` if that is beyond the range.
pub(crate) fn millis_until(at: SystemTime) -> Option<i64> {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => millis_up(since),
        Err(before) => {
            let before = before.duration().as_millis();
            Some(-i64::try_from(before).unwrap_or(i64::MAX))
        }
    }
}

/// The moment of a stored number that is not before 1970.
pub(crate) fn moment(millis: i64) -> Result<SystemTime, Fault> {
    let since = u64::try_from(millis).ok().map(Duration::from_millis);
    since
        .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| corrupt("a stored time is out of range"))
}

fn millis_up(time: Duration) -> Option<i64> {
    i64::try_from(time.as_nanos().div_ceil(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_cut_and_a_deadline_is_kept_whole() {
        let epoch = SystemTime::UNIX_EPOCH;
        let (later, earlier) = (Duration::from_micros(2_500), Duration::from_micros(1_500));
        assert_eq!(
            (millis_reached(epoch + later), millis_until(epoch + later)),
            (2, Some(3))
        );
        assert_eq!(
            (
                millis_reached(epoch - earlier),
                millis_until(epoch - earlier)
            ),
            (-2, Some(-1))
        );
        assert_eq!(moment(7).unwrap(), epoch + Duration::from_millis(7));
        assert!(moment(-1).is_err());
    }
}
