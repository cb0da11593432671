//! `cargo xtask services up|down ceph`: real servers for tests, as plain processes in a scratch folder.
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

/// The variable by which tests learn where the gateway is.
pub(crate) const CEPH: &str = "LARDER_TEST_CEPH";

/// What has to be installed, by the program that shows it.
const PACKAGES: [(&str, &str); 5] = [
    ("ceph-mon", "ceph-mon"),
    ("ceph-mgr", "ceph-mgr"),
    ("ceph-osd", "ceph-osd"),
    ("radosgw", "radosgw"),
    ("ceph", "ceph-common"),
];

/// How long Ceph may take to come up, what has to be installed included.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long it may take before tests go on without it.
const PATIENCE_OF_TESTS: Duration = Duration::from_secs(180);

/// How long processes may take to end.
const PATIENCE_WITH_THE_DEAD: Duration = Duration::from_secs(30);

pub(crate) fn run(rest: &[String]) -> Result {
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    match words[..] {
        ["up", "ceph"] => {
            let endpoint = ceph_up(&folder("ceph"), PATIENCE).map_err(|why| {
                format!("{why}; `cargo xtask services down ceph` removes what came up of it")
            })?;
            answer(&format!("export {CEPH}={endpoint}"));
            Ok(())
        }
        ["down", "ceph"] => ceph_down(&folder("ceph")),
        _ => Err("services takes `up ceph` or `down ceph`".into()),
    }
}

/// A Ceph for one run of the tests or of a bench, beside one that somebody works with; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ceph {
    /// The value of [`CEPH`].
    pub(crate) endpoint: String,
    folder: Option<PathBuf>,
}

impl Ceph {
    /// The one that the environment names; otherwise a new one.
    ///
    /// # Errors
    ///
    /// Why there is none, in one line, within a few minutes.
    pub(crate) fn start() -> std::result::Result<Self, String> {
        let named = std::env::var(CEPH).ok().filter(|it| !it.is_empty());
        if let Some(endpoint) = named {
            return Ok(Self {
                endpoint,
                folder: None,
            });
        }
        let folder = folder("ceph-of-tests");
        match ceph_up(&folder, PATIENCE_OF_TESTS) {
            Ok(endpoint) => Ok(Self {
                endpoint,
                folder: Some(folder),
            }),
            Err(why) => {
                // What came up of it is of no use to anybody.
                ceph_down(&folder).map_err(|more| format!("{why}; {more}"))?;
                Err(why)
            }
        }
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        if let Some(Err(why)) = self.folder.as_deref().map(ceph_down) {
            say(&format!("Ceph could not be ended: {why}"));
        }
    }
}

fn folder(name: &str) -> PathBuf {
    // The path of a socket has to be short, and that of a checkout need not be.
    root().join("target").join("services").join(name)
}

/// Installs what is missing where that can be done, and says what is missing where it cannot.
fn install(until: Instant) -> Result {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("no Ceph: install {}", missing.join(" "));
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0");
    if !is_root || !is_there("apt-get") {
        return Err(line);
    }
    say(&format!("$ apt-get install {}", missing.join(" ")));
    let apt = |arguments: &[&str]| {
        let mut apt = bounded("apt-get", until);
        apt.args(["--quiet", "--yes", "-o", "DPkg::Lock::Timeout=30"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        output(&mut apt).map_err(|why| format!("{line} ({why})"))
    };
    let install = ["install", "--no-install-recommends"];
    let fetch = [&install[..], &["--download-only"], &missing].concat();
    if apt(&fetch).is_err() {
        // A fresh machine does not know yet what there is.
        apt(&["update"])?;
        apt(&fetch)?;
    }
    apt(&[&install[..], &missing].concat())?;
    Ok(())
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

/// One cluster: its folder, its ports and the processes that it consists of.
struct Cluster {
    folder: PathBuf,
    mon_port: u16,
    gateway_port: u16,
    /// When it has to be up.
    until: Instant,
}

fn ceph_up(folder: &Path, patience: Duration) -> std::result::Result<String, String> {
    let until = Instant::now() + patience;
    install(until)?;
    ceph_down(folder)?;
    let cluster = Cluster {
        folder: folder.to_owned(),
        mon_port: free_port()?,
        gateway_port: free_port()?,
        until,
    };
    let began = Instant::now();
    cluster.start().map_err(|why| format!("no Ceph: {why}"))?;
    let endpoint = format!("http://127.0.0.1:{}", cluster.gateway_port);
    say(&format!(
        "Ceph is up at {endpoint} after {} s",
        began.elapsed().as_secs()
    ));
    Ok(endpoint)
}

impl Cluster {
    fn start(&self) -> Result {
        for name in ["mon", "mgr", "osd", "rgw", "run"] {
            fs::create_dir_all(self.folder.join(name)).map_err(told)?;
        }
        let id = new_id()?;
        fs::write(self.path("ceph.conf"), self.configuration(&id)).map_err(told)?;
        self.start_monitor(&id)?;
        self.keyring("mgr.x", &["mon", "allow profile mgr", "osd", "allow *"])?;
        self.spawn(
            "ceph-mgr",
            "mgr.x",
            &["-i", "x", "--mgr-data", &self.text("mgr")],
        )?;
        self.start_osd()?;
        let all = ["mon", "allow rw", "osd", "allow rwx", "mgr", "allow rw"];
        self.keyring("client.rgw", &all)?;
        // Without `tcp_nodelay` small answers wait for 40 ms.
        let port = self.gateway_port;
        let frontend = format!("beast endpoint=127.0.0.1:{port} tcp_nodelay=1");
        let arguments = ["-n", "client.rgw", "--rgw-data", &self.text("rgw")];
        let frontend = ["--rgw-frontends", &frontend];
        self.spawn(
            "radosgw",
            "client.rgw",
            &[&arguments[..], &frontend].concat(),
        )?;
        self.wait_for_gateway()?;
        let user = [
            "user",
            "create",
            "--uid",
            "larder",
            "--display-name",
            "larder",
        ];
        let keys = [
            "--access-key",
            "larder-access",
            "--secret-key",
            "larder-secret",
        ];
        self.admin("radosgw-admin", &[&user[..], &keys].concat())?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn configuration(&self, id: &str) -> String {
        let (folder, port) = (self.folder.display(), self.mon_port);
        // One copy of everything on one disk, which is a file; and no more memory than a test can spare.
        format!(
            "[global]
fsid = {id}
mon_host = [v2:127.0.0.1:{port}]
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
run_dir = {folder}/run
crash_dir = {folder}/run
admin_socket =
pid_file =
log_file = {folder}/$name.log
keyring = {folder}/$name.keyring
auth_allow_insecure_global_id_reclaim = false
mon_allow_pool_size_one = true
mon_data_avail_warn = 1
mon_data_avail_crit = 1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_crush_chooseleaf_type = 0
osd_objectstore = bluestore
osd_memory_target = 939524096
bluestore_block_size = 17179869184
bluestore_block_create = true
rgw_thread_pool_size = 64
"
        )
    }

    fn start_monitor(&self, id: &str) -> Result {
        let (mon, admin) = (
            self.text("mon.a.keyring"),
            self.text("client.admin.keyring"),
        );
        let all = ["--cap", "mon", "allow *"];
        let more = ["--cap", "osd", "allow *", "--cap", "mgr", "allow *"];
        let new = ["--create-keyring", &mon, "--gen-key", "-n", "mon."];
        self.tool("ceph-authtool", &[&new[..], &all].concat())?;
        let new = [
            "--create-keyring",
            &admin,
            "--gen-key",
            "-n",
            "client.admin",
        ];
        self.tool("ceph-authtool", &[&new[..], &all, &more].concat())?;
        self.tool("ceph-authtool", &[&mon, "--import-keyring", &admin])?;
        let address = format!("[v2:127.0.0.1:{}]", self.mon_port);
        let map = self.text("monmap");
        let arguments = ["--create", "--addv", "a", &address, "--fsid", id, &map];
        self.tool("monmaptool", &arguments)?;
        let data = self.text("mon");
        let common = ["-i", "a", "--keyring", &mon, "--mon-data", &data];
        let make = ["--mkfs", "--monmap", &map];
        self.configured("ceph-mon", &[&common[..], &make].concat())?;
        let arguments = ["-i", "a", "--mon-data", &data, "--public-addrv", &address];
        self.spawn("ceph-mon", "mon.a", &arguments)?;
        self.admin("ceph", &["-s"]).map(drop)
    }

    fn start_osd(&self) -> Result {
        let id = new_id()?;
        self.admin("ceph", &["osd", "new", &id])?;
        let profile = ["mon", "allow profile osd", "mgr", "allow profile osd"];
        self.keyring("osd.0", &[&profile[..], &["osd", "allow *"]].concat())?;
        let (data, keyring) = (self.text("osd"), self.text("osd.0.keyring"));
        let make = ["-i", "0", "--mkfs", "--osd-uuid", &id, "--osd-data", &data];
        self.configured("ceph-osd", &[&make[..], &["--keyring", &keyring]].concat())?;
        self.spawn("ceph-osd", "osd.0", &["-i", "0", "--osd-data", &data])
    }

    /// Makes a user with these rights, and the file with its key.
    fn keyring(&self, name: &str, rights: &[&str]) -> Result {
        let get = ["auth", "get-or-create", name];
        let key = self.admin("ceph", &[&get[..], rights].concat())?;
        fs::write(self.path(&format!("{name}.keyring")), key).map_err(told)
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> std::result::Result<String, String> {
        output(bounded(program, self.until).args(arguments))
    }

    fn configured(&self, program: &str, arguments: &[&str]) -> std::result::Result<String, String> {
        let configuration = self.text("ceph.conf");
        output(
            bounded(program, self.until)
                .args(["--conf", &configuration])
                .args(arguments),
        )
    }

    /// A command of the administrator, which would wait for ever for a cluster that is not there.
    fn admin(&self, program: &str, arguments: &[&str]) -> std::result::Result<String, String> {
        let (configuration, keyring) = (self.text("ceph.conf"), self.text("client.admin.keyring"));
        let who = [
            "--conf",
            &configuration,
            "-n",
            "client.admin",
            "--keyring",
            &keyring,
        ];
        output(bounded(program, self.until).args(who).args(arguments))
    }

    /// Starts a process that stays, and writes its number down.
    fn spawn(&self, program: &str, name: &str, arguments: &[&str]) -> Result {
        let log = fs::File::create(self.path(&format!("{name}.out"))).map_err(told)?;
        let more = log.try_clone().map_err(told)?;
        let (configuration, keyring) = (
            self.text("ceph.conf"),
            self.text(&format!("{name}.keyring")),
        );
        let child = Command::new(program)
            .args(["--conf", &configuration, "-f", "--keyring", &keyring])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(more)
            .spawn()
            .map_err(|e| format!("{program} cannot be started: {e}"))?;
        let mut pids = fs::read_to_string(self.path("pids")).unwrap_or_default();
        pids.push_str(&format!("{} {program}\n", child.id()));
        fs::write(self.path("pids"), pids).map_err(told)
    }

    fn wait_for_gateway(&self) -> Result {
        while Instant::now() < self.until {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.gateway_port)).is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(200));
        }
        Err("the gateway does not listen".into())
    }
}

/// Ends what an earlier `up` started, where it did, and removes its folder.
fn ceph_down(folder: &Path) -> Result {
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
            return Err("Ceph's processes do not end".into());
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
