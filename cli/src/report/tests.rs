//! The files of a report, whatever the stores have answered.

use std::time::{Duration, SystemTime};

use larder_conformance::lin::{self, Answer, Call, History, Limits, ModelName, Op, Place, Row};
use larder_conformance::{Options, Verdict};

use super::timeline::{Picture, Shape};
use super::{Book, Environment, Run, Started, html, junit, utc};
use crate::demo;

/// Text that would be markup if anybody forgot to escape it.
const MARKUP: &str = "<script>alert(1)</script> & \"quoted\" 'single' ]]> \u{1} é";

fn options(only: &str) -> Options {
    let mut options = Options::new();
    options.seed = 7;
    options.only = Some(only.into());
    options
}

/// The correct store on two clauses, and the stale one with a failure that is full of markup and has a timeline.
fn book() -> Book {
    let started = Started::now();
    let [correct, stale] = demo::stores().unwrap();
    let mut failed = stale.run(&options("BM-6.2"), |_| {});
    let [record] = &mut failed.records[..] else {
        panic!("one check was asked for");
    };
    let Verdict::Fail(failure) = &mut record.verdict else {
        panic!("a stale store passed: {record:?}");
    };
    failure.observed = MARKUP.into();
    failure.history = vec![MARKUP.into()];
    failure.timeline = Some(Box::new(witness()));
    Book {
        title: "A test",
        note: None,
        runs: vec![
            Run {
                store: MARKUP.into(),
                about: None,
                report: failed,
            },
            Run {
                store: "mem:".into(),
                about: Some("a map"),
                report: correct.run(&options("BM-1"), |_| {}),
            },
        ],
        environment: Environment::of(&started, &options("BM-1")),
        profile: options("BM-1").profile,
        replay: |_, _, record| format!("larder verify --check {} && true", record.id),
    }
}

/// A violation with an open call, two calls of one client at once, and stamps that are equal.
fn witness() -> lin::Witness {
    let set = |value: &str| Op::Set {
        key: "<k>".into(),
        value: value.into(),
        ttl: None,
    };
    let get = || Op::Get { key: "<k>".into() };
    let read = |value: &str| Answer::Row(Some(Row::inline(value)));
    let history = History::new(vec![
        Call::answered(0, 0, 10, set("<a>"), Answer::Done),
        Call::answered(0, 10, 10, get(), read("<a>")),
        Call::answered(1, 12, 30, set("<b>"), Answer::Done),
        Call::unknown(2, 5, None, set("<c>")),
        Call::answered(2, 15, 20, get(), read("<b>")),
        Call::answered(3, 22, 25, get(), read("<a>")),
    ]);
    let report = lin::check(&history, ModelName::Register, Limits::default()).unwrap();
    match report.verdict {
        lin::Verdict::Violation(witness) => *witness,
        other => panic!("no violation: {other:?}"),
    }
}

/// Every tag that is opened is closed, in the right order; attributes are quoted; no `&` stands alone.
fn well_formed(text: &str, void: &[&str]) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        entities(&rest[..at], &open);
        let end = rest[at..].find('>').expect("a tag ends") + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed in the wrong order");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        if !tag.ends_with('/') && !void.contains(&name) {
            open.push(name);
        }
        assert!(!tag.contains('<'), "{tag}");
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

fn entities(text: &str, open: &[&str]) {
    if open.last() == Some(&"style") {
        return;
    }
    for (at, _) in text.match_indices('&') {
        let name = text[at + 1..].split(';').next().unwrap_or_default();
        let known = ["lt", "gt", "amp", "quot", "#10", "#9"];
        assert!(known.contains(&name), "a bare & in {text}");
    }
}

#[test]
fn the_page_is_well_formed_and_has_no_markup_but_its_own() {
    let book = book();
    let page = html::render(&book);
    well_formed(&page, &["meta", "link", "br"]);
    assert!(!page.contains("<script"), "markup of a store got through");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    for outside in ["http://", "https://", "url(", "@import", "src="] {
        let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!page.contains(outside), "the page asks for {outside}");
    }
    assert!(page.contains("name=\"viewport\""));
}

#[test]
fn the_page_has_every_clause_and_check_of_the_runs_and_the_way_to_repeat_them() {
    let book = book();
    let page = html::render(&book);
    for run in &book.runs {
        assert!(!run.report.records.is_empty());
        for record in &run.report.records {
            assert!(
                page.contains(&format!("id=\"clause-{}\"", record.clause)),
                "{}",
                record.clause
            );
            assert!(page.contains(record.id), "{}", record.id);
        }
    }
    for text in [
        "larder verify --check BM-6.2 &amp;&amp; true",
        "lives as long as the process",
        "<th class=\"status\" scope=\"row\">seed</th><td><code>7</code>",
        "a list is a snapshot",
    ] {
        assert!(page.contains(text), "{text} is missing");
    }
    // Every place that is pointed to is there, and there once.
    for link in page.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap_or_default();
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
}

#[test]
fn a_timeline_has_a_bar_for_each_call_and_the_same_in_words() {
    let witness = witness();
    let svg = super::timeline::render(&witness).into_string();
    well_formed(&svg, &[]);
    // Once for wide screens and once for narrow ones.
    assert_eq!(svg.matches("<svg").count(), 2);
    assert_eq!(
        svg.matches("role=\"listitem\" tabindex=\"0\"").count(),
        2 * witness.calls.len()
    );
    assert_eq!(svg.matches("class=\"call impossible\"").count(), 2);
    assert_eq!(svg.matches("<circle").count(), 2 * witness.order().len());
    assert!(
        svg.contains("The call that fits nowhere: client 3"),
        "{svg}"
    );
    assert!(svg.contains("&lt;a&gt;") && !svg.contains("<a>"), "{svg}");
}

#[test]
fn moments_stand_inside_their_bars_and_never_go_back() {
    let witness = witness();
    for shape in [Shape::Wide, Shape::Narrow] {
        let picture = Picture::of(&witness, shape);
        let moments = picture.moments();
        assert!(moments.is_sorted_by_key(|(x, _)| *x), "{moments:?}");
        let mut order: Vec<_> = picture
            .bars
            .iter()
            .filter(|bar| matches!(bar.call.place, Place::Order(_)))
            .collect();
        order.sort_by_key(|bar| bar.call.place);
        assert_eq!(order.len(), moments.len());
        for (bar, (x, _)) in order.iter().zip(&moments) {
            assert!(
                (bar.from..=bar.to).contains(x),
                "{x} outside {}..{}",
                bar.from,
                bar.to
            );
        }
        // No two bars of a lane meet, and none leaves the picture.
        for (at, bar) in picture.bars.iter().enumerate() {
            assert!(bar.from < bar.to && bar.to < picture.width);
            let others = picture.bars[..at]
                .iter()
                .filter(|other| other.lane == bar.lane);
            for other in others {
                assert!(other.to < bar.from || bar.to < other.from);
            }
        }
    }
}

#[test]
fn junit_counts_what_it_lists_and_escapes_what_xml_cannot_hold() {
    let book = book();
    let xml = junit::render(&book);
    well_formed(&xml, &[]);
    let total: usize = book.runs.iter().map(|run| run.report.records.len()).sum();
    assert!(xml.contains(&format!(
        "<testsuites name=\"larder\" tests=\"{total}\" failures=\"1\""
    )));
    assert_eq!(xml.matches("<testcase ").count(), total);
    assert_eq!(xml.matches("<failure ").count(), 1);
    let counts = book.counts();
    assert_eq!(xml.matches("<skipped ").count(), counts.ignored);
    assert_eq!(xml.matches("<error ").count(), counts.inconclusive);
    assert!(!xml.contains('\u{1}') && xml.contains('\u{fffd}') && xml.contains('é'));
}

#[test]
fn the_record_has_the_timeline_as_data() {
    let json = book().to_json();
    let failure = &json["runs"][0]["checks"][0]["failure"];
    assert_eq!(failure["timeline"]["key"], "<k>", "{failure}");
    assert_eq!(json["environment"]["seed"], "7");
}

#[test]
fn moments_are_written_as_rfc_3339_says() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (1_735_689_599, "2024-12-31T23:59:59Z"),
    ] {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(utc(at), text);
    }
}
