//! What every bench shares: contenders that take turns, medians of ratios, the table, the JSON file and the plot.
//!
//! A bench is a function that gets a [`Bench`] and fills it:
//!
//! ```ignore
//! pub(crate) fn run(bench: &mut Bench) -> Result {
//!     let work = Work::new("put, 1 KiB", Unit::PerSecond).rounds(15).goal("peer", 2.0);
//!     bench.compare(&work, vec![
//!         Contender::new(OURS, |_round| Sample::of(1000, || ours.put_thousand())),
//!         Contender::new("peer", |_round| Sample::of(1000, || peer.put_thousand())),
//!     ])?;
//!     Ok(())
//! }
//! ```

mod machine;
mod plot;
mod rounds;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

pub(crate) use machine::thread_cpu_time;
pub(crate) use rounds::{Contender, Latencies, Measured, Sample, Stopwatch, Unit, Work, median};
pub(crate) use table::{Figure, Ratio};

use rounds::take_turns;
use table::Table;

/// What can end a bench: any error at all, for nothing here recovers from one.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The name under which our side takes part.
pub(crate) const OURS: &str = "larder";

/// How long the rounds of one comparison may go on in a quick run; they stop early then, but never before the third.
const QUICK_COMPARISON_MAX: Duration = Duration::from_secs(4);

/// One run of one bench: how much effort it may make, where its files go, and what it has found so far.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Every row, but smaller and with fewer rounds: the whole run ends within a minute.
    pub(crate) quick: bool,
    folder: PathBuf,
    table: Table,
}

impl Bench {
    pub(crate) fn new(name: &str, quick: bool, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            quick,
            folder: folder.to_owned(),
            table: Table::new(name, machine::describe()),
        })
    }

    /// One number in a full run, another one in a quick run.
    pub(crate) fn either<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// An empty folder on the disk under test, which is the one that holds the results; it is gone when it is dropped.
    pub(crate) fn scratch(&self) -> Result<TempDir> {
        Ok(tempfile::Builder::new()
            .prefix("data-")
            .tempdir_in(&self.folder)?)
    }

    /// Lets the contenders take turns, and notes the figures of each and the ratios of ours against the others.
    ///
    /// Every other contender gets a ratio; those named in the work's goals are held against their goal.
    pub(crate) fn compare(
        &mut self,
        work: &Work,
        contenders: Vec<Contender<'_>>,
    ) -> Result<Measured> {
        let time_max = self.quick.then_some(QUICK_COMPARISON_MAX);
        let measured = take_turns(work, contenders, time_max)?;
        for figure in measured.figures(work) {
            self.figure(figure);
        }
        let others: Vec<String> = measured
            .contenders()
            .filter(|name| *name != OURS)
            .map(str::to_owned)
            .collect();
        if measured.contenders().any(|name| name == OURS) {
            for other in others {
                let ratios = measured.time_ratios(OURS, &other);
                self.ratio(Ratio::of(
                    &work.name,
                    &other,
                    ratios,
                    work.goal_against(&other),
                ));
                if work.cpu {
                    let ratios = measured.cpu_ratios(OURS, &other);
                    let name = format!("{}: CPU time", work.name);
                    let goal = work.cpu_goal_against(&other);
                    self.ratio(Ratio::of(&name, &other, ratios, goal));
                }
            }
        }
        Ok(measured)
    }

    /// Notes a ratio that [`compare`](Self::compare) does not find by itself: of CPU time, of memory, of a cost that grows.
    pub(crate) fn ratio(&mut self, ratio: Ratio) {
        complain(&format!("  {ratio}"));
        self.table.ratios.push(ratio);
    }

    /// Notes a figure, for orientation.
    pub(crate) fn figure(&mut self, figure: Figure) {
        self.table.figures.push(figure);
    }

    /// Notes what a reader of the table has to know.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.table.notes.push(note.into());
    }

    /// Writes the JSON file and the plot; returns the JSON.
    pub(crate) fn save(&self) -> Result<String> {
        let json = self.table.json()?;
        let file = |ending: &str| self.folder.join(format!("{}.{ending}", self.table.bench));
        fs::write(file("json"), &json)?;
        fs::write(file("svg"), plot::svg(&self.table))?;
        Ok(json)
    }

    /// The table for people.
    pub(crate) fn render(&self) -> String {
        self.table.render()
    }
}

/// The most memory that the process held at one time while `work` ran, in bytes, beyond what it held before.
pub(crate) fn peak_memory_bytes<T>(work: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
    let before = machine::reset_peak_memory()?;
    let done = work()?;
    Ok((machine::peak_memory_bytes()?.saturating_sub(before), done))
}

/// The answer, on standard output.
#[expect(clippy::print_stdout, reason = "a command prints its answer")]
pub(crate) fn print(text: &str) {
    println!("{}", text.trim_end());
}

/// Progress and errors, on standard error.
#[expect(clippy::print_stderr, reason = "a command says what it does")]
pub(crate) fn complain(text: &str) {
    eprintln!("{text}");
}
