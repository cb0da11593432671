//! `cargo xtask services up|down ceph|garage`: real servers for tests, as plain processes in a scratch folder.
//!
//! Nothing of it touches the configuration of the machine. A server has a folder of its own below `target`, ports that
//! were free, and a file with the processes that were started, which is all that `down` ends.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Result, answer, root, say};

mod ceph;
mod garage;

pub(crate) use ceph::CEPH;
pub(crate) use garage::GARAGE;

/// Variables by which tests learn of a server, and their values.
type Env = Vec<(&'static str, String)>;

/// How long a server may take to come up, what has to be installed included.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long processes may take to end.
const PATIENCE_WITH_THE_DEAD: Duration = Duration::from_secs(30);

pub(crate) fn run(rest: &[String]) -> Result {
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    match words[..] {
        ["install", "garage"] => garage::install(),
        ["up", name] if let Some(kind) = Kind::by_name(name) => {
            let env = (kind.up)(&folder(name), PATIENCE);
            let env = env.map_err(|why| {
                format!("{why}; `cargo xtask services down {name}` removes what came up of it")
            })?;
            for (name, value) in env {
                answer(&format!("export {name}={value}"));
            }
            Ok(())
        }
        ["down", name] if Kind::by_name(name).is_some() => down(&folder(name)),
        _ => {
            Err("services takes `up` or `down` and `ceph` or `garage`, or `install garage`".into())
        }
    }
}

/// A server that can be had here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    name: &'static str,
    /// The variable by which tests learn where it is.
    variable: &'static str,
    up: fn(&Path, Duration) -> std::result::Result<Env, String>,
    /// How long it may take to come up before tests go on without it.
    patience_of_tests: Duration,
}

impl Kind {
    fn by_name(name: &str) -> Option<Self> {
        [CEPH, GARAGE].into_iter().find(|kind| kind.name == name)
    }
}

/// A server for one run of the tests or of a bench, beside one that somebody works with; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// What tests learn of it.
    env: Env,
    home: Option<Lent>,
}

/// The folder of a server of the tests, for one run of them at a time.
#[derive(Debug)]
struct Lent {
    folder: PathBuf,
    _lock: fs::File,
}

impl Lent {
    /// Waits for another run that has it.
    fn take(name: &str) -> std::result::Result<Self, String> {
        let lock = folder(&format!("{name}.lock"));
        if let Some(parent) = lock.parent() {
            fs::create_dir_all(parent).map_err(told)?;
        }
        let file = fs::File::create(&lock).map_err(told)?;
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => {
                say("another run has the server of the tests; this one waits for it");
                file.lock().map_err(told)?;
            }
            Err(fs::TryLockError::Error(e)) => return Err(told(e)),
            Ok(()) => {}
        }
        Ok(Self {
            folder: folder(name),
            _lock: file,
        })
    }
}

impl Server {
    /// The one that the environment names; otherwise a new one.
    ///
    /// # Errors
    ///
    /// Why there is none, in one line, within a few minutes.
    pub(crate) fn start(kind: Kind) -> std::result::Result<Self, String> {
        if std::env::var(kind.variable).is_ok_and(|it| !it.is_empty()) {
            // Tests see it without being told.
            return Ok(Self {
                env: Vec::new(),
                home: None,
            });
        }
        let home = Lent::take(&format!("{}-of-tests", kind.name))?;
        match (kind.up)(&home.folder, kind.patience_of_tests) {
            Ok(env) => Ok(Self {
                env,
                home: Some(home),
            }),
            Err(why) => {
                // What came up of it is of no use to anybody.
                down(&home.folder).map_err(|more| format!("{why}; {more}"))?;
                Err(why)
            }
        }
    }

    /// No such server, whatever the environment names.
    pub(crate) fn none(kind: Kind) -> Self {
        Self {
            env: vec![(kind.variable, String::new())],
            home: None,
        }
    }

    pub(crate) fn env(&self) -> Vec<(&str, &str)> {
        let env = self.env.iter();
        env.map(|(name, value)| (*name, value.as_str())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let home = self.home.as_ref();
        if let Some(Err(why)) = home.map(|home| down(&home.folder)) {
            say(&format!("the server could not be ended: {why}"));
        }
    }
}

/// The folder of a server, and when the server has to be up.
struct Home {
    folder: PathBuf,
    until: Instant,
}

impl Home {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn bounded(&self, program: &str) -> Command {
        bounded(program, self.until)
    }

    /// Starts a process that stays, and writes its number down. `program` is a name or a path.
    fn spawn(&self, program: &str, log: &str, arguments: &[&str]) -> Result {
        let log = fs::File::create(self.path(log)).map_err(told)?;
        let more = log.try_clone().map_err(told)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(more)
            .spawn()
            .map_err(|e| format!("{program} cannot be started: {e}"))?;
        let mut pids = fs::read_to_string(self.path("pids")).unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or(program);
        pids.push_str(&format!("{} {name}\n", child.id()));
        fs::write(self.path("pids"), pids).map_err(told)
    }

    /// Waits until somebody listens there.
    fn wait_for(&self, port: u16) -> Result {
        while Instant::now() < self.until {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(200));
        }
        Err(format!("nobody listens on port {port}"))
    }
}

fn folder(name: &str) -> PathBuf {
    // The path of a socket has to be short, and that of a checkout need not be.
    root().join("target").join("services").join(name)
}

/// A command that is ended when the time is over.
fn bounded(program: &str, until: Instant) -> Command {
    let left = until.saturating_duration_since(Instant::now()).as_secs();
    let mut command = Command::new("timeout");
    command.args([&left.max(1).to_string(), program]);
    command
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Ends what an earlier `up` started, where it did, and removes its folder.
fn down(folder: &Path) -> Result {
    let pids = fs::read_to_string(folder.join("pids")).unwrap_or_default();
    let mine: Vec<(&str, &str)> = pids
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    // Clients before what they are clients of. Nothing in the folder is worth an orderly end.
    for (pid, program) in mine
        .iter()
        .rev()
        .filter(|(pid, program)| is_running(pid, program))
    {
        output(Command::new("kill").args(["-KILL", pid]))
            .map_err(|why| format!("{program}: {why}"))?;
    }
    let until = Instant::now() + PATIENCE_WITH_THE_DEAD;
    while mine.iter().any(|(pid, program)| is_running(pid, program)) {
        if Instant::now() > until {
            return Err("the processes of the server do not end".into());
        }
        sleep(Duration::from_millis(50));
    }
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(told(e)),
        _ => Ok(()),
    }
}

/// Whether the process is there and is still the program that was started: numbers are used again.
fn is_running(pid: &str, program: &str) -> bool {
    let process = Path::new("/proc").join(pid);
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let state = fs::read_to_string(process.join("stat")).unwrap_or_default();
    // Ended, and only its parent has not looked yet.
    let ended = state
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.starts_with(" Z"));
    name.trim() == program && !ended
}

fn free_port() -> std::result::Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(told)?;
    Ok(listener.local_addr().map_err(told)?.port())
}

fn new_id() -> std::result::Result<String, String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(told)?;
    Ok(id.trim().to_owned())
}

/// What a command printed, or the last line of its complaint.
fn output(command: &mut Command) -> std::result::Result<String, String> {
    // Who is bounded stands behind the bound.
    let program = match command.get_program().to_str() {
        Some("timeout") => command.get_args().nth(1),
        _ => None,
    };
    let program = program.unwrap_or(command.get_program());
    let program = program.display().to_string();
    let made: Output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{program} cannot be started: {e}"))?;
    if made.status.success() {
        return Ok(String::from_utf8_lossy(&made.stdout).into_owned());
    }
    // The code by which `timeout` says that it ended the command.
    if made.status.code() == Some(124) {
        return Err(format!("{program} took too long"));
    }
    let complaint = String::from_utf8_lossy(&made.stderr).into_owned();
    let last = complaint.trim().lines().last().unwrap_or("without a word");
    Err(format!("{program} failed: {last}"))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is given to `map_err` all over this file"
)]
fn told(e: std::io::Error) -> String {
    e.to_string()
}
