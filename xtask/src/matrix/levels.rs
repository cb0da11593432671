//! The levels that a backend has reached on a contract.

use std::collections::BTreeSet;

use super::{Line, Lines};

/// What a level is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Every check that every backend has to pass, and every one of what it declares.
    Core,
    /// Calls that meet, judged for an order that explains them.
    Linearizable,
    /// Calls that are dropped at each of their awaits.
    CancelSafe,
    /// The loss of the process.
    Durable,
    /// The loss of power, which includes that of the process.
    PowerSafe,
}

impl Level {
    pub(super) const ALL: [Self; 5] = [
        Self::Core,
        Self::Linearizable,
        Self::CancelSafe,
        Self::Durable,
        Self::PowerSafe,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Core => "Core",
            Self::Linearizable => "Linearizable",
            Self::CancelSafe => "CancelSafe",
            Self::Durable => "Durable",
            Self::PowerSafe => "PowerSafe",
        }
    }

    /// The engines whose checks it is about; `None` for all.
    fn engines(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Core => None,
            Self::Linearizable => Some(&["lin"]),
            Self::CancelSafe => Some(&["cancel"]),
            Self::Durable => Some(&["kill"]),
            Self::PowerSafe => Some(&["power", "kill"]),
        }
    }

    fn is_about(self, line: &Line) -> bool {
        self.engines().is_none_or(|engines| {
            let mut needs = line.engines.iter();
            needs.any(|engine| engines.contains(&engine.as_str()))
        })
    }

    /// Whether a backend that declares this has anything to do with it.
    fn is_offered(self, lines: &Lines) -> bool {
        let survives = |losses: &[&str]| {
            let mut caps = lines.values().filter_map(|line| line.caps.as_deref());
            caps.any(|caps| losses.iter().any(|loss| caps.contains(loss)))
        };
        match self {
            Self::Core | Self::Linearizable | Self::CancelSafe => true,
            Self::Durable => survives(&["durability: Process", "durability: Power"]),
            Self::PowerSafe => survives(&["durability: Power"]),
        }
    }
}

/// Whether a level was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Granted,
    /// What it is about is not declared.
    NotOffered,
    /// The contract has no such checks.
    NoChecks,
    /// Not reached, for the checks of these clauses.
    Missed(BTreeSet<String>),
}

/// A level is reached if each check that must run did, and passed: one that failed, could not tell, waits for an engine or
/// lacked a power takes it away, and so does one that is listed as failing, even where it passed this time. A check that
/// is excused by what is declared does not.
pub(super) fn grant(level: Level, lines: &Lines) -> Grant {
    let about = || lines.values().filter(|line| level.is_about(line));
    if about().next().is_none() {
        return Grant::NoChecks;
    }
    if !level.is_offered(lines) {
        return Grant::NotOffered;
    }
    let missed: BTreeSet<String> = about()
        .filter(|line| line.must_run() && (!line.is_pass() || line.known.is_some()))
        .map(|line| line.clause.clone())
        .collect();
    if missed.is_empty() {
        Grant::Granted
    } else {
        Grant::Missed(missed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    fn lines(all: impl IntoIterator<Item = Line>) -> Lines {
        all.into_iter()
            .map(|line| (line.id.clone(), line))
            .collect()
    }

    fn missed(clause: &str) -> Grant {
        Grant::Missed(BTreeSet::from([clause.to_owned()]))
    }

    #[test]
    fn a_level_is_taken_away_by_whatever_did_not_pass() {
        let passed = || [line("BM-1.1", "seq", "pass"), line("BM-6.1", "lin", "pass")];
        assert_eq!(grant(Level::Core, &lines(passed())), Grant::Granted);
        for verdict in ["fail", "ignored", "inconclusive", "unheard of"] {
            let all = passed().into_iter().chain([line("BM-6.4", "lin", verdict)]);
            let all = lines(all);
            for level in [Level::Core, Level::Linearizable] {
                assert_eq!(grant(level, &all), missed("BM-6"), "{verdict}");
            }
        }
    }

    #[test]
    fn a_check_that_is_known_to_fail_takes_the_level_away_even_where_it_passes() {
        for verdict in ["pass", "ignored"] {
            let mut known = line("BM-6.4", "lin", verdict);
            known.known = Some("its index loses keys".into());
            let all = lines([line("BM-6.1", "lin", "pass"), known]);
            assert_eq!(grant(Level::Linearizable, &all), missed("BM-6"));
        }
    }

    #[test]
    fn an_ignored_check_that_must_run_takes_the_level_away_and_an_excused_one_does_not() {
        let mut absent = line("BM-9.3", "power", "ignored");
        let all = |absent: &Line| {
            lines([
                line("BM-9.2", "kill", "pass"),
                line("BM-9.1", "power", "pass"),
                absent.clone(),
            ])
        };
        assert_eq!(grant(Level::PowerSafe, &all(&absent)), missed("BM-9"));
        absent.excused = true;
        assert_eq!(grant(Level::PowerSafe, &all(&absent)), Grant::Granted);
    }

    #[test]
    fn what_is_only_measured_or_cannot_be_seen_takes_nothing_away() {
        let mut measured = line("ST-4.2", "report", "ignored");
        measured.level = "report".into();
        let mut unseen = line("C-1.3", "seq", "ignored");
        (unseen.level, unseen.excused) = ("untestable".into(), true);
        let all = lines([line("ST-1.1", "seq", "pass"), measured, unseen]);
        assert_eq!(grant(Level::Core, &all), Grant::Granted);
    }

    #[test]
    fn a_declared_item_counts_like_any_other() {
        let mut declared = line("ST-12.2", "seq", "ignored");
        declared.level = "declared".into();
        let all = lines([line("ST-1.1", "seq", "pass"), declared]);
        assert_eq!(grant(Level::Core, &all), missed("ST-12"));
    }

    #[test]
    fn what_is_not_declared_is_not_offered_whatever_else_needs_the_engine() {
        let mut damage = line("C-3.3", "power", "ignored");
        let with = |line: &Line| lines([line.clone()]);
        assert_eq!(grant(Level::PowerSafe, &with(&damage)), missed("C-3"));
        damage.caps = Some("Caps { durability: Process }".into());
        assert_eq!(grant(Level::PowerSafe, &with(&damage)), Grant::NotOffered);
        assert_eq!(grant(Level::Core, &with(&damage)), missed("C-3"));
        let mut killed = line("BS-11.3", "kill", "pass");
        killed.caps = damage.caps;
        assert_eq!(grant(Level::Durable, &lines([killed])), Grant::Granted);
    }

    #[test]
    fn a_failed_kill_takes_the_loss_of_power_along() {
        let all = lines([
            line("KV-9.1", "kill", "fail"),
            line("KV-9.3", "power", "pass"),
        ]);
        assert_eq!(grant(Level::Durable, &all), missed("KV-9"));
        assert_eq!(grant(Level::PowerSafe, &all), missed("KV-9"));
        assert_eq!(grant(Level::CancelSafe, &all), Grant::NoChecks);
    }
}
