//! Ceph: a monitor, a manager, a disk and a gateway.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Env, Home, Kind, down, free_port, is_there, new_id, output, told};
use crate::{Result, say};

/// Tests go on without one that takes longer than three minutes.
pub(crate) const CEPH: Kind = Kind {
    name: "ceph",
    variable: "LARDER_TEST_CEPH",
    up,
    patience_of_tests: Duration::from_secs(180),
};

/// The variable by which they learn of a shell script that is one more gateway, on the port that is its argument: whoever
/// wants to kill a gateway starts one of its own.
const GATEWAY: &str = "LARDER_TEST_CEPH_GATEWAY";

/// What has to be installed, by the program that shows it.
const PACKAGES: [(&str, &str); 5] = [
    ("ceph-mon", "ceph-mon"),
    ("ceph-mgr", "ceph-mgr"),
    ("ceph-osd", "ceph-osd"),
    ("radosgw", "radosgw"),
    ("ceph", "ceph-common"),
];

/// The script of [`GATEWAY`], in the folder of its cluster.
const GATEWAY_SCRIPT: &str = "gateway.sh";

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
        let mut apt = super::bounded("apt-get", until);
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

/// One cluster: its folder, its ports and the processes that it consists of.
struct Cluster {
    home: Home,
    mon_port: u16,
    gateway_port: u16,
}

fn up(folder: &Path, patience: Duration) -> std::result::Result<Env, String> {
    let until = Instant::now() + patience;
    install(until)?;
    down(folder)?;
    let folder = folder.to_owned();
    let cluster = Cluster {
        home: Home { folder, until },
        mon_port: free_port()?,
        gateway_port: free_port()?,
    };
    let began = Instant::now();
    cluster.start().map_err(|why| format!("no Ceph: {why}"))?;
    let endpoint = format!("http://127.0.0.1:{}", cluster.gateway_port);
    say(&format!(
        "Ceph is up at {endpoint} after {} s",
        began.elapsed().as_secs()
    ));
    let gateway = cluster.home.text(GATEWAY_SCRIPT);
    Ok(vec![(CEPH.variable, endpoint), (GATEWAY, gateway)])
}

impl Cluster {
    fn start(&self) -> Result {
        for name in ["mon", "mgr", "osd", "rgw", "run"] {
            fs::create_dir_all(self.home.folder.join(name)).map_err(told)?;
        }
        let id = new_id()?;
        fs::write(self.home.path("ceph.conf"), self.configuration(&id)).map_err(told)?;
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
        self.start_gateway()?;
        self.home.wait_for(self.gateway_port)?;
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

    fn text(&self, name: &str) -> String {
        self.home.text(name)
    }

    fn configuration(&self, id: &str) -> String {
        let (folder, port) = (self.home.folder.display(), self.mon_port);
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

    /// Starts a gateway, by a script that others can start as well.
    fn start_gateway(&self) -> Result {
        // It becomes the gateway itself, so who starts it can kill it; and `down` ends what nobody killed.
        // Without `tcp_nodelay` small answers wait for 40 ms.
        let script = format!(
            "cd '{folder}' || exit
echo \"$$ radosgw\" >> pids
exec radosgw --conf ceph.conf -f -n client.rgw --keyring client.rgw.keyring --rgw-data rgw \\
    --rgw-frontends \"beast endpoint=127.0.0.1:$1 tcp_nodelay=1\" >> client.rgw.out 2>&1
",
            folder = self.home.folder.display()
        );
        fs::write(self.home.path(GATEWAY_SCRIPT), script).map_err(told)?;
        let mut gateway = Command::new("sh");
        gateway
            .args([self.text(GATEWAY_SCRIPT), self.gateway_port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = gateway.spawn();
        started.map(drop).map_err(told)
    }

    /// Makes a user with these rights, and the file with its key.
    fn keyring(&self, name: &str, rights: &[&str]) -> Result {
        let get = ["auth", "get-or-create", name];
        let key = self.admin("ceph", &[&get[..], rights].concat())?;
        fs::write(self.home.path(&format!("{name}.keyring")), key).map_err(told)
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> std::result::Result<String, String> {
        output(self.home.bounded(program).args(arguments))
    }

    fn configured(&self, program: &str, arguments: &[&str]) -> std::result::Result<String, String> {
        let configuration = self.text("ceph.conf");
        output(
            self.home
                .bounded(program)
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
        output(self.home.bounded(program).args(who).args(arguments))
    }

    /// Starts one of its processes.
    fn spawn(&self, program: &str, name: &str, arguments: &[&str]) -> Result {
        let (configuration, keyring) = (
            self.text("ceph.conf"),
            self.text(&format!("{name}.keyring")),
        );
        let who = ["--conf", &configuration, "-f", "--keyring", &keyring];
        let log = format!("{name}.out");
        self.home
            .spawn(program, &log, &[&who[..], arguments].concat())
    }
}
