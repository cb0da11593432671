//! Contenders that take turns.
//!
//! A shared machine changes its speed from one second to the next. Two contenders that do the same work directly after
//! each other meet the same machine, so the ratio of one round is sound where no absolute figure is; and who goes first
//! changes from round to round, so that being first is no advantage.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::machine::cpu_time;
use super::table::Figure;
use super::{OURS, Result};

/// Fewer rounds than this tell nothing, however little time there is.
const ROUNDS_MIN: usize = 3;

/// What a figure is counted in. The amounts that samples name are operations or bytes accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Operations per second.
    PerSecond,
    /// Bytes per second, shown as millions of bytes.
    MegabytesPerSecond,
    /// Time per operation, shown in microseconds.
    MicrosecondsEach,
    /// Time per operation, shown in milliseconds.
    MillisecondsEach,
}

impl Unit {
    /// What CPU time is shown in, and how much of the amount that is for.
    const fn cpu(self) -> (&'static str, f64) {
        match self {
            Self::MegabytesPerSecond => ("us CPU/MB", 1e6),
            _ => ("us CPU/op", 1.0),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "op/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::MicrosecondsEach => "us",
            Self::MillisecondsEach => "ms",
        }
    }

    fn of(self, sample: &Sample) -> f64 {
        let seconds = sample.wall.as_secs_f64();
        match self {
            Self::PerSecond => sample.amount / seconds,
            Self::MegabytesPerSecond => sample.amount / seconds / 1e6,
            Self::MicrosecondsEach => seconds * 1e6 / sample.amount,
            Self::MillisecondsEach => seconds * 1e3 / sample.amount,
        }
    }
}

/// What is to be done, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) name: String,
    unit: Unit,
    rounds: usize,
    warm_up: bool,
    pub(super) cpu: bool,
    goals: Vec<(String, f64)>,
    cpu_goals: Vec<(String, f64)>,
}

impl Work {
    /// 15 rounds after one that does not count.
    pub(crate) fn new(name: impl Into<String>, unit: Unit) -> Self {
        Self {
            name: name.into(),
            unit,
            rounds: 15,
            warm_up: true,
            cpu: false,
            goals: Vec::new(),
            cpu_goals: Vec::new(),
        }
    }

    pub(crate) const fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// Counts the first round too, for work so long that its start does not matter.
    pub(crate) const fn cold(mut self) -> Self {
        self.warm_up = false;
        self
    }

    /// Shows the CPU time per operation as well, and its ratios.
    pub(crate) const fn with_cpu(mut self) -> Self {
        self.cpu = true;
        self
    }

    /// How many times as fast as this contender ours is meant to be.
    pub(crate) fn goal(mut self, against: &str, ratio: f64) -> Self {
        self.goals.push((against.to_owned(), ratio));
        self
    }

    /// How many times less CPU time than this contender ours is meant to take.
    pub(crate) fn cpu_goal(mut self, against: &str, ratio: f64) -> Self {
        self.cpu = true;
        self.cpu_goals.push((against.to_owned(), ratio));
        self
    }

    pub(super) fn goal_against(&self, other: &str) -> Option<f64> {
        goal_in(&self.goals, other)
    }

    pub(super) fn cpu_goal_against(&self, other: &str) -> Option<f64> {
        goal_in(&self.cpu_goals, other)
    }
}

fn goal_in(goals: &[(String, f64)], other: &str) -> Option<f64> {
    let mut goals = goals.iter().filter(|(against, _)| against == other);
    goals.next().map(|(_, ratio)| *ratio)
}

/// The durations of single operations, within 1 %.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(Histogram::new(3).expect("three digits are allowed"))
    }

    pub(crate) fn record(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0
            .record(nanoseconds)
            .expect("the histogram grows to any value");
    }

    /// Does the work and records how long it took.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.record(start.elapsed());
        done
    }

    /// Adds what another thread recorded.
    pub(crate) fn add(&mut self, other: &Self) -> Result {
        self.0.add(&other.0)?;
        Ok(())
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// What one contender did in one round.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// How many operations or bytes, as the work's unit has it.
    pub(crate) amount: f64,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) latencies: Option<Latencies>,
}

impl Sample {
    /// Measures some work that does so much.
    pub(crate) fn of(amount: impl IntoAmount, work: impl FnOnce() -> Result) -> Result<Self> {
        let watch = Stopwatch::start();
        work()?;
        Ok(watch.stop(amount))
    }

    /// The same for work of one thread that only computes: its CPU time stands for its time, so that it does not count
    /// how often somebody else had the core.
    pub(crate) fn of_computing(
        amount: impl IntoAmount,
        work: impl FnOnce() -> Result,
    ) -> Result<Self> {
        let mut sample = Self::of(amount, work)?;
        sample.wall = sample.cpu;
        Ok(sample)
    }

    /// The same for work that records its single operations.
    pub(crate) fn with_latencies(
        amount: impl IntoAmount,
        work: impl FnOnce(&mut Latencies) -> Result,
    ) -> Result<Self> {
        let mut latencies = Latencies::new();
        let mut sample = Self::of(amount, || work(&mut latencies))?;
        sample.latencies = Some(latencies);
        Ok(sample)
    }

    fn seconds_each(&self) -> f64 {
        self.wall.as_secs_f64() / self.amount
    }

    fn cpu_seconds_each(&self) -> f64 {
        self.cpu.as_secs_f64() / self.amount
    }
}

/// Measures what cannot be put in one closure.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    cpu: Duration,
    start: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            cpu: cpu_time(),
            start: Instant::now(),
        }
    }

    pub(crate) fn stop(&self, amount: impl IntoAmount) -> Sample {
        let wall = self.start.elapsed();
        Sample {
            amount: amount.into_amount(),
            wall,
            cpu: cpu_time().saturating_sub(self.cpu),
            latencies: None,
        }
    }
}

/// A count that becomes a share of something.
pub(crate) trait IntoAmount {
    fn into_amount(self) -> f64;
}

impl IntoAmount for usize {
    fn into_amount(self) -> f64 {
        self as f64
    }
}

impl IntoAmount for u64 {
    fn into_amount(self) -> f64 {
        self as f64
    }
}

impl IntoAmount for i32 {
    fn into_amount(self) -> f64 {
        f64::from(self)
    }
}

/// A side of a comparison: a name, and what it does when its turn comes. It is told the number of the round.
pub(crate) struct Contender<'a> {
    name: String,
    turn: Box<dyn FnMut(usize) -> Result<Sample> + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        turn: impl FnMut(usize) -> Result<Sample> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            turn: Box::new(turn),
        }
    }
}

/// What everybody did, round by round.
#[derive(Debug)]
pub(crate) struct Measured {
    sides: Vec<(String, Vec<Sample>)>,
}

/// Runs the rounds: A B, B A, A B and so on; of three, each is first, second and last in turn.
pub(super) fn take_turns(
    work: &Work,
    mut contenders: Vec<Contender<'_>>,
    time_max: Option<Duration>,
) -> Result<Measured> {
    super::complain(&format!("{} ...", work.name));
    if work.warm_up {
        for contender in &mut contenders {
            (contender.turn)(0)?;
        }
    }
    let mut sides: Vec<(String, Vec<Sample>)> = contenders
        .iter()
        .map(|contender| (contender.name.clone(), Vec::new()))
        .collect();
    let start = Instant::now();
    for round in 0..work.rounds {
        if round >= ROUNDS_MIN && time_max.is_some_and(|max| start.elapsed() > max) {
            break;
        }
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        order.rotate_left(round % contenders.len().max(1));
        for side in order {
            sides[side].1.push((contenders[side].turn)(round)?);
        }
    }
    Ok(Measured { sides })
}

impl Measured {
    pub(crate) fn contenders(&self) -> impl Iterator<Item = &str> {
        self.sides.iter().map(|(name, _)| name.as_str())
    }

    /// The samples of one contender, in the order of the rounds; none if it did not take part.
    pub(crate) fn samples(&self, name: &str) -> &[Sample] {
        let mut found = self.sides.iter().filter(|(side, _)| side == name);
        found.next().map_or(&[], |(_, samples)| samples)
    }

    /// By round: the time that the other one took over the time that this one took, for the same amount.
    pub(crate) fn time_ratios(&self, this: &str, other: &str) -> Vec<f64> {
        self.ratios(this, other, Sample::seconds_each)
    }

    /// By round: the same of CPU time.
    pub(crate) fn cpu_ratios(&self, this: &str, other: &str) -> Vec<f64> {
        self.ratios(this, other, Sample::cpu_seconds_each)
    }

    fn ratios(&self, this: &str, other: &str, cost: impl Fn(&Sample) -> f64) -> Vec<f64> {
        let rounds = self.samples(this).iter().zip(self.samples(other));
        rounds
            .map(|(this, other)| cost(other) / cost(this))
            .collect()
    }

    pub(super) fn figures(&self, work: &Work) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (name, samples) in &self.sides {
            let values: Vec<f64> = samples.iter().map(|it| work.unit.of(it)).collect();
            figures.push(Figure::new(
                &work.name,
                name,
                median(&values),
                work.unit.name(),
            ));
            if work.cpu {
                let (unit, amount) = work.unit.cpu();
                let each: Vec<f64> = samples
                    .iter()
                    .map(|it| it.cpu_seconds_each() * amount * 1e6)
                    .collect();
                figures.push(Figure::new(&work.name, name, median(&each), unit));
            }
            let mut all = Latencies::new();
            for latencies in samples.iter().filter_map(|it| it.latencies.as_ref()) {
                drop(all.add(latencies));
            }
            if !all.0.is_empty() {
                let medians: Vec<f64> = samples
                    .iter()
                    .filter_map(|it| Some(it.latencies.as_ref()?.quantile_us(0.5)))
                    .collect();
                let mut figure = Figure::new(&work.name, name, median(&medians), "us latency");
                figure.p50 = Some(all.quantile_us(0.5));
                figure.p99 = Some(all.quantile_us(0.99));
                figures.push(figure);
            }
        }
        // Ours first, whoever began.
        figures.sort_by_key(|figure| figure.contender != OURS);
        figures
    }
}

/// The middle of some values, and the mean of the two middle ones where their number is even; not a number if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleepless(amount: u64, millis: u64) -> Sample {
        Sample {
            amount: amount as f64,
            wall: Duration::from_millis(millis),
            cpu: Duration::ZERO,
            latencies: None,
        }
    }

    #[test]
    fn a_ratio_is_of_one_round_and_of_the_same_amount() {
        let work = Work::new("work", Unit::PerSecond).rounds(3);
        let ours = [10, 20, 40];
        let theirs = [20, 100, 120];
        let measured = take_turns(
            &work,
            vec![
                Contender::new(OURS, |round| Ok(sleepless(1, ours[round]))),
                Contender::new("peer", |round| Ok(sleepless(2, theirs[round]))),
            ],
            None,
        )
        .expect("nothing fails here");
        assert_eq!(measured.time_ratios(OURS, "peer"), [1.0, 2.5, 1.5]);
        assert_eq!(median(&measured.time_ratios(OURS, "peer")), 1.5);
        let figures = measured.figures(&work);
        assert_eq!(figures[0].contender, OURS);
        assert_eq!(figures[0].median, 50.0);
    }

    #[test]
    fn who_goes_first_changes_and_a_short_time_still_gives_three_rounds() {
        let order = std::cell::RefCell::new(Vec::new());
        let turn = |name: &'static str| {
            let order = &order;
            Contender::new(name, move |_| {
                order.borrow_mut().push(name);
                Ok(sleepless(1, 1))
            })
        };
        let work = Work::new("work", Unit::PerSecond).cold();
        let measured = take_turns(&work, vec![turn("a"), turn("b")], Some(Duration::ZERO))
            .expect("nothing fails here");
        assert_eq!(*order.borrow(), ["a", "b", "b", "a", "a", "b"]);
        assert_eq!(measured.samples("a").len(), ROUNDS_MIN);
    }

    #[test]
    fn latencies_of_any_length_keep_three_digits() {
        let mut latencies = Latencies::new();
        for millis in 1..=1000 {
            latencies.record(Duration::from_millis(millis));
        }
        let near = |quantile: f64, us: f64| {
            let found = latencies.quantile_us(quantile);
            assert!((found / us - 1.0).abs() < 0.002, "{found} for {us}");
        };
        near(0.5, 500e3);
        near(0.99, 990e3);
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
