//! `report.html`: one page that needs nothing but itself. No script, no font, no picture from elsewhere.

use larder_conformance::{Clause, Failure, Record, Verdict, clauses};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Book, Run, declared, timeline};
use crate::matrix::Counts;

const STYLE: &str = include_str!("style.css");

/// Nothing may be loaded and nothing may run, whatever a store has answered.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

pub(super) fn render(book: &Book) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (book.title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (book.title) }
                    p { (word(book.counts().verdict())) " " (book.counts().line()) }
                    @if let Some(note) = book.note { p.note { (note) } }
                }
                main {
                    (overview(book))
                    (failures(book))
                    @for (at, run) in book.runs.iter().enumerate() { (contract(at, run)) }
                    (environment(book))
                    (texts(book))
                }
            }
        }
    };
    page.into_string()
}

/// A word with its colour; the word says all, the colour repeats it.
fn word(word: &str) -> Markup {
    html! { span class=(format!("word {}", word.to_ascii_lowercase())) { (word) } }
}

fn overview(book: &Book) -> Markup {
    html! {
        section {
            h2 { "Contracts" }
            table {
                thead { tr {
                    th scope="col" { "Store and contract" }
                    th.status scope="col" { "Verdict" }
                    th.spare scope="col" { "Checks" }
                    th.number.spare scope="col" { "Time" }
                } }
                tbody {
                    @for (at, run) in book.runs.iter().enumerate() {
                        tr {
                            th scope="row" {
                                a href=(format!("#run-{at}")) { code { (run.store) } " " (run.report.contract) }
                                @if let Some(about) = run.about { br; span.quiet { (about) } }
                            }
                            td.status { (word(run.counts().verdict())) }
                            td.spare { (run.counts().line()) }
                            td.number.spare { (seconds(run.took())) }
                        }
                    }
                }
            }
        }
    }
}

fn seconds(took: std::time::Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

fn failures(book: &Book) -> Markup {
    let failed = || {
        let runs = book.runs.iter().enumerate();
        runs.flat_map(|(at, run)| {
            let failures = run.report.failures();
            failures.map(move |(record, failure)| (at, run, record, failure))
        })
    };
    // What a picture explains comes first.
    let mut all: Vec<_> = failed().collect();
    all.sort_by_key(|(at, _, _, failure)| (*at, failure.timeline.is_none()));
    html! {
        @if !all.is_empty() {
            section {
                h2 { "What was violated" }
                @if all.len() > 1 {
                    ul.index {
                        @for (at, _, record, _) in &all {
                            li { a href=(format!("#run-{at}-{}", record.id)) { (record.id) " " (record.title) } }
                        }
                    }
                }
                @for (at, run, record, failure) in all { (violated(book, at, run, record, failure)) }
            }
        }
    }
}

fn violated(book: &Book, at: usize, run: &Run, record: &Record, failure: &Failure) -> Markup {
    html! {
        article id=(format!("run-{at}-{}", record.id)) {
            h3 { (record.id) " " (record.title) }
            p.quiet {
                "Clause " a href=(format!("#clause-{}", record.clause)) { (record.clause) } " of "
                (run.report.contract) ", on " code { (run.store) }
            }
            dl {
                dt { "looked at" } dd { (failure.what) }
                dt { "observed" } dd { (failure.observed) }
                dt { "expected" } dd { (failure.expected) }
            }
            @if let Some(witness) = &failure.timeline {
                (timeline::render(witness))
                details {
                    summary { "The same as text, and the whole epoch as larder check reads it" }
                    pre.wide tabindex="0" { (failure.history.join("\n")) }
                }
            } @else if !failure.history.is_empty() {
                (calls(&failure.history))
            }
            h4 { "Replay" }
            pre { code { (book.replay(run, record)) } }
        }
    }
}

/// Of a long list of calls the last ones matter most; the others are there to be unfolded.
fn calls(history: &[String]) -> Markup {
    const SHOWN_MAX: usize = 12;
    let (earlier, last) = history.split_at(history.len().saturating_sub(SHOWN_MAX));
    html! {
        h4 { "The calls, the last one last" }
        @if !earlier.is_empty() {
            details {
                summary { (earlier.len()) " earlier calls" }
                pre { (earlier.join("\n")) }
            }
        }
        pre { (last.join("\n")) }
    }
}

fn contract(at: usize, run: &Run) -> Markup {
    html! {
        section id=(format!("run-{at}")) {
            h2 { code { (run.store) } " " (run.report.contract) " " (word(run.counts().verdict())) }
            p { (run.counts().line()) ", " (seconds(run.took())) ", seed " code { (run.report.seed) } }
            (clause_table(at, run))
            (declared_table(run))
            (did_not_run(run))
        }
    }
}

fn clause_table(at: usize, run: &Run) -> Markup {
    let of_run = |clause: &&Clause| run.of_clause(&clause.id).next().is_some();
    html! {
        table {
            thead { tr {
                th scope="col" { "Clause" }
                th.status scope="col" { "Verdict" }
                th.number scope="col" { "Passed" }
                th.number.spare scope="col" { "Time" }
            } }
            tbody {
                @for clause in clauses().iter().filter(of_run) {
                    @let counts = Counts::of(run.of_clause(&clause.id));
                    tr {
                        th scope="row" {
                            details {
                                summary { (clause.id) " " (clause.title) }
                                (checks(at, run, clause))
                            }
                        }
                        td.status { (word(counts.verdict())) }
                        td.number { (counts.pass) " of " (run.of_clause(&clause.id).count()) }
                        td.number.spare { (seconds(run.of_clause(&clause.id).map(|record| record.took).sum())) }
                    }
                }
            }
        }
    }
}

fn checks(at: usize, run: &Run, clause: &Clause) -> Markup {
    html! {
        ul.checks {
            @for record in run.of_clause(&clause.id) {
                li {
                    @let id = format!("run-{at}-{}", record.id);
                    @if matches!(record.verdict, Verdict::Fail(_)) {
                        a href=(format!("#{id}")) { (record.id) }
                    } @else { (record.id) }
                    " " (record.title) " " (word(record.verdict.name()))
                    @if let Some(reason) = record.verdict.reason() { br; span.quiet { (reason) } }
                }
            }
            li { a href=(format!("#clause-{}", clause.id)) { "What the clause says" } }
        }
    }
}

fn declared_table(run: &Run) -> Markup {
    let Some(caps) = run.report.records.iter().find_map(|record| record.caps) else {
        return html! {};
    };
    html! {
        h4 { "Declared, and what the checks saw of it" }
        table {
            thead { tr {
                th scope="col" { "Declared" }
                th scope="col" { "Value" }
                th.seen scope="col" { "Observed" }
            } }
            tbody {
                @for item in declared::items(run.report.contract, &caps) {
                    tr {
                        th scope="row" { (item.name) }
                        td { (item.value) }
                        td.seen { (observed(run, item.clauses)) }
                    }
                }
            }
        }
    }
}

fn observed(run: &Run, of: &[&str]) -> Markup {
    let of_run: Vec<&str> = of
        .iter()
        .copied()
        .filter(|clause| run.of_clause(clause).next().is_some())
        .collect();
    html! {
        @if of_run.is_empty() { span.quiet { "not looked at" } }
        @for clause in of_run {
            div { (clause) " " (word(Counts::of(run.of_clause(clause)).verdict())) }
        }
    }
}

fn did_not_run(run: &Run) -> Markup {
    let told = |record: &&Record| {
        matches!(
            record.verdict,
            Verdict::Ignored(_) | Verdict::Inconclusive(_)
        )
    };
    let told: Vec<&Record> = run.report.records.iter().filter(told).collect();
    html! {
        @if !told.is_empty() {
            h4 { "What did not run or could not tell, and why" }
            ul.checks {
                @for record in told {
                    li {
                        (record.id) " " (word(record.verdict.name())) " "
                        (record.verdict.reason().unwrap_or_default())
                    }
                }
            }
        }
    }
}

fn environment(book: &Book) -> Markup {
    html! {
        section {
            h2 { "Environment" }
            table {
                tbody {
                    @for (name, value) in book.environment.lines() {
                        tr { th.status scope="row" { (name) } td { code { (value) } } }
                    }
                }
            }
        }
    }
}

/// The clauses that were looked at, in their own words.
fn texts(book: &Book) -> Markup {
    let looked_at = |clause: &&Clause| {
        let mut runs = book.runs.iter();
        runs.any(|run| run.of_clause(&clause.id).next().is_some())
    };
    html! {
        section {
            h2 { "The clauses" }
            @for clause in clauses().iter().filter(looked_at) {
                section id=(format!("clause-{}", clause.id)) {
                    h4 {
                        (clause.id) " " (clause.title)
                        @if clause.declared { " " span.quiet { "(declared)" } }
                    }
                    @for block in clause.text.split("\n\n") { (paragraph(block)) }
                }
            }
        }
    }
}

/// Plain sentences flow with the width of the page; lists, tables and examples keep their lines.
fn paragraph(block: &str) -> Markup {
    let mut lines = block.lines();
    let made_of_lines = lines.any(|line| {
        let marks = ["- ", "* ", "|", "  ", "```", "1. "];
        marks.iter().any(|mark| line.starts_with(mark))
    });
    html! {
        @if made_of_lines { p.lines { (block) } } @else { p { (block) } }
    }
}
