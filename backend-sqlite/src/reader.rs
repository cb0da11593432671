//! The threads that read: each has a connection of its own, and each call is one transaction, hence one moment.

use std::sync::Arc;
use std::time::Instant;

use larder_traits::{Classify, ErrorKind, Fault};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::config::SqliteConfig;
use crate::error::{Failure, closed, native, waited};
use crate::queue::Queue;
use crate::schema::open_reader;

/// A call on its way to a reader.
pub(crate) trait Look: Send {
    /// Answers from the connection, or with the failure where there is none.
    fn answer(self: Box<Self>, conn: Result<&Connection, &Failure>);
}

/// A [`Look`] made of a closure and the way back to the caller.
pub(crate) struct Read<F, R, E> {
    pub(crate) deadline: Instant,
    pub(crate) work: F,
    pub(crate) answer: oneshot::Sender<Result<R, E>>,
    /// Given back before the answer, so that whoever has an answer finds its place free again.
    pub(crate) permit: OwnedSemaphorePermit,
}

impl<F, R, E> Look for Read<F, R, E>
where
    F: FnOnce(&Connection) -> Result<R, E> + Send,
    R: Send,
    E: From<Fault> + Send,
{
    fn answer(self: Box<Self>, conn: Result<&Connection, &Failure>) {
        if self.answer.is_closed() {
            return;
        }
        let answer = match conn {
            Ok(_) if self.deadline <= Instant::now() => Err(waited().not_applied().into()),
            Ok(conn) => one_moment(conn, self.work),
            Err(failure) => Err(failure.not_applied().into()),
        };
        drop(self.permit);
        // Nobody listens where the call was dropped meanwhile.
        let _dropped = self.answer.send(answer);
    }
}

/// Runs `work` in a transaction that reads.
fn one_moment<R, E: From<Fault>>(
    conn: &Connection,
    work: impl FnOnce(&Connection) -> Result<R, E>,
) -> Result<R, E> {
    let execute = |sql: &str| conn.prepare_cached(sql)?.execute([]);
    execute("BEGIN").map_err(native)?;
    let found = work(conn);
    if !conn.is_autocommit() {
        // Nothing was written, so there is nothing to be lost; if the transaction stays open, the next `BEGIN` tells.
        let _nothing_to_lose = execute("ROLLBACK");
    }
    found
}

pub(crate) type Looks = Queue<Box<dyn Look>>;

/// Answers calls until the queue is closed.
pub(crate) fn run(config: &SqliteConfig, looks: &Arc<Looks>) {
    // A connection that could not be opened is tried again for each call.
    let mut conn = None;
    while let Some(look) = looks.wait_pop() {
        if conn.is_none() {
            match open_reader(config) {
                Ok(opened) => conn = Some(opened),
                Err(e) => {
                    let kind = e.kind();
                    let failure = Failure::new(kind, "no connection to the file for a read");
                    look.answer(Err(&failure));
                    continue;
                }
            }
        }
        let missing = Failure::new(ErrorKind::Internal, "no connection");
        look.answer(conn.as_ref().ok_or(&missing));
        // A transaction that could not be ended would be in the way of the next one.
        conn = conn.filter(Connection::is_autocommit);
    }
    for look in looks.close() {
        look.answer(Err(&closed()));
    }
}
