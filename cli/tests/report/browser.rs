//! A browser that is told what to do as a reader would: where to point, and which keys to press.
//!
//! It speaks the DevTools protocol over two pipes, a message to each NUL.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a page may take to get where it is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Browser {
    child: Child,
    commands: File,
    answers: BufReader<File>,
    count: u64,
    session: Option<String>,
    folder: PathBuf,
}

impl Browser {
    /// Starts `program`, with its pipes and its profile in a folder of its own below `folder`.
    pub(crate) fn start(program: &Path, folder: &Path) -> Self {
        let folder = folder.join("browser");
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        let (commands, answers) = (folder.join("commands"), folder.join("answers"));
        let made = Command::new("mkfifo").args([&commands, &answers]).status();
        assert!(made.expect("mkfifo starts").success(), "no pipes");
        // The shell puts the pipes where the browser looks for them.
        let child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<"$COMMANDS" 4>"$ANSWERS""#, "sh"])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!(
                "--user-data-dir={}",
                folder.join("profile").display()
            ))
            .envs([("COMMANDS", &commands), ("ANSWERS", &answers)])
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        // In the order in which the shell opens the other ends, since each waits for the other.
        let commands = File::options().write(true).open(commands);
        let answers = File::open(answers);
        let mut browser = Self {
            child,
            commands: commands.expect("the shell reads commands"),
            answers: BufReader::new(answers.expect("the browser answers")),
            count: 0,
            session: None,
            folder,
        };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attached = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attached);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser
    }

    /// One command, and its answer. What the browser tells meanwhile is passed over.
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.count += 1;
        let mut message = json!({"id": self.count, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let sent = self.commands.write_all(format!("{message}\0").as_bytes());
        sent.expect("the browser listens");
        loop {
            let mut answer = Vec::new();
            let read = self.answers.read_until(0, &mut answer);
            let len = read.expect("the browser answers");
            assert!(len > 0, "the browser is gone in the middle of {method}");
            let answer = answer.strip_suffix(b"\0").unwrap_or(&answer);
            let answer: Value = serde_json::from_slice(answer).expect("the browser speaks JSON");
            if answer["id"] == json!(self.count) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    /// What an expression comes to in the page.
    pub(crate) fn ask(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", &params);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].clone()
    }

    /// Opens a page in a window of that size, with fingers or a mouse.
    pub(crate) fn open(&mut self, page: &Path, width: u32, height: u32, is_phone: bool) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let url = format!("file://{}", page.display());
        self.call("Page.navigate", &json!({ "url": url }));
        self.wait(&format!(
            "document.readyState === 'complete' && location.href === {}",
            json!(url)
        ));
    }

    fn wait(&mut self, condition: &str) {
        let until = Instant::now() + PATIENCE;
        while self.ask(condition) != json!(true) {
            assert!(Instant::now() < until, "never came to be: {condition}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn point_at(&mut self, x: f64, y: f64) {
        let moved = json!({"type": "mouseMoved", "x": x, "y": y});
        self.call("Input.dispatchMouseEvent", &moved);
    }

    pub(crate) fn press_tab(&mut self) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({
                "type": kind, "key": "Tab", "code": "Tab",
                "windowsVirtualKeyCode": 9, "nativeVirtualKeyCode": 9,
            });
            self.call("Input.dispatchKeyEvent", &key);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
