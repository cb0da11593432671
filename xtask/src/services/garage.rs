//! Garage: one node by itself, and a cluster of three, each a process with a metadata store on SQLite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Env, Home, Kind, down, folder, free_port, is_there, output, told};
use crate::{Result, cargo, say};

/// It is up within seconds or never.
pub(crate) const GARAGE: Kind = Kind {
    name: "garage",
    variable: "LARDER_TEST_GARAGE",
    up,
    patience_of_tests: Duration::from_secs(60),
};

/// The variable by which tests learn of the nodes of the cluster, with commas between them.
const CLUSTER: &str = "LARDER_TEST_GARAGE_CLUSTER";

/// What [`install`] builds. No system has a package of it.
const VERSION: &str = "2.5.0";

/// The user that tests are. Garage accepts no other form of either.
const ACCESS_KEY: &str = "GK6c6172646572000000000001";
const SECRET_KEY: &str = "6c61726465720000000000000000000000000000000000000000000000000001";

/// What the nodes of one cluster know each other by; they listen on loopback alone.
const RPC_SECRET: &str = "6c61726465720000000000000000000000000000000000000000000000000002";

/// How long a node may leave a command without an answer before it is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Builds the program, for whoever asks for it: nothing else ever does.
pub(super) fn install() -> Result {
    if let Some(program) = program() {
        return Err(format!("there is {} already", program.display()));
    }
    say("Garage is built from its sources, which takes 15 to 20 minutes on two cores");
    let root = programs().display().to_string();
    let what = ["install", "garage", "--locked", "--version", VERSION];
    // The other engine for metadata refuses keys of more than 460 bytes.
    let features = [
        "--no-default-features",
        "--features",
        "sqlite,bundled-libs",
        "--root",
        &root,
    ];
    cargo::run(&[&what[..], &features].concat(), &[])
}

/// Where [`install`] puts what it builds; `down` leaves it alone.
fn programs() -> PathBuf {
    folder("programs")
}

fn program() -> Option<PathBuf> {
    if is_there("garage") {
        return Some("garage".into());
    }
    let built = programs().join("bin").join("garage");
    built.is_file().then_some(built)
}

fn up(folder: &Path, patience: Duration) -> std::result::Result<Env, String> {
    let program = program().ok_or(
        "no Garage: `cargo xtask services install garage` builds one, which takes 15 to 20 minutes",
    )?;
    down(folder)?;
    fs::create_dir_all(folder).map_err(told)?;
    let began = Instant::now();
    let cluster = |names: &[&str]| {
        let home = Home {
            folder: folder.to_owned(),
            until: Instant::now() + patience,
        };
        let nodes = names.iter().map(|name| Node::new(name));
        let cluster = Cluster {
            program: program.display().to_string(),
            home,
            nodes: nodes.collect::<std::result::Result<_, _>>()?,
        };
        cluster.start().map_err(|why| format!("no Garage: {why}"))?;
        Ok::<_, String>(cluster.endpoints())
    };
    let alone = cluster(&["alone"])?;
    let three = cluster(&["first", "second", "third"])?;
    say(&format!(
        "Garage is up at {alone}, and in three nodes at {three}, after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(vec![(GARAGE.variable, alone), (CLUSTER, three)])
}

/// Nodes that know each other, and keep a copy of everything each.
struct Cluster {
    program: String,
    home: Home,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    rpc_port: u16,
    s3_port: u16,
}

impl Node {
    fn new(name: &str) -> std::result::Result<Self, String> {
        Ok(Self {
            name: name.to_owned(),
            rpc_port: free_port()?,
            s3_port: free_port()?,
        })
    }
}

impl Cluster {
    fn endpoints(&self) -> String {
        let endpoints = self.nodes.iter();
        let endpoints = endpoints.map(|node| format!("http://127.0.0.1:{}", node.s3_port));
        endpoints.collect::<Vec<_>>().join(",")
    }

    fn start(&self) -> Result {
        let mut ids = Vec::new();
        for node in &self.nodes {
            let configuration = self.configuration(node);
            fs::write(
                self.home.path(&format!("{}.toml", node.name)),
                configuration,
            )
            .map_err(told)?;
            let configuration = self.of(node);
            let log = format!("{}.out", node.name);
            self.home
                .spawn(&self.program, &log, &["-c", &configuration, "server"])?;
            self.home.wait_for(node.rpc_port)?;
            let id = self.tell(node, &["node", "id", "-q"])?;
            let id = id.trim().to_owned();
            if ids.is_empty() {
                ids.push(id);
                continue;
            }
            self.tell(self.first()?, &["node", "connect", &id])?;
            ids.push(id);
        }
        let first = self.first()?;
        for id in &ids {
            let id = id.split('@').next().unwrap_or(id);
            // How much each has room for decides who keeps what, and here each keeps all.
            let role = ["layout", "assign", id, "-z", "here", "-c", "16G"];
            self.tell(first, &role)?;
        }
        self.tell(first, &["layout", "apply", "--version", "1"])?;
        let key = ["key", "import", ACCESS_KEY, SECRET_KEY, "-n", "larder"];
        self.tell(first, &[&key[..], &["--yes"]].concat())?;
        self.tell(first, &["key", "allow", "--create-bucket", ACCESS_KEY])?;
        for node in &self.nodes {
            self.home.wait_for(node.s3_port)?;
        }
        Ok(())
    }

    fn first(&self) -> std::result::Result<&Node, String> {
        self.nodes.first().ok_or_else(|| "no nodes".to_owned())
    }

    fn of(&self, node: &Node) -> String {
        self.home.text(&format!("{}.toml", node.name))
    }

    fn configuration(&self, node: &Node) -> String {
        let folder = self.home.text(&node.name);
        let copies = self.nodes.len();
        let (rpc, s3) = (node.rpc_port, node.s3_port);
        format!(
            "metadata_dir = \"{folder}/meta\"
data_dir = \"{folder}/data\"
db_engine = \"sqlite\"
replication_factor = {copies}
rpc_bind_addr = \"127.0.0.1:{rpc}\"
rpc_public_addr = \"127.0.0.1:{rpc}\"
rpc_secret = \"{RPC_SECRET}\"

[s3_api]
s3_region = \"us-east-1\"
api_bind_addr = \"127.0.0.1:{s3}\"
"
        )
    }

    /// A command to a node, again for as long as it fails: a node takes a moment before it answers.
    fn tell(&self, node: &Node, arguments: &[&str]) -> std::result::Result<String, String> {
        let configuration = self.of(node);
        loop {
            let mut command: Command = self.home.bounded(&self.program);
            let told = output(command.args(["-c", &configuration]).args(arguments));
            match told {
                Err(_) if Instant::now() < self.home.until => sleep(PAUSE),
                told => return told,
            }
        }
    }
}
