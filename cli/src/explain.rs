//! `larder explain`: a clause, its checks, and what they are there to find.

use larder_conformance::{CheckInfo, Level, catalogue, clauses};

use crate::Problem;

#[expect(clippy::print_stdout, reason = "a program prints its answer")]
pub(crate) fn run(id: &str) -> Result<(), Problem> {
    let wanted = id.to_ascii_uppercase();
    let clause_id = wanted.split('.').next().unwrap_or(&wanted);
    let clause = clauses().iter().find(|clause| clause.id == clause_id);
    let clause = clause.ok_or_else(|| {
        Problem::Usage(format!(
            "there is no clause `{id}`; clauses are C-1 to C-6, BM-1 to BM-13, ST-1 to ST-14, BS-1 to BS-15, \
             BK-1 to BK-6, HV-1 to HV-10, TS-1 to TS-9, KV-1 to KV-9"
        ))
    })?;
    let checks: Vec<CheckInfo> = catalogue()
        .into_iter()
        .filter(|check| check.clause == clause_id)
        .filter(|check| !wanted.contains('.') || check.id == wanted)
        .collect();
    if wanted.contains('.') && checks.is_empty() {
        return Err(Problem::Usage(format!(
            "there is no check `{id}`; larder explain {clause_id} lists those of the clause"
        )));
    }
    let declared = if clause.declared { " (declared)" } else { "" };
    println!(
        "{} {}{declared}\n\n{}\n",
        clause.id, clause.title, clause.text
    );
    if checks.is_empty() {
        println!("It has no checks yet.");
    }
    for check in checks {
        println!("{}  {}  [{}]", check.id, check.title, about(&check));
        if !check.kills.is_empty() {
            println!("    finds: {}", check.kills);
        }
    }
    Ok(())
}

fn about(check: &CheckInfo) -> String {
    if let Level::Untestable(why) = check.level {
        return format!("{}, untestable: {why}", check.contract);
    }
    let engines: Vec<&str> = check.engines.iter().map(|engine| engine.name()).collect();
    format!("{}, {}", check.contract, engines.join(" + "))
}
