//! What is left after the process was killed, after bytes of the file were changed, and after it was cut short.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test does"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use larder_sqlite::{SqliteConfig, SqlitePlace};
use larder_traits::frontier::Antichain;
use larder_traits::stash::{CollectionId, RawRow, Rows, StashDriver, StashOp};
use larder_traits::{
    Classify, ErrorKind, Fault, HighVolumeBackend, KvClient, Metadata, ObjectContext, ObjectId,
    Outcome, TieredGet,
};

const PATH: &str = "LARDER_SQLITE_TEST_PATH";
const NAME: &str = "LARDER_SQLITE_TEST_NAME";

async fn open(path: &Path) -> SqlitePlace {
    SqlitePlace::open(SqliteConfig::new(path)).await.unwrap()
}

/// A process that runs [`victim`] on the file.
fn start(path: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--ignored", "--nocapture"])
        .env(PATH, path)
        .env(NAME, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The numbers that a victim said were acknowledged.
fn acknowledged(child: &mut Child) -> impl Iterator<Item = u64> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.filter_map(|line| line.ok()?.strip_prefix("ack ")?.parse().ok())
}

fn row(key: &str, time: i64) -> RawRow {
    RawRow {
        key: key.to_owned().into(),
        value: vec![b'v'; 50].into(),
        time,
        diff: 1,
    }
}

#[tokio::test]
#[ignore = "the other tests run it as a process of its own"]
async fn victim() {
    let (Ok(path), Ok(name)) = (std::env::var(PATH), std::env::var(NAME)) else {
        return;
    };
    let place = open(Path::new(&path)).await;
    let (kv, stash) = (place.kv_client(), place.stash());
    let id = stash.open("shared").await.unwrap();
    for n in 0..u64::MAX {
        let time = i64::try_from(n).unwrap();
        // Two rows in one commit, which have to be there both or neither.
        let rows = vec![
            row(&format!("{name} a"), time),
            row(&format!("{name} b"), time),
        ];
        let ops = vec![StashOp::Update { id, rows }, StashOp::Consolidate { id }];
        let put = kv.put(format!("{name} {n}"), n.to_string());
        let (put, committed) = tokio::join!(put, stash.commit(ops));
        put.unwrap();
        committed.unwrap();
        writeln!(std::io::stdout(), "ack {n}").unwrap();
    }
}

#[tokio::test]
async fn what_two_processes_were_told_is_there_after_both_were_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    for round in 0..3_u64 {
        let names = [format!("x{round}"), format!("y{round}")];
        let mut children = names.clone().map(|name| start(&path, &name));
        tokio::time::sleep(Duration::from_millis(400 + 150 * round)).await;
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let place = open(&path).await;
        let id = place.stash().open("shared").await.unwrap();
        for (name, mut child) in names.iter().zip(children) {
            let last = acknowledged(&mut child).last();
            let last = last.expect("something was acknowledged in that time");
            for n in 0..=last {
                let value = place.kv_client().get(format!("{name} {n}")).await.unwrap();
                assert_eq!(value.unwrap(), n.to_string(), "of {name}, up to {last}");
            }
            let mut rows = Vec::new();
            for part in ["a", "b"] {
                let key = format!("{name} {part}");
                let found = place.stash().snapshot(id, Rows::Key(key.as_bytes())).await;
                rows.push(u64::try_from(found.unwrap().rows.len()).unwrap());
            }
            assert_eq!(rows[0], rows[1], "a commit is there as a whole");
            assert!(
                rows[0] > last && rows[0] <= last + 2,
                "{rows:?} after {last}"
            );
        }
    }
}

const KEYS: u32 = 60;

/// A closed file with a bit of everything, and the id of its collection.
async fn furnished(path: &Path) -> CollectionId {
    let place = open(path).await;
    let id = furnish(&place).await;
    place.close().await;
    assert!(!beside(path, "-wal").exists());
    id
}

async fn furnish(place: &SqlitePlace) -> CollectionId {
    let (kv, stash, rows) = (place.kv_client(), place.stash(), place.high_volume());
    let id = stash.open("c").await.unwrap();
    for n in 0..KEYS {
        kv.put(format!("key {n}"), format!("value {n}"))
            .await
            .unwrap();
        let (object, metadata) = (object(n), Metadata::new());
        let put = rows.put_non_tombstone(&object, &metadata, payload(n));
        assert_eq!(put.await.unwrap(), None);
    }
    let update = StashOp::Update {
        id,
        rows: (0..KEYS).map(|n| row(&format!("row {n}"), 1)).collect(),
    };
    let upper = Antichain::from_elem(2);
    stash
        .commit(vec![update, StashOp::Seal { id, upper }])
        .await
        .unwrap();
    id
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn object(n: u32) -> ObjectId {
    ObjectId::new(
        ObjectContext::new("test", Vec::new()),
        format!("object {n}"),
    )
}

fn payload(n: u32) -> bytes::Bytes {
    format!("payload {n}").repeat(10).into()
}

/// Reads everything. What is there is what was written; what is not may be missing, or an error.
async fn read_all(path: &Path, id: CollectionId) -> Result<(), Fault> {
    let place = SqlitePlace::open(SqliteConfig::new(path)).await?;
    let judge = |e: &dyn Classify| {
        assert_eq!(e.outcome(), Outcome::NotApplied);
        let kinds = [
            ErrorKind::Corrupt,
            ErrorKind::NotFound,
            ErrorKind::Unavailable,
        ];
        assert!(kinds.contains(&e.kind()), "{e:?}");
    };
    match place.stash().snapshot(id, Rows::All).await {
        Ok(found) => {
            for found in found.rows {
                let key = String::from_utf8(found.key.to_vec()).unwrap();
                assert!(key.starts_with("row "), "{key}");
                assert_eq!(found, row(&key, 1));
            }
        }
        Err(e) => judge(&e),
    }
    let kv = place.kv_client();
    let keys: Vec<_> = (0..KEYS).map(|n| format!("key {n}").into()).collect();
    match kv.get_multi(&keys).await {
        Ok(values) => {
            for (n, value) in values.into_iter().enumerate() {
                assert!(value.is_none_or(|it| it == format!("value {n}")));
            }
        }
        Err(e) => judge(&e),
    }
    for n in [0, KEYS / 2, KEYS - 1] {
        match place.high_volume().get_tiered_object(&object(n)).await {
            Ok(TieredGet::Object(_, stream)) => {
                let chunks: Vec<_> = futures_util::TryStreamExt::try_collect(stream)
                    .await
                    .unwrap();
                assert_eq!(chunks.concat(), payload(n));
            }
            Ok(TieredGet::NotFound) => {}
            Ok(TieredGet::Tombstone(there)) => panic!("{there:?} was never written"),
            Err(e) => judge(&e),
        }
    }
    // A write into a damaged file may fail, and must not panic.
    let _may_fail = kv.put("another", "value").await;
    place.close().await;
    Ok(())
}

fn damaged_copy(folder: &Path, bytes: &[u8]) -> PathBuf {
    let copy = folder.join("copy");
    for old in ["copy", "copy-wal", "copy-shm"] {
        // Most of the time it is not there.
        let _absent = fs::remove_file(folder.join(old));
    }
    fs::write(&copy, bytes).unwrap();
    copy
}

/// Changes one byte after the other; how many files were refused, and how many were opened.
async fn change_bytes(places: impl Fn(usize) -> Vec<usize>) -> (usize, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let id = furnished(&path).await;
    let whole = fs::read(&path).unwrap();
    read_all(&path, id).await.unwrap();
    let (mut refused, mut opened) = (0, 0);
    for place in places(whole.len()) {
        for change in [0xFF, 0x01] {
            let mut bytes = whole.clone();
            bytes[place] ^= change;
            match read_all(&damaged_copy(folder.path(), &bytes), id).await {
                Ok(()) => opened += 1,
                Err(_) => refused += 1,
            }
        }
    }
    (refused, opened)
}

#[tokio::test]
async fn a_changed_byte_is_an_error_or_makes_no_difference() {
    // Each byte of the header, and a share of the pages behind it.
    let places = |len| (0..100).chain((100..len).step_by(397)).collect();
    let (refused, opened) = change_bytes(places).await;
    assert!(
        refused > 20 && opened > 100,
        "{refused} refused, {opened} opened"
    );
}

#[tokio::test]
#[ignore = "minutes: each byte of the first twelve pages"]
async fn each_changed_byte_of_the_first_pages_is_an_error_or_makes_no_difference() {
    change_bytes(|len| (0..len.min(12 * 4096)).collect()).await;
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_an_error_or_makes_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let id = furnished(&path).await;
    let whole = fs::read(&path).unwrap();
    for len in (1..whole.len()).step_by(1000) {
        // Refused or opened: `read_all` looks at what comes of it.
        let _either = read_all(&damaged_copy(folder.path(), &whole[..len]), id).await;
    }
}

/// What lies in the log is not in the file yet: the log as a process leaves it that is killed.
#[tokio::test]
async fn a_damaged_log_is_an_error_or_ends_before_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let place = open(&path).await;
    let id = furnish(&place).await;
    let [file, log] = ["", "-wal"].map(|suffix| fs::read(beside(&path, suffix)).unwrap());
    assert!(log.len() > 100 * 4096, "{}", log.len());
    place.close().await;
    let copied = async |log: &[u8]| {
        let copy = damaged_copy(folder.path(), &file);
        fs::write(beside(&copy, "-wal"), log).unwrap();
        // Refused or opened: `read_all` looks at what comes of it.
        read_all(&copy, id).await
    };
    copied(&log).await.unwrap();
    let places = (0..32).chain((32..log.len()).step_by(9_973));
    for place in places {
        let mut damaged = log.clone();
        damaged[place] ^= 0x10;
        let _either = copied(&damaged).await;
    }
    for len in (0..log.len()).step_by(19_997) {
        let _either = copied(&log[..len]).await;
    }
}

/// A small file system of its own, unmounted when the value is dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    /// Memory that is bounded.
    fn tmpfs() -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        let at = mount.at();
        run(&["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs"], &at);
        mount
    }

    /// A file system with blocks of its own, in a file, as on a disk.
    fn ext4() -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        let image = mount.0.path().join("image");
        fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        run(&["mkfs.ext4", "-q"], &image);
        let loops = ["mount", "-o", "loop", image.to_str().unwrap()];
        run(&loops, &mount.at());
        mount
    }

    fn at(&self) -> PathBuf {
        let at = self.0.path().join("at");
        fs::create_dir_all(&at).unwrap();
        at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = self.at();
        let unmounted = Command::new("umount").arg("-l").arg(at).status();
        // What is mounted there must not be removed file by file with the folder.
        assert!(unmounted.is_ok_and(|it| it.success()), "unmounted");
    }
}

fn run(args: &[&str], last: &Path) {
    let mut command = Command::new(args[0]);
    let status = command.args(&args[1..]).arg(last).status();
    assert!(status.unwrap().success(), "{args:?}");
}

async fn fill(mount: Mount) {
    let filler = mount.at().join("filler");
    let path = mount.at().join("db");
    fs::write(&filler, vec![0; 1 << 20]).unwrap();
    let place = open(&path).await;
    let kv = place.kv_client();
    let mut told = Vec::new();
    let (key, refused) = loop {
        let key = told.len().to_string();
        match kv.put(&key, vec![b'v'; 5000]).await {
            Ok(()) => told.push(key),
            Err(e) => break (key, e),
        }
    };
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused:?}");
    assert!(told.len() > 20);
    fs::remove_file(&filler).unwrap();
    for key in &told {
        assert!(kv.get(key).await.unwrap().is_some());
    }
    kv.put("after", "v").await.unwrap();
    let there = kv.get(&key).await.unwrap().is_some();
    assert!(!there || refused.outcome() == Outcome::Unknown);
    place.close().await;
    let place = open(&path).await;
    for key in &told {
        assert!(place.kv_client().get(key).await.unwrap().is_some());
    }
    assert_eq!(place.kv_client().get(&key).await.unwrap().is_some(), there);
    place.close().await;
}

#[tokio::test]
#[ignore = "mounts a small file system, which only root may do"]
async fn a_full_disk_loses_nothing_and_goes_on_when_it_has_space_again() {
    fill(Mount::tmpfs()).await;
    fill(Mount::ext4()).await;
}
