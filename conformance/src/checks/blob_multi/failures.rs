//! BM-12 and BM-13: writes of unknown outcome, and errors that are errors.

use larder_traits::{Atomicity, Classify, ExternalError, LateLanding, Outcome as Effect};

use super::{faults, landing};
use crate::blob_multi::{Handle, World};
use crate::check::{Check, Engine, Gate, Level, Outcome, Stop, describe};
use crate::cx::{Cx, brief};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BM-12.1",
        "declared fenced: a set of unknown outcome does not come back over a later one",
    )
    .kills("zombie write")
    .level(Level::Declared)
    .engines(&[Engine::Fault])
    .gate(|caps| match caps.late_landing {
        LateLanding::Fenced => Gate::Run,
        LateLanding::MayLandLate(_) => Gate::Ignore("declared: such a write may land late"),
    })
    .run(|cx| Box::pin(landing::bm_12(cx))),
    Check::new(
        "BM-12.2",
        "declared not fenced: a write lands within the stated bound or never",
    )
    .kills("false bound")
    .level(Level::Declared)
    .engines(&[Engine::Fault])
    .gate(|caps| match caps.late_landing {
        LateLanding::MayLandLate(Some(_)) => Gate::Run,
        LateLanding::MayLandLate(None) => Gate::Ignore("declared: late, and within no bound"),
        LateLanding::Fenced => Gate::Ignore("declared fenced, which is BM-12.1"),
    })
    .run(|cx| Box::pin(landing::bm_12(cx))),
    Check::new(
        "BM-13.1",
        "a set or delete whose answer is lost: Ok, or Unknown",
    )
    .kills("false NotApplied")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::bm_13_1(cx))),
    Check::new(
        "BM-13.2",
        "wrong credentials, no bucket, closed port: errors from every method",
    )
    .kills("failure as None or an empty list")
    .run(|cx| Box::pin(bm_13_2(cx))),
    Check::new(
        "BM-13.3",
        "an answer of 200 with an error inside, or with a short body: not accepted",
    )
    .kills("broken answer accepted")
    .engines(&[Engine::Fault])
    .run(|cx| Box::pin(faults::bm_13_3(cx))),
];

async fn bm_13_2(cx: &Cx<dyn World>) -> Outcome {
    let unusable = cx.world().unusable().await;
    let unusable =
        unusable.map_err(|e| Stop::Inconclusive(format!("the stores could not be made: {e}")))?;
    if unusable.is_empty() {
        return Err(Stop::Ignored("needs the power unusable()".into()));
    }
    for (why, store) in unusable {
        let handle = cx.handle(why, store);
        let deadline = Handle::ample();
        let read = |result, method: &str| no_answer(why, method, result, true);
        read(shown(handle.try_get(deadline, "k").await), "get")?;
        read(
            shown(handle.try_get_bytes(deadline, "k").await),
            "get_bytes",
        )?;
        let range = handle.try_get_range(deadline, "k", 0..9).await;
        read(shown(range), "get_range")?;
        read(shown(handle.try_list(deadline).await), "list_keys")?;
        let found = handle.try_list_prefix(deadline, "").await;
        read(shown(found), "list_prefix")?;
        let deleted = shown(handle.try_delete(deadline, "k").await);
        no_answer(why, "delete", deleted, false)?;
        for atomic in [Atomicity::RequireAtomic, Atomicity::AllowNonAtomic] {
            let set = shown(handle.try_set(deadline, "k", "value", atomic).await);
            no_answer(why, "set", set, false)?;
        }
    }
    Ok(())
}

fn shown<T: std::fmt::Debug>(result: Result<T, ExternalError>) -> Result<String, ExternalError> {
    result.map(|value| brief(&value))
}

/// Fails unless the call ended as an error, which for a read says that nothing was changed.
fn no_answer(
    why: &str,
    method: &str,
    result: Result<String, ExternalError>,
    is_read: bool,
) -> Outcome {
    let what = format!("{method} of a store with {why}");
    match result {
        Ok(value) => Err(Stop::fail(what, format!("Ok({value})"), "an error")),
        Err(e) if is_read && e.outcome() != Effect::NotApplied => Err(Stop::fail(
            what,
            describe(&e),
            "an error that is NotApplied, as every error of a read",
        )),
        Err(_) => Ok(()),
    }
}
