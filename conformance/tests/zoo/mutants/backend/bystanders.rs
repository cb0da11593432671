//! Wrong only for those whose calls run beside one that is dropped. A caller that is alone may drop what it likes.

use futures_util::FutureExt;
use larder_conformance::Engine;

use super::m;
use crate::mutants::Mutant;
use crate::reference::{Due, gap, lock};

pub(super) fn bystanders() -> Vec<Mutant> {
    let mutants = vec![m(
        "bk-drop-clears-away-an-upload",
        "C-6",
        &["BK-1", "BK-2"],
        "puts upload under the id and then move what is there; one that is dropped clears away what another has uploaded",
        |s| {
            s.slow_put = Some(Box::new(|place, id, row| {
                async move {
                    lock(&place.notes).insert(id.clone(), row);
                    let cleared = Due::new(|| drop(lock(&place.notes).remove(&id)));
                    gap().await;
                    cleared.call_off();
                    let _step = lock(&place.step);
                    // Where nothing is there, another put of the object has moved it.
                    if let Some(row) = lock(&place.notes).remove(&id) {
                        place.write(&id, row);
                    }
                    Ok(())
                }
                .boxed()
            }));
        },
    )];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Cancel);
    mutants.into_iter().map(awaiting).collect()
}
