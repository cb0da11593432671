//! The demo, and its report as a browser shows it.

#[path = "report/browser.rs"]
mod browser;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use browser::Browser;

/// `target/larder` of the folder that this test was built in, where what is worth looking at is kept.
fn target() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_larder"));
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .expect("cargo marks its target folder");
    target.join("larder")
}

fn demo(folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["demo", "--seed", "7", "--report"])
        .arg(folder)
        .output()
        .expect("the program starts")
}

#[test]
fn the_demo_tells_a_stale_store_from_a_correct_one_in_six_lines() {
    let folder = target().join("demo-test");
    let output = demo(&folder);
    let text = String::from_utf8(output.stdout).expect("the program speaks UTF-8");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.contains("correct  holds"), "{text}");
    assert!(text.contains("stale    violated"), "{text}");
    assert!(text.contains("the suite told them apart"), "{text}");
    let page = fs::read_to_string(folder.join("report.html")).expect("the page was written");
    assert!(
        page.contains("fits nowhere"),
        "the page shows the violation"
    );
    for file in ["report.json", "junit.xml"] {
        let len = fs::metadata(folder.join(file)).map_or(0, |file| file.len());
        assert!(len > 0, "{file} was not written");
    }
}

/// The browser, by `CHROMIUM` or where Debian and its relatives put it.
fn chromium() -> PathBuf {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let known = [
        "/usr/bin/chromium",
        "/usr/bin/chromium-browser",
        "/usr/bin/google-chrome",
    ];
    let mut candidates = named.into_iter().chain(known.map(PathBuf::from));
    candidates
        .find(|path| path.is_file())
        .expect("no Chromium: install it, or name it in CHROMIUM")
}

/// Renders `page` into `picture` and answers what the page wrote to the console.
fn render(page: &Path, picture: &Path, width: u32, height: u32) -> Vec<String> {
    drop(fs::remove_file(picture));
    let profile = picture.with_extension("profile");
    let output = Command::new(chromium())
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args(["--enable-logging=stderr", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    drop(fs::remove_dir_all(profile));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said.lines()
        .filter(|line| line.contains("CONSOLE"))
        .map(str::to_owned)
        .collect()
}

#[test]
#[ignore = "needs Chromium; run by cargo xtask report-test"]
fn the_report_renders_with_an_empty_console() {
    let folder = target().join("demo");
    assert_eq!(demo(&folder).status.code(), Some(0));
    // A page that complains must be heard, or an empty console means nothing.
    let canary = folder.join("canary.html");
    fs::write(&canary, "<script>console.error('canary')</script>").expect("the folder is there");
    let heard = render(&canary, &folder.join("canary.png"), 400, 300);
    assert!(
        heard.iter().any(|line| line.contains("canary")),
        "the console is not heard"
    );
    // No window of this browser is as narrow as a phone, but a frame can be.
    let phone = folder.join("phone.html");
    let frame = "<body style='margin:0'><iframe src='report.html' style='border:0;width:390px;height:3000px'></iframe>";
    fs::write(&phone, frame).expect("the folder is there");
    for (page, name, width) in [
        ("report.html", "report.png", 1280),
        ("phone.html", "phone.png", 500),
    ] {
        let picture = folder.join(name);
        let console = render(&folder.join(page), &picture, width, 3000);
        assert!(console.is_empty(), "{name}: {console:?}");
        let bytes = fs::read(&picture).expect("the browser left a picture");
        assert!(bytes.starts_with(b"\x89PNG"), "{name} is no PNG");
        // A blank page of this size is far smaller.
        assert!(
            bytes.len() > 40_000,
            "{name} shows little: {} bytes",
            bytes.len()
        );
    }
    for leftover in ["canary.html", "canary.png", "phone.html"] {
        fs::remove_file(folder.join(leftover)).expect("it was written above");
    }
}

/// What a reader sees of the calls of the first timeline that is shown: for each, whether its details are visible, and
/// what they say; and where its bar is on the screen.
const CALLS: &str = r#"(() => {
    const calls = [...document.querySelectorAll("svg .call")].filter(call => call.checkVisibility());
    return calls.filter(call => call.closest("svg") === calls[0].closest("svg")).map(call => {
        const bar = call.querySelector(".bar").getBoundingClientRect();
        const lines = [...call.querySelectorAll(".tip text")];
        return {
            x: bar.x + bar.width / 2,
            y: bar.y + bar.height / 2,
            seen: getComputedStyle(call.querySelector(".tip")).visibility === "visible",
            focused: call === document.activeElement,
            told: lines.map(line => line.textContent).join("; "),
            first: lines[0].getBoundingClientRect().right,
            width: innerWidth,
        };
    });
})()"#;

/// Brings that timeline onto the screen.
const SCROLL: &str = r#"
    [...document.querySelectorAll("svg .call")].find(call => call.checkVisibility())
        .closest("svg").scrollIntoView({block: "center", behavior: "instant"})
"#;

/// The details that are visible, of which there may be one at most.
fn seen(browser: &mut Browser) -> Option<String> {
    let calls = browser.ask(CALLS);
    let calls = calls.as_array().expect("a list of calls");
    let seen: Vec<_> = calls.iter().filter(|call| call["seen"] == true).collect();
    assert!(seen.len() <= 1, "details over details: {seen:?}");
    let call = seen.first()?;
    let (right, width) = (call["first"].as_f64(), call["width"].as_f64());
    assert!(right <= width, "beyond the edge of the screen: {call}");
    Some(call["told"].as_str().expect("a text").to_owned())
}

#[test]
#[ignore = "needs Chromium; run by cargo xtask report-test"]
fn calls_are_read_with_a_pointer_and_with_a_keyboard() {
    let folder = target().join("demo-live");
    assert_eq!(demo(&folder).status.code(), Some(0));
    let mut browser = Browser::start(&chromium(), &folder);
    for (width, is_phone) in [(1280, false), (390, true)] {
        browser.open(&folder.join("report.html"), width, 800, is_phone);
        browser.ask(SCROLL);
        assert_eq!(seen(&mut browser), None, "nobody has asked yet");
        let calls = browser.ask(CALLS);
        let calls = calls.as_array().expect("a list of calls");
        assert!(calls.len() >= 2, "a violation takes two calls: {calls:?}");
        for call in calls {
            let at = |axis: &str| call[axis].as_f64().expect("a place on the screen");
            browser.point_at(at("x"), at("y"));
            let told = call["told"].as_str().expect("a text");
            // The call with its arguments, and its result.
            assert!(told.contains("client ") && told.contains(" → "), "{told}");
            assert_eq!(seen(&mut browser).as_deref(), Some(told), "at {width}");
        }
        browser.point_at(1.0, 1.0);
        assert_eq!(seen(&mut browser), None, "the pointer has gone");
        let mut told = Vec::new();
        for _ in 0..500 {
            browser.press_tab();
            let now = browser.ask(CALLS);
            let mut now = now.as_array().expect("a list of calls").iter();
            match now.find(|call| call["focused"] == true) {
                Some(_) => told.push(seen(&mut browser).expect("what has the focus is shown")),
                None if told.is_empty() => {}
                None => break,
            }
        }
        let expected: Vec<_> = calls.iter().map(|call| call["told"].as_str()).collect();
        let told: Vec<_> = told.iter().map(|told| Some(told.as_str())).collect();
        assert_eq!(told, expected, "at {width}, by the keyboard");
        assert_eq!(seen(&mut browser), None, "the focus has gone");
    }
}
