//! What a kill, a loss of power and a damage leave of the change log.
//!
//! There is no suite for change logs. But a change log is a store of small blobs to whoever names a change after a key
//! and an object after a value, so the checks of `BlobMulti` that take the process or the power away can judge it. The
//! others are about what is no business of a change log.

use std::process::ExitCode;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use larder_conformance::{
    BoxError, Caps, Engine, Env, Fixture, Options, Suite, Trial, Verdict, blob_multi,
    explain_failure, harness,
};
use larder_file::{ChangeLogConfig, FileChangeLog};
use larder_traits::{
    Atomicity, BlobMulti, BlobMultiCaps, Change, ChangeId, ChangeLog, Durability, ErrorKind,
    ExternalError, Fault, LateLanding, ObjectContext, ObjectId, Step, WriterId,
};
use libtest_mimic::{Arguments, Completion};
use tempfile::TempDir;

const WRITER: WriterId = WriterId::from_bytes([1; 16]);

struct World(TempDir);

impl Fixture for World {
    async fn new(env: &Env) -> Result<Self, BoxError> {
        Ok(Self(env.tempdir()?))
    }

    fn caps(&self) -> Caps {
        Caps::LEAST
            .with_durability(Durability::Power)
            .with_late_landing(LateLanding::Fenced)
            .with_blob_multi(BlobMultiCaps::LEAST.with_value_len_bytes_max(1 << 20))
    }
}

/// A change log as a store of blobs.
#[derive(Debug)]
struct Blobs(FileChangeLog);

/// A change is named after a key, which is short here.
fn id(key: &str) -> Result<ChangeId, ExternalError> {
    let mut id = [0; 16];
    let Some(part) = id.get_mut(..key.len()) else {
        let message = "a key that is too long to name a change";
        return Err(Fault::not_applied(ErrorKind::InvalidInput, message).into());
    };
    part.copy_from_slice(key.as_bytes());
    Ok(ChangeId::from_bytes(id))
}

fn key(id: ChangeId) -> String {
    let bytes = id.into_bytes();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').to_owned()
}

fn object(key: String) -> ObjectId {
    ObjectId::new(ObjectContext::new("test", Vec::new()), key)
}

/// A byte as a letter of its own, so that any value is a text.
fn text(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}

fn value(text: &str) -> Vec<u8> {
    let byte = |letter| u8::try_from(u32::from(letter)).unwrap_or_default();
    text.chars().map(byte).collect()
}

#[async_trait]
impl BlobMulti for Blobs {
    async fn get(&self, _: Instant, key: &str) -> Result<Option<Vec<u8>>, ExternalError> {
        let id = id(key)?;
        let changes = self.0.changes(WRITER).await?;
        let found = changes.into_iter().find(|change| change.id == id);
        Ok(found.map(|change| value(&change.object.key)))
    }

    async fn list_keys(&self, _: Instant) -> Result<Vec<String>, ExternalError> {
        let changes = self.0.changes(WRITER).await?;
        Ok(changes.into_iter().map(|change| key(change.id)).collect())
    }

    async fn set(
        &self,
        _: Instant,
        key: &str,
        value: Bytes,
        _: Atomicity,
    ) -> Result<(), ExternalError> {
        let change = Change::new(id(key)?, object(text(&value)), Step::Upload);
        Ok(self.0.record(WRITER, &change).await?)
    }

    async fn delete(&self, _: Instant, key: &str) -> Result<(), ExternalError> {
        Ok(self.0.complete(WRITER, id(key)?).await?)
    }
}

impl blob_multi::Open for World {
    type Store = Blobs;

    async fn open(&self, place: &str) -> Result<Blobs, BoxError> {
        let folder = self.0.path().join(place.replace('/', "~"));
        std::fs::create_dir_all(&folder)?;
        // The folder is the suite's affair, and its name has to be durable for what lies in it.
        std::fs::File::open(self.0.path())?.sync_all()?;
        let config = ChangeLogConfig::new(folder.join("log"));
        Ok(Blobs(FileChangeLog::open(config).await?))
    }
}

/// Whether the check takes something away from the log.
fn is_taken(trial: &Trial) -> bool {
    let engines = trial.info().engines;
    engines.contains(&Engine::Kill) || engines.contains(&Engine::Power)
}

fn main() -> ExitCode {
    let suite: Suite = blob_multi::suite::<World>();
    if let Some(code) = harness::victims(|_| vec![suite.clone()]) {
        return code;
    }
    let arguments = Arguments::from_args();
    let Ok(options) = Options::from_env() else {
        return ExitCode::from(3);
    };
    let trials = suite.trials().iter();
    let trials = trials.filter(|trial| is_taken(trial) && options.selects(trial));
    let trials = trials.cloned().map(|trial| {
        let options = options.clone();
        libtest_mimic::Trial::ignorable_test(trial.name(), move || {
            let record = trial.run(&options);
            let replay = format!("LARDER_SEED={} LARDER_CHECK={}", record.seed, record.id);
            match &record.verdict {
                Verdict::Pass => Ok(Completion::Completed),
                Verdict::Ignored(why) => Ok(Completion::ignored_with(why)),
                Verdict::Fail(_) => {
                    Err(explain_failure(&record, &replay).unwrap_or_default().into())
                }
                other => Err(other.reason().unwrap_or_default().into()),
            }
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
