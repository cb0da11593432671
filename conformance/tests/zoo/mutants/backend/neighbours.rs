//! Wrong only where the medium fails one of several calls that run at once. A call that is alone knows what became of it.

use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::{gap, lock};

pub(super) fn neighbours() -> Vec<Mutant> {
    let mutants = vec![m(
        "bk-clears-away-neighbours",
        "C-1",
        &["BK-1", "BK-2"],
        "a put that failed where no object was clears away what it may have left, be it the object of another put",
        |s| {
            s.slow_put = Some(Box::new(|place, id, row| {
                async move {
                    let is_new = place.live(&id).is_none();
                    gap().await;
                    let write = || {
                        let _step = lock(&place.step);
                        place.write(&id, row);
                    };
                    let written = place.medium.timed(write).await;
                    written.map_err(|trouble| {
                        if is_new {
                            place.remove(&id);
                        }
                        trouble.at_commit().into()
                    })
                }
                .boxed()
            }));
        },
    )];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}
