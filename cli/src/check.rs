//! `larder check`: a recorded history, judged for linearizability. `docs/HISTORY.md` describes the file.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use larder_conformance::lin::{self, History, InputError, Limits, Verdict};

use crate::{CheckArguments, Problem, answer};

pub(crate) fn run(arguments: &CheckArguments) -> Result<(), Problem> {
    let name = arguments.file.display();
    let unreadable = |e: InputError| Problem::Usage(format!("{name}: {}", one_line(&e)));
    let history = History::read(open(&arguments.file)?).map_err(unreadable)?;
    let mut limits = Limits::default();
    if let Some(steps) = arguments.steps {
        limits = limits.with_steps(steps);
    }
    let report = lin::check(&history, arguments.model, limits).map_err(unreadable)?;
    if arguments.json {
        let json = serde_json::to_string(&report)
            .map_err(|e| Problem::Untested(format!("the verdict is no JSON: {e}")))?;
        answer(&format!("{json}\n"))?;
    } else {
        answer(&report.to_string())?;
    }
    match report.verdict {
        Verdict::Linearizable => Ok(()),
        Verdict::Violation(_) => Err(Problem::Violated),
        // A verdict that this program does not know is not a good one.
        _ => Err(Problem::Undecided),
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Problem> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path)
        .map_err(|e| Problem::Usage(format!("{}: cannot be opened: {e}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

/// An error and what it came from, in one line.
fn one_line(e: &dyn Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    text.replace(['\n', '\r'], " ")
}
