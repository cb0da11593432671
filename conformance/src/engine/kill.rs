//! Processes that are killed: this program is run again as a victim, works and tells each acknowledgement over a pipe,
//! and is killed at a moment that chance picks. Then its place is opened here and compared with what was told.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use proptest::prelude::Rng;
use serde::{Deserialize, Serialize};

use super::work::{Crew, Hire, Told};
use crate::check::{CheckInfo, Outcome, Stop, Verdict};
use crate::cx::Cx;
use crate::fixture::{Env, Folders, World};
use crate::profile::Profile;

/// The variable that makes a process a victim.
const VARIABLE: &str = "LARDER_VICTIM";

/// How many operations are done before the first process is started, so that it has something to find.
const BEFORE: u64 = 2;

/// How long a process may take to say its first word, on a machine that does much else.
const START_MAX: Duration = Duration::from_secs(30);

/// How long it works at most, from its first acknowledgement on.
const WORK_MAX: Duration = Duration::from_millis(1_500);

/// How many acknowledgements are waited for at most before it is killed.
const ACKNOWLEDGED_MAX: u64 = 80;

/// How long after an acknowledgement the kill comes at most, where operations are quicker than that.
const DELAY: Duration = Duration::from_millis(3);

/// The least time by which an operation can be said to take longer than others.
const LONG_MIN: Duration = Duration::from_micros(500);

/// How long a place may take to let go of a lock of its former owner.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// Whether the program said that it can be run again ([`victims`](crate::harness::victims)).
static ALLOWED: AtomicBool = AtomicBool::new(false);

pub(crate) fn allow() {
    ALLOWED.store(true, Ordering::Relaxed);
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// Killed while it works.
    Killed,
    /// By itself, without a word to the store, after so many operations of each worker.
    Left(u64),
    /// By itself, with all handles dropped, after so many operations of each worker.
    Dropped(u64),
}

/// What a victim has to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) label: String,
    contract: String,
    check: String,
    pub(crate) seed: u64,
    profile: String,
    prefix: String,
    folders: Vec<PathBuf>,
    links: PathBuf,
    /// How many operations each worker has behind it.
    done: Vec<u64>,
    end: End,
}

impl Orders {
    pub(crate) fn env(&self, seed: u64) -> Env {
        Env {
            prefix: self.prefix.clone(),
            seed,
            folders: Arc::new(Folders::again(self.folders.clone(), &self.links)),
        }
    }

    pub(crate) fn profile(&self) -> Profile {
        Profile::by_name(&self.profile).unwrap_or_default()
    }

    pub(crate) fn is_for(&self, info: &CheckInfo) -> bool {
        info.id == self.check && info.contract.name() == self.contract
    }
}

/// The orders of this process, if it is a victim.
pub(crate) fn orders() -> Option<Result<Orders, String>> {
    let text = std::env::var(VARIABLE).ok()?;
    Some(serde_json::from_str(&text).map_err(|e| format!("{VARIABLE}: {e}")))
}

/// What a victim says.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Word {
    /// It found what it was told of.
    Ready,
    /// It did not; in words.
    Missing(String),
    /// That worker's operation is done, and whether everything up to it is durable.
    Done(usize, u64, bool),
    /// All operations are done.
    End,
    /// A call failed that must not.
    Failed(String),
    /// It cannot work here, for this reason.
    Unable(String),
}

/// A line that nothing else on standard output looks like.
const MARK: &str = "larder-victim ";

fn say(word: &Word) {
    let line = serde_json::to_string(word).expect("a word is plain data");
    // Nobody listens any more only if the parent is gone, and then this process has no purpose.
    if writeln!(std::io::stdout().lock(), "{MARK}{line}").is_err() {
        std::process::exit(1);
    }
}

/// Tells how the check ended in the victim, where that is not the usual way.
pub(crate) fn report(verdict: &Verdict) {
    match verdict {
        Verdict::Pass => {}
        Verdict::Fail(failure) => say(&Word::Failed(format!(
            "{}: {}, expected {}",
            failure.what, failure.observed, failure.expected
        ))),
        other => say(&Word::Unable(other.reason().unwrap_or_default())),
    }
}

/// Has the place worked on by processes that end like that, one after the other, and looks after each of them whether
/// everything that was acknowledged is there and nothing is torn.
pub(crate) async fn survives<W>(cx: &Cx<W>, hire: Hire<W>, ends: &[End]) -> Outcome
where
    W: World + ?Sized,
{
    survives_while(cx, hire, ends, |_| Box::pin(async { Ok(()) })).await
}

/// The same, and looks at something else while each process works.
pub(crate) async fn survives_while<W>(
    cx: &Cx<W>,
    hire: Hire<W>,
    ends: &[End],
    during: During<W>,
) -> Outcome
where
    W: World + ?Sized,
{
    if let Some(orders) = &cx.start().orders {
        return obey(cx, orders, hire).await;
    }
    if !ALLOWED.load(Ordering::Relaxed) {
        let why = "needs a program that can be run again as a victim: the suite's test harness";
        return Err(Stop::Ignored(why.into()));
    }
    let links = tempfile::Builder::new()
        .prefix("larder-links-")
        .tempdir()
        .map_err(|e| Stop::Inconclusive(format!("no temporary folder: {e}")))?;
    let mut crew = hire(cx).await?;
    let mut done = Vec::new();
    for worker in &mut crew {
        let mut told = Told::default();
        for n in 0..BEFORE {
            told.begun = n + 1;
            if worker.perform(n).await? {
                told.durable = told.begun;
            }
        }
        done.push(worker.judge(told).await?);
    }
    drop(crew);
    let mut acknowledged = 0;
    let mut rng = cx.rng();
    for (round, end) in ends.iter().enumerate() {
        let victim = Victim::start(cx, *end, &done, links.path().to_owned())?;
        victim.is_ready(cx)?;
        during(cx).await?;
        let told = victim.work(*end, &done, &mut rng)?;
        for (told, done) in told.iter().zip(&done) {
            acknowledged += told.durable - done;
            let line = format!(
                "process {round} ended ({end:?}) with {} of {} operations of a worker durable",
                told.durable, told.begun
            );
            cx.log().push(line);
        }
        let mut crew = hire_patiently(cx, hire).await?;
        for ((worker, told), done) in crew.iter_mut().zip(told).zip(&mut done) {
            *done = worker.judge(told).await?;
            // It has to be a place to go on in, and not only one to read.
            worker.perform(*done).await?;
            let told = Told {
                durable: *done,
                begun: *done + 1,
            };
            *done = worker.judge(told).await?;
        }
    }
    if acknowledged == 0 {
        return Err(Stop::Inconclusive(
            "nothing was acknowledged in time".into(),
        ));
    }
    Ok(())
}

/// Looks at something while the process works.
pub(crate) type During<W> = for<'a> fn(&'a Cx<W>) -> LocalBoxFuture<'a, Outcome>;

/// As many kills as the profile asks for.
pub(crate) fn kills<W: World + ?Sized>(cx: &Cx<W>) -> Vec<End> {
    vec![End::Killed; cx.profile.kills(cx.world().is_remote())]
}

/// Opens the place, again where a former owner may still be letting go of it.
pub(crate) async fn hire_patiently<W>(cx: &Cx<W>, hire: Hire<W>) -> Result<Crew, Stop>
where
    W: World + ?Sized,
{
    let started = Instant::now();
    loop {
        match hire(cx).await {
            Err(Stop::Fail(_)) if started.elapsed() < RELEASE_MAX => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other,
        }
    }
}

struct Victim {
    child: Child,
    words: Receiver<Word>,
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Victim {
    fn start<W>(cx: &Cx<W>, end: End, done: &[u64], links: PathBuf) -> Result<Self, Stop>
    where
        W: World + ?Sized,
    {
        let orders = Orders {
            label: cx.start().label.clone(),
            contract: cx.info().contract.name().to_owned(),
            check: cx.info().id.to_owned(),
            seed: cx.seed(),
            profile: cx.profile.name().to_owned(),
            prefix: cx.env().prefix.clone(),
            folders: cx.env().folders.given(),
            links,
            done: done.to_vec(),
            end,
        };
        let orders = serde_json::to_string(&orders).expect("orders are plain data");
        let unable = |e: std::io::Error| Stop::Inconclusive(format!("no process to kill: {e}"));
        let program = std::env::current_exe().map_err(unable)?;
        let mut child = Command::new(program)
            .env(VARIABLE, orders)
            // It ends with its standard input, so that no victim outlives its parent.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(unable)?;
        let output = child.stdout.take().expect("it was asked for");
        let (send, words) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { return };
                // What the kill cut off is no word.
                let word = line.strip_prefix(MARK).map(serde_json::from_str::<Word>);
                if let Some(Ok(word)) = word
                    && send.send(word).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { child, words })
    }

    fn hear(&self, bound: Duration) -> Result<Option<Word>, Stop> {
        match self.words.recv_timeout(bound) {
            Ok(Word::Failed(what)) => Err(Stop::fail("a call in the process", what, "no error")),
            Ok(Word::Unable(why)) => Err(Stop::Inconclusive(format!("the process: {why}"))),
            Ok(word) => Ok(Some(word)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    /// Waits until it has found what it was told of, and works.
    fn is_ready<W: World + ?Sized>(&self, cx: &Cx<W>) -> Outcome {
        match self.hear(START_MAX)? {
            Some(Word::Ready) => Ok(()),
            Some(Word::Missing(what)) => Err(missing(cx, what)),
            _ => {
                let why = format!("the process did not start to work in {START_MAX:?}");
                Err(Stop::Inconclusive(why))
            }
        }
    }

    /// Waits until a worker is at an operation for so long, or for as long as it may work.
    fn takes_long(&self, long: Duration, until: Instant, told: &mut [Told]) -> Outcome {
        let mut last = vec![Instant::now(); told.len()];
        loop {
            if Instant::now() >= until {
                return Ok(());
            }
            let oldest = last.iter().min().copied().unwrap_or(until);
            let end = until.min(oldest + long);
            let left = end.saturating_duration_since(Instant::now());
            match self.hear(left)? {
                Some(Word::Done(worker, n, is_durable)) => {
                    acknowledge(told, worker, n, is_durable);
                    if let Some(last) = last.get_mut(worker) {
                        *last = Instant::now();
                    }
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }

    /// Lets it work and come to its end; how far each worker got.
    fn work(mut self, end: End, done: &[u64], rng: &mut impl Rng) -> Result<Vec<Told>, Stop> {
        let mut told: Vec<Told> = done.iter().map(|done| Told::all(*done)).collect();
        let workers = u32::try_from(told.len()).unwrap_or(u32::MAX);
        let wanted = 1 + rng.next_u64() % ACKNOWLEDGED_MAX;
        let mut heard: u32 = 0;
        let mut first = None;
        let mut last = Instant::now();
        let mut until = Instant::now() + START_MAX;
        while end != End::Killed || u64::from(heard) < wanted {
            let left = until.saturating_duration_since(Instant::now());
            match self.hear(left)? {
                Some(Word::Done(worker, n, is_durable)) => {
                    acknowledge(&mut told, worker, n, is_durable);
                    heard += 1;
                    last = Instant::now();
                    first.get_or_insert(last);
                    if heard == 1 && end == End::Killed {
                        until = Instant::now() + WORK_MAX;
                    }
                }
                Some(Word::End) => break,
                Some(_) => {}
                None if end == End::Killed => break,
                None => {
                    let why = "the process did not come to its end";
                    return Err(Stop::Inconclusive(why.into()));
                }
            }
        }
        if end == End::Killed {
            // A third of the time soon after an operation, a third anywhere in the next ones, however long they take, and a
            // third in one that takes longer than others do: what a store does seldom, it does slowly.
            let worked = first.map_or(Duration::ZERO, |first| last.duration_since(first));
            let usual = worked / heard.max(1);
            let delay = match rng.next_u32() % 3 {
                0 => DELAY,
                1 => (usual * 2).clamp(DELAY, WORK_MAX),
                _ => {
                    let long = (usual * workers * 2).clamp(LONG_MIN, WORK_MAX);
                    self.takes_long(long, until, &mut told)?;
                    long
                }
            };
            std::thread::sleep(delay.mul_f64(fraction(rng)));
            drop(self.child.kill());
        }
        let unable = |e: std::io::Error| Stop::Inconclusive(format!("the process: {e}"));
        self.child.wait().map_err(unable)?;
        // What it said before it died is still in the pipe.
        while let Some(word) = self.hear(START_MAX)? {
            if let Word::Done(worker, n, is_durable) = word {
                acknowledge(&mut told, worker, n, is_durable);
            }
        }
        if end == End::Killed {
            // The operation after the last acknowledged one had begun, or may have.
            for told in &mut told {
                told.begun += 1;
            }
        }
        Ok(told)
    }
}

/// A number from 0 to 1.
fn fraction(rng: &mut impl Rng) -> f64 {
    f64::from(rng.next_u32()) / f64::from(u32::MAX)
}

fn acknowledge(told: &mut [Told], worker: usize, n: u64, is_durable: bool) {
    if let Some(told) = told.get_mut(worker) {
        told.begun = n + 1;
        if is_durable {
            told.durable = n + 1;
        }
    }
}

/// A victim that does not find what was acknowledged: the store lost it, or the fixture opened another place.
fn missing<W: World + ?Sized>(cx: &Cx<W>, what: String) -> Stop {
    let is_shared = cx.world().child() || !cx.env().folders.given().is_empty();
    if is_shared {
        let what_for = "what was acknowledged before, seen by another process";
        return Stop::fail(
            what_for,
            what,
            "all of it, since that is declared to outlive this process",
        );
    }
    Stop::Ignored(
        "needs a world that another process can open: folders from Env::tempdir, or the power child()"
            .into(),
    )
}

/// The part of the process that will be killed.
async fn obey<W>(cx: &Cx<W>, orders: &Orders, hire: Hire<W>) -> Outcome
where
    W: World + ?Sized,
{
    std::thread::spawn(|| {
        // Its end is that of the parent; what comes before it does not matter.
        drop(std::io::stdin().lock().read_to_end(&mut Vec::new()));
        std::process::exit(1);
    });
    let mut crew = match hire_patiently(cx, hire).await {
        Ok(crew) => crew,
        Err(Stop::Fail(failure)) => {
            say(&Word::Missing(format!(
                "{}: {}",
                failure.what, failure.observed
            )));
            return Ok(());
        }
        Err(stop) => return Err(stop),
    };
    for (worker, done) in crew.iter_mut().zip(&orders.done) {
        if let Err(Stop::Fail(failure)) = worker.judge(Told::all(*done)).await {
            let found = format!(
                "{}: {}, expected {}",
                failure.what, failure.observed, failure.expected
            );
            say(&Word::Missing(found));
            return Ok(());
        }
    }
    say(&Word::Ready);
    let count = match orders.end {
        End::Killed => u64::MAX,
        End::Left(count) | End::Dropped(count) => count,
    };
    let runtime = tokio::runtime::Handle::current();
    let threads: Vec<_> = crew
        .into_iter()
        .zip(orders.done.clone())
        .enumerate()
        .map(|(at, (mut worker, done))| {
            let runtime = runtime.clone();
            std::thread::spawn(move || {
                runtime.block_on(async {
                    for n in done..done.saturating_add(count) {
                        match worker.perform(n).await {
                            Ok(is_durable) => say(&Word::Done(at, n, is_durable)),
                            Err(Stop::Fail(failure)) => {
                                let what = format!("{}: {}", failure.what, failure.observed);
                                say(&Word::Failed(what));
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                });
                worker
            })
        })
        .collect();
    let crew: Vec<_> = threads
        .into_iter()
        .map(std::thread::JoinHandle::join)
        .collect();
    if crew.iter().any(Result::is_err) {
        say(&Word::Failed("a panic".into()));
    }
    if let End::Left(_) = orders.end {
        say(&Word::End);
        // Commit point: nothing that the store does at its end is done.
        std::process::exit(0);
    }
    drop(crew);
    cx.settle().await;
    say(&Word::End);
    Ok(())
}
