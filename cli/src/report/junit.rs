//! `junit.xml`: a test suite for each contract on each store, a test case for each check.
//!
//! What did not run is *skipped* and says why, a violated clause is a *failure*, and a check that could not tell is an
//! *error*, because no tool may take it for green.

use std::fmt::Write;

use larder_conformance::{Failure, Record, Verdict};

use super::{Book, Run};

pub(super) fn render(book: &Book) -> String {
    let counts = book.counts();
    let tests: usize = book.runs.iter().map(|run| run.report.records.len()).sum();
    let mut xml = Xml::default();
    xml.line(
        0,
        format_args!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"),
    );
    xml.line(
        0,
        format_args!(
            "<testsuites name=\"larder\" tests=\"{tests}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">",
            counts.fail,
            counts.inconclusive,
            counts.ignored
        ),
    );
    for run in &book.runs {
        suite(&mut xml, book, run);
    }
    xml.line(0, format_args!("</testsuites>"));
    xml.0
}

#[derive(Default)]
struct Xml(String);

impl Xml {
    fn line(&mut self, depth: usize, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{:1$}{line}", "", depth * 2).expect("writing to a string does not fail");
    }
}

fn suite(xml: &mut Xml, book: &Book, run: &Run) {
    let counts = run.counts();
    let started = book.environment.started().unwrap_or_default();
    xml.line(
        1,
        format_args!(
            "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\" \
             timestamp=\"{}\">",
            escape(&format!("{} on {}", run.report.contract, run.store)),
            run.report.records.len(),
            counts.fail,
            counts.inconclusive,
            counts.ignored,
            run.took().as_secs_f64(),
            escape(started.trim_end_matches('Z')),
        ),
    );
    xml.line(2, format_args!("<properties>"));
    for (name, value) in book.environment.lines() {
        xml.line(
            3,
            format_args!(
                "<property name=\"{}\" value=\"{}\"/>",
                escape(name),
                escape(value)
            ),
        );
    }
    xml.line(2, format_args!("</properties>"));
    for record in &run.report.records {
        case(xml, book, run, record);
    }
    xml.line(1, format_args!("</testsuite>"));
}

fn case(xml: &mut Xml, book: &Book, run: &Run, record: &Record) {
    let module = run.report.contract.name().replace('-', "_");
    let head = format!(
        "<testcase classname=\"{module}.{}\" name=\"{}\" time=\"{:.3}\"",
        escape(record.clause),
        escape(&format!("{} {}", record.id, record.title)),
        record.took.as_secs_f64()
    );
    let reason = escape(&record.verdict.reason().unwrap_or_default());
    let inner = match &record.verdict {
        Verdict::Pass => {
            xml.line(2, format_args!("{head}/>"));
            return;
        }
        Verdict::Fail(failure) => format!(
            "<failure type=\"{:?}\" message=\"{reason}\">{}</failure>",
            failure.symptom,
            escape(&text(book, run, record, failure))
        ),
        Verdict::Ignored(_) => format!("<skipped message=\"{reason}\"/>"),
        // What a program does not know it cannot call green.
        _ => format!("<error type=\"inconclusive\" message=\"{reason}\"/>"),
    };
    xml.line(2, format_args!("{head}>"));
    xml.line(3, format_args!("{inner}"));
    xml.line(2, format_args!("</testcase>"));
}

fn text(book: &Book, run: &Run, record: &Record, failure: &Failure) -> String {
    let replay = book.replay(run, record);
    larder_conformance::explain_failure(record, &replay).unwrap_or_else(|| failure.what.clone())
}

/// Text as it may stand in XML 1.0, in an attribute as well: most control characters have no form there at all.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
