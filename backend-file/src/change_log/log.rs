//! The file, and what is done to it under the lock.
//!
//! # Order
//!
//! Whoever has the lock reads what others have appended, decides, appends one frame, syncs it, and only then lets the
//! lock go: every frame that has another behind it is durable. A file that has grown far beyond what it says is written
//! anew beside the old one, made durable, and moved over it; nothing is appended to it before that is durable too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use larder_traits::stash::codec;
use larder_traits::{Classify, ErrorKind, Fault, Outcome};

use super::frame::{Cursor, Head};
use super::state::{Entry, State};
use crate::objects::threads::Call;
use crate::plain::{Medium, SECTOR_LEN_BYTES, corrupt, failed, kind_of, lock, unique};

/// A file shorter than this is not written anew.
const COMPACT_SECTORS_MIN: u64 = 512;

/// How many times longer than after the last time a file is when it is written anew.
const COMPACT_GROWTH: u64 = 4;

/// How many entries are in a frame of a file that is written anew.
const ENTRIES_PER_FRAME: usize = 256;

/// Behind the name of the log, the name of its lock.
const LOCK: &str = ".lock";

const SECTOR: u64 = SECTOR_LEN_BYTES as u64;

/// The log as one handle knows it.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    /// The lock of the log lies in a file of its own, since the log's is replaced.
    lock_file: File,
    pub(super) medium: Medium,
    /// What was read; `None` where that must be done again.
    opened: Option<Opened>,
    /// A sync has failed: what it was to make durable may be lost without another sync saying so.
    is_doubtful: bool,
}

#[derive(Debug)]
struct Opened {
    file: File,
    head: Head,
    /// Behind the last whole frame.
    end: Cursor,
    state: State,
    /// How many sectors there are when it is time to write the file anew.
    compact_at: u64,
}

/// A failure that several calls are told of, since a [`Fault`] is for one.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: ErrorKind,
    outcome: Outcome,
    message: &'static str,
    detail: String,
}

impl Failure {
    /// For a call that would have changed something.
    pub(super) fn fault(&self) -> Fault {
        let fault = Fault::not_applied(self.kind, self.message).because(self.detail.clone());
        match self.outcome {
            Outcome::NotApplied => fault,
            Outcome::Unknown => fault.now_unknown(),
        }
    }

    /// For a call that would not.
    pub(super) fn not_applied(&self) -> Fault {
        Fault::not_applied(self.kind, self.message).because(self.detail.clone())
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self {
            kind: fault.kind(),
            outcome: fault.outcome(),
            message: "the change log could not be written",
            detail: format!("{fault:?}"),
        }
    }
}

/// Calls that share a sync.
pub(super) trait Batch {
    /// Lets each decide by the state that it finds, and collects what they change.
    fn decide(&mut self, state: &mut State) -> Vec<Entry>;
    /// Tells each what became of it.
    fn answer(self, outcome: Result<(), Failure>);
}

fn unread() -> impl FnOnce(io::Error) -> Fault {
    failed("the change log could not be read")
}

fn unwritten() -> impl FnOnce(io::Error) -> Fault {
    failed("the change log could not be written")
}

/// The path with this added to the name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Log {
    /// Opens the log, and makes it where it is missing.
    pub(super) fn open(path: &Path, medium: Medium, call: &Call<'_>) -> Result<Self, Fault> {
        let path = std::path::absolute(path).map_err(|e| {
            let message = "the path is none that a file can have";
            Fault::not_applied(ErrorKind::InvalidInput, message).because(e)
        })?;
        // Before a lock is laid beside what may be anything.
        refuse_foreign(&path)?;
        let mut log = Self {
            lock_file: open_lock(&path)?,
            path,
            medium,
            opened: None,
            is_doubtful: false,
        };
        log.locked(call, |log| {
            if !log.path.try_exists().map_err(unread())? {
                log.replace(&State::default(), 0)?;
            }
            log.refresh().map(|opened| log.opened = Some(opened))
        })?;
        Ok(log)
    }

    fn locked<R>(
        &mut self,
        call: &Call<'_>,
        work: impl FnOnce(&mut Self) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        lock(&self.lock_file, call)?;
        // Somebody may have cleared it away as useless, and others lock the one that was made since.
        while !is_at(&self.lock_file, &beside(&self.path, LOCK))? {
            self.lock_file = open_lock(&self.path)?;
            lock(&self.lock_file, call)?;
        }
        let result = work(self);
        drop(self.lock_file.unlock());
        result
    }

    /// Lets the calls that `take` gives do their work, all of them with one sync. An error is of all that still wait.
    pub(super) fn run<B: Batch>(
        &mut self,
        call: &Call<'_>,
        take: impl FnOnce() -> Option<B>,
    ) -> Result<(), Fault> {
        self.locked(call, |log| {
            if log.is_doubtful {
                let message = "a sync has failed; open the log again when its medium is sound";
                return Err(Fault::not_applied(ErrorKind::Unavailable, message));
            }
            // Out of its place while the calls run, so that a panic leaves nothing half done there.
            let mut opened = log.refresh()?;
            let Some(mut batch) = take() else {
                log.opened = Some(opened);
                return Ok(());
            };
            let entries = batch.decide(&mut opened.state);
            if let Err(failure) = log.append(&mut opened, &entries) {
                batch.answer(Err(failure.into()));
                return Ok(());
            }
            batch.answer(Ok(()));
            // All is durable and answered; a failure here costs room, and the next one tries again.
            if opened.end.place < opened.compact_at {
                log.opened = Some(opened);
            } else if log.replace(&opened.state, opened.end.frame).is_err() {
                opened.compact_at = opened.end.place.saturating_mul(2);
                log.opened = Some(opened);
            }
            Ok(())
        })
    }

    /// What the log says now.
    fn refresh(&mut self) -> Result<Opened, Fault> {
        if let Some(mut opened) = self.opened.take()
            && is_at(&opened.file, &self.path)?
        {
            self.catch_up(&mut opened)?;
            return Ok(opened);
        }
        let mut options = OpenOptions::new();
        let file = match options.read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(corrupt("the change log is gone from its place"));
            }
            Err(e) => return Err(unread()(e)),
        };
        let head = read_head(&file)?;
        let mut opened = Opened {
            file,
            head,
            end: Cursor {
                frame: head.first_frame,
                place: 1,
            },
            state: State::default(),
            compact_at: 0,
        };
        self.catch_up(&mut opened)?;
        let least = sectors(&snapshot(&head, &opened.state)?);
        opened.compact_at = least
            .saturating_mul(COMPACT_GROWTH)
            .max(COMPACT_SECTORS_MIN);
        // Whoever moved it here may not have lived to make that durable.
        self.sync_folder()?;
        Ok(opened)
    }

    /// Reads what was appended since, and removes what a crash left behind it.
    fn catch_up(&self, opened: &mut Opened) -> Result<(), Fault> {
        let from = opened.end.place.saturating_mul(SECTOR);
        let len = opened.file.metadata().map_err(unread())?.len();
        let Some(more) = len.checked_sub(from) else {
            return Err(corrupt("the change log is cut short"));
        };
        if more == 0 {
            return Ok(());
        }
        let more = usize::try_from(more);
        let more = more.map_err(|_e| corrupt("the change log is too long to be read"))?;
        let mut bytes = vec![0; more];
        opened
            .file
            .read_exact_at(&mut bytes, from)
            .map_err(unread())?;
        let frames = opened.head.frames(opened.end, &bytes)?;
        if frames.is_torn {
            let end = from + frames.sectors * SECTOR;
            let cut = self.medium.truncate(&opened.file, &self.path, end);
            cut.map_err(unwritten())?;
        }
        // Who wrote the last frame may not have lived to sync it, and a sync of it may have failed since, after which the
        // kernel takes for written what it could not write. What is answered from here on rests on it.
        let end = frames.sectors * SECTOR;
        let last = end - frames.last_sectors * SECTOR;
        let range = usize::try_from(last).ok().zip(usize::try_from(end).ok());
        let again = range.and_then(|(last, end)| bytes.get(last..end));
        let again = again.unwrap_or_default();
        if !again.is_empty() {
            let written = self
                .medium
                .write_at(&opened.file, &self.path, again, from + last);
            written.map_err(unwritten())?;
        }
        let synced = self.medium.sync_data(&opened.file, &self.path);
        synced.map_err(unwritten())?;
        for content in &frames.contents {
            for entry in codec::decode::<Vec<Entry>>(content)? {
                opened.state.apply(entry);
            }
            opened.end.frame += 1;
        }
        opened.end.place += frames.sectors;
        Ok(())
    }

    /// Appends a frame of these entries and makes it durable.
    fn append(&mut self, opened: &mut Opened, entries: &[Entry]) -> Result<(), Fault> {
        if entries.is_empty() {
            return Ok(());
        }
        let Cursor { frame, place } = opened.end;
        let frame = frame_of(&opened.head, frame, place, entries)?;
        let at = place * SECTOR;
        // Commit point: past this line a failure may still have taken effect.
        let written = self.medium.write_at(&opened.file, &self.path, &frame, at);
        if let Err(e) = written {
            let fault = unwritten()(e);
            // A part of it that stays would be taken for torn by whoever comes next, or for whole.
            let cut = self.medium.truncate(&opened.file, &self.path, at);
            let undone = cut.and_then(|()| self.medium.sync_data(&opened.file, &self.path));
            return Err(match undone {
                Ok(()) => fault,
                Err(_left) => {
                    self.is_doubtful = true;
                    fault.now_unknown()
                }
            });
        }
        if let Err(e) = self.medium.sync_data(&opened.file, &self.path) {
            self.is_doubtful = true;
            // Others must not append behind what may never reach the medium.
            drop(self.medium.truncate(&opened.file, &self.path, at));
            return Err(
                Fault::unknown(kind_of(&e), "the change log could not be synced").because(e),
            );
        }
        opened.end.frame += 1;
        opened.end.place += sectors(&frame);
        Ok(())
    }

    /// Puts a new file in the place of the log, which says `state` and nothing more.
    fn replace(&mut self, state: &State, first_frame: u64) -> Result<(), Fault> {
        let head = Head {
            nonce: unique()?,
            first_frame,
        };
        let bytes = snapshot(&head, state)?;
        // Nobody else has this name under the lock. What lies there was left by a crash.
        let beside = beside(&self.path, ".new");
        self.medium.remove(&beside).map_err(unwritten())?;
        let moved = (|| {
            let file = self.medium.create_new(&beside)?;
            self.medium.write_at(&file, &beside, &bytes, 0)?;
            self.medium.sync_file(&file, &beside)?;
            self.medium.rename(&beside, &self.path)
        })();
        if moved.is_err() {
            drop(fs::remove_file(&beside));
        }
        moved.map_err(unwritten())?;
        self.opened = None;
        self.sync_folder()
    }

    fn sync_folder(&mut self) -> Result<(), Fault> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let synced = self.medium.sync_dir_at(folder);
        synced.map_err(|e| {
            self.is_doubtful = true;
            failed("the folder of the change log could not be synced")(e)
        })
    }
}

fn read_head(file: &File) -> Result<Head, Fault> {
    let mut head = Vec::new();
    let sector = file.take(SECTOR).read_to_end(&mut head);
    sector.map_err(unread())?;
    Head::read(&head)
}

/// A whole file that says `state` and nothing more.
fn snapshot(head: &Head, state: &State) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::from(head.to_sector());
    let entries = state.entries();
    for (frame, entries) in (head.first_frame..).zip(entries.chunks(ENTRIES_PER_FRAME)) {
        let place = sectors(&bytes);
        bytes.extend(frame_of(head, frame, place, entries)?);
    }
    Ok(bytes)
}

/// Refuses a file that is no log.
fn refuse_foreign(path: &Path) -> Result<(), Fault> {
    match File::open(path) {
        Ok(file) => read_head(&file).map(drop),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(unread()(e)),
    }
}

fn open_lock(path: &Path) -> Result<File, Fault> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let opened = options.open(beside(path, LOCK));
    opened.map_err(failed("the lock of the change log could not be opened"))
}

/// Whether the open file is still the one of that name.
fn is_at(file: &File, path: &Path) -> Result<bool, Fault> {
    let mine = file.metadata().map_err(unread())?;
    match fs::metadata(path) {
        Ok(there) => Ok((mine.dev(), mine.ino()) == (there.dev(), there.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(unread()(e)),
    }
}

fn frame_of(head: &Head, frame: u64, place: u64, entries: &[Entry]) -> Result<Vec<u8>, Fault> {
    let content = codec::encode(&entries.to_vec())?;
    head.frame(frame, place, &content).ok_or_else(|| {
        let message = "the changes of one sync are too long for a frame";
        Fault::not_applied(ErrorKind::InvalidInput, message)
    })
}

fn sectors(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len() / SECTOR_LEN_BYTES).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use larder_traits::{Change, ChangeId, ObjectContext, ObjectId, Step, WriterId};

    use super::*;

    #[test]
    fn what_is_written_today_is_what_version_1_was_published_as() {
        let writer = WriterId::from_bytes([1; 16]);
        let object = |key: &str| {
            let context = ObjectContext::new("test", Vec::new());
            ObjectId::new(context, format!("{key} 1"))
        };
        let mut id = [0; 16];
        id[15] = 1;
        let id = ChangeId::from_bytes(id);
        let mut change = Change::new(id, object("object"), Step::Remove);
        change.created = Some(object("created"));
        change.replaced = Some(object("replaced"));
        let until = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_500);
        let mut state = State::default();
        state.apply(Entry::Record(writer, change));
        state.apply(Entry::Renew(writer, until.into()));
        let head = Head {
            nonce: [3; 16],
            first_frame: 7,
        };
        let mut bytes = snapshot(&head, &state).unwrap();
        let entries = [Entry::Complete(ChangeId::from_bytes([9; 16]))];
        let place = sectors(&bytes);
        bytes.extend(frame_of(&head, 8, place, &entries).unwrap());
        let golden = include_bytes!("../../tests/golden/change-log-v1.bin");
        assert!(bytes == golden, "the format has changed");
    }
}
