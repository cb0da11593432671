//! The resource: one file, the thread that writes it, the threads that read it, and how calls get there and back.
//!
//! # Calls that are dropped
//!
//! What is declared is [`LateLanding::Fenced`](larder_traits::LateLanding::Fenced), for this reason (C-6). A write is
//! in the queue until the writer takes it, and the writer takes it only while it holds the write lock of the file.
//! When its future is dropped, the write is withdrawn from the queue. Withdrawing and taking exclude each other:
//!
//! * It was withdrawn. Then it never runs.
//! * It was taken. Then the lock is held, and its transaction ends before the lock is free. Any write that is made
//!   later, on this handle, on another or in another process, needs that lock and is committed after it, on top of it.
//!   Any read that is made later on this handle or its clones waits for that transaction to end, so that it sees all of
//!   it. A read through another handle may fall into the time of that one commit and still see the state before it.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use larder_traits::{Caps, Classify, ErrorKind, Fault};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::config::SqliteConfig;
use crate::error::{closed, lost, native, waited};
use crate::queue::{Pushed, Queue};
use crate::reader::{self, Looks, Read};
use crate::schema::{BUSY_PAUSE, absolute, open_writer};
use crate::writer::{Jobs, Tx, Undo, Verdict, Write, Writer};
use crate::{SqliteChangeLog, SqliteHighVolume, SqliteKvClient, SqliteStash};

/// A handle on one file, from which those of the single contracts are made.
///
/// All of them are cheap to clone and share one set of threads, which ends with the last of them. Opening the file
/// again, here or in another process, gives a handle that sees the same (C-2).
#[derive(Clone)]
pub struct SqlitePlace {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<SqliteConfig>,
    epoch: i64,
    permits: Arc<Semaphore>,
    jobs: Arc<Jobs>,
    looks: Arc<Looks>,
    /// The highest ticket of a write that was dropped after the writer had taken it.
    dropped: AtomicU64,
    /// All writes up to this ticket that were taken are answered.
    done: watch::Receiver<u64>,
    /// How many threads there are.
    threads: watch::Sender<usize>,
}

/// How many things a file holds physically; what a call could see of them may be fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Rows of all stash collections, merged as far as they are.
    pub stash_rows: u64,
    /// Entries of `KvClient`, expired ones included.
    pub kv_entries: u64,
    /// Objects and redirects, expired ones included.
    pub rows: u64,
    /// Payloads of objects.
    pub payloads: u64,
    /// Changes in the change log.
    pub changes: u64,
}

/// A deadline beyond what the platform's clock can express is this far away.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl SqlitePlace {
    /// Opens the file, and creates it where it is missing (C-2).
    ///
    /// # Errors
    ///
    /// All `NotApplied`. `InvalidInput`: the file belongs to another program, which is left as it is. `Unsupported`:
    /// it was written by a newer version, or lies where no write-ahead log can be kept. `Corrupt`: it is damaged, or
    /// no SQLite file. `Timeout`: other writers held it for all of the configured wait. `Unavailable`,
    /// `PermissionDenied`, `NoSpace`: what the operating system says of it.
    pub async fn open(mut config: SqliteConfig) -> Result<Self, Fault> {
        config.path = absolute(&config.path)?;
        let config = Arc::new(config);
        let jobs = Arc::new(Queue::new());
        let (done_at, done) = watch::channel(0);
        let threads = watch::Sender::new(0);
        let (answer, opened) = oneshot::channel();
        {
            let (config, jobs) = (Arc::clone(&config), Arc::clone(&jobs));
            let others = threads.subscribe();
            start(&threads, NonZeroUsize::MIN, "larder-sq-write", move || {
                match open_writer(&config) {
                    Err(refusal) => drop(answer.send(Err(refusal))),
                    Ok(opened) => {
                        let epoch = opened.1;
                        let mut writer = Writer::new(opened, config, jobs, done_at);
                        // Where the caller dropped the opening, nobody will ever close the queue.
                        if answer.send(Ok(epoch)).is_ok() {
                            writer.run();
                            // Of two connections that close at once each takes the other for one that stays, and
                            // neither folds the log into the file.
                            while *others.borrow() > 1 {
                                sleep(BUSY_PAUSE);
                            }
                        }
                    }
                }
            })?;
        }
        // From here on the queues are closed when the value is dropped, and the threads end.
        let mut inner = Inner {
            permits: Arc::new(Semaphore::new(
                config.in_flight_max.get().min(Semaphore::MAX_PERMITS),
            )),
            config,
            epoch: 0,
            jobs,
            looks: Arc::new(Queue::new()),
            dropped: AtomicU64::new(0),
            done,
            threads,
        };
        inner.epoch = match opened.await {
            Ok(opened) => opened?,
            Err(_) => return Err(lost()),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What the handles made from this one declare.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.inner.config.caps
    }

    /// The file as a `Stash`.
    #[must_use]
    pub fn stash(&self) -> SqliteStash {
        SqliteStash(self.clone())
    }

    /// The file as a `KvClient`.
    #[must_use]
    pub fn kv_client(&self) -> SqliteKvClient {
        SqliteKvClient(self.clone())
    }

    /// The file as a `Backend` and `HighVolumeBackend`.
    #[must_use]
    pub fn high_volume(&self) -> SqliteHighVolume {
        SqliteHighVolume(self.clone())
    }

    /// The file as a `ChangeLog`.
    #[must_use]
    pub fn change_log(&self) -> SqliteChangeLog {
        SqliteChangeLog(self.clone())
    }

    /// Shuts the handle down with all its clones and waits until its threads have ended and its connections are closed.
    ///
    /// Calls that run are answered first. Those that wait, and all later ones, end as `Closed`, `NotApplied`.
    pub async fn close(&self) {
        self.inner.shut();
        let mut threads = self.inner.threads.subscribe();
        // The sender is in `self`, so the wait cannot fail.
        let _ended = threads.wait_for(|threads| *threads == 0).await;
    }

    /// Waits until the transaction that runs on behalf of dropped calls has ended. Those that were not in one by then
    /// are withdrawn and leave nothing behind.
    pub async fn settled(&self) {
        let dropped = self.inner.dropped.load(Ordering::Acquire);
        let mut done = self.inner.done.clone();
        if *done.borrow() < dropped {
            // The writer is gone if this fails, and nothing runs any more.
            let _writer_gone = done.wait_for(|done| *done >= dropped).await;
        }
    }

    /// How much the file holds at the moment, for tests that look for leaks.
    ///
    /// # Errors
    ///
    /// Those of any read.
    pub async fn held(&self) -> Result<Held, Fault> {
        self.read(|conn| {
            let count = |table: &str| -> Result<u64, Fault> {
                let sql = format!("SELECT count(*) FROM {table}");
                let count = conn.query_row(&sql, [], |row| row.get::<_, i64>(0));
                Ok(u64::try_from(count.map_err(native)?).unwrap_or(0))
            };
            Ok(Held {
                stash_rows: count("stash_rows")?,
                kv_entries: count("kv_entries")?,
                rows: count("hv_rows")?,
                payloads: count("hv_payloads")?,
                changes: count("change_log")?,
            })
        })
        .await
    }

    pub(crate) fn config(&self) -> &Arc<SqliteConfig> {
        &self.inner.config
    }

    /// The epoch that the handle was opened in.
    pub(crate) fn epoch(&self) -> i64 {
        self.inner.epoch
    }

    /// Runs `work` in a transaction, alone or with others, and answers when that is committed. What `work` wrote is
    /// undone if it returns an error.
    pub(crate) async fn write<R, E, F>(&self, undo: Undo, work: F) -> Result<R, E>
    where
        F: FnOnce(&Tx<'_>) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: From<Fault> + Classify + Send + 'static,
    {
        let (deadline, permit) = self.admit().await?;
        let (answer, answered) = oneshot::channel();
        let job = Box::new(Write {
            deadline,
            undo,
            work: Some(work),
            found: None,
            answer,
            permit,
        });
        match self.inner.jobs.push(job) {
            Pushed::Ticket { ticket, .. } => {
                let mut on_drop = Withdraw {
                    inner: &self.inner,
                    ticket: Some(ticket),
                };
                let answer = answered.await;
                on_drop.ticket = None;
                answer.unwrap_or_else(|_| Err(lost().into()))
            }
            Pushed::Closed(job) => {
                job.finish(&Verdict::NotApplied(closed()));
                answered.await.unwrap_or_else(|_| Err(lost().into()))
            }
        }
    }

    /// Runs `work` in a transaction that reads, which is one moment.
    pub(crate) async fn read<R, E, F>(&self, work: F) -> Result<R, E>
    where
        F: FnOnce(&Connection) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        self.settled().await;
        let (deadline, permit) = self.admit().await?;
        let (answer, answered) = oneshot::channel();
        let look = Box::new(Read {
            deadline,
            work,
            answer,
            permit,
        });
        match self.inner.looks.push(look) {
            Pushed::Ticket {
                ticket,
                short_of_hands: true,
            } => {
                if let Err(e) = self.inner.start_reader() {
                    self.inner.looks.take_back(ticket);
                    return Err(e.into());
                }
            }
            Pushed::Ticket { .. } => {}
            Pushed::Closed(look) => look.answer(Err(&closed())),
        }
        // A read has no effect, whatever became of it.
        let gone = || Fault::not_applied(ErrorKind::Internal, "a thread of the handle ended");
        answered.await.unwrap_or_else(|_| Err(gone().into()))
    }

    /// Waits for a place among the calls in flight (C-4).
    ///
    /// There is no timer in this: places come free as calls end, and those in the queue end at the latest when their
    /// own wait is over, so whoever waits here is woken in time to see that his is.
    async fn admit(&self) -> Result<(Instant, OwnedSemaphorePermit), Fault> {
        let now = Instant::now();
        let deadline = now
            .checked_add(self.inner.config.wait.min(FAR))
            .unwrap_or(now);
        let permit = Arc::clone(&self.inner.permits).acquire_owned().await;
        let permit = permit.map_err(|_closed| closed().not_applied())?;
        if deadline <= Instant::now() {
            return Err(waited().not_applied());
        }
        Ok((deadline, permit))
    }
}

impl Inner {
    /// Starts one more reader, up to the bound. Only the first one has to succeed.
    fn start_reader(&self) -> Result<(), Fault> {
        let (config, looks) = (Arc::clone(&self.config), Arc::clone(&self.looks));
        // The writer is one of the threads.
        let threads_max = self.config.readers_max.saturating_add(1);
        let started = start(&self.threads, threads_max, "larder-sq-read", move || {
            reader::run(&config, &looks);
        });
        started.or_else(|e| {
            let others = *self.threads.borrow() > 1;
            others.then_some(()).ok_or(e)
        })
    }

    fn shut(&self) {
        self.permits.close();
        for job in self.jobs.close() {
            job.finish(&Verdict::NotApplied(closed()));
        }
        for look in self.looks.close() {
            look.answer(Err(&closed()));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shut();
    }
}

impl fmt::Debug for SqlitePlace {
    /// Which file it is, and nothing of what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlitePlace")
            .field("path", &self.inner.config.path)
            .finish_non_exhaustive()
    }
}

/// Withdraws a write whose future is dropped before it was answered.
struct Withdraw<'a> {
    inner: &'a Inner,
    ticket: Option<u64>,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket
            && self.inner.jobs.take_back(ticket).is_none()
        {
            self.inner.dropped.fetch_max(ticket, Ordering::AcqRel);
        }
    }
}

/// Starts a thread that is counted for as long as it runs, if there are fewer than `max`.
fn start(
    threads: &watch::Sender<usize>,
    max: NonZeroUsize,
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<(), Fault> {
    struct Counted(watch::Sender<usize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.send_modify(|threads| *threads -= 1);
        }
    }
    let one_more = threads.send_if_modified(|threads| {
        let below = *threads < max.get();
        *threads += usize::from(below);
        below
    });
    if !one_more {
        return Ok(());
    }
    let counted = Counted(threads.clone());
    let thread = thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(move || {
        let _counted = counted;
        run();
    });
    match spawned {
        Ok(_detached) => Ok(()),
        Err(e) => {
            let message = "no thread could be started";
            Err(Fault::not_applied(ErrorKind::Unavailable, message).because(e))
        }
    }
}

#[cfg(test)]
mod tests;
