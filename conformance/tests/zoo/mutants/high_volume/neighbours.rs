//! Wrong only where the medium fails one of several calls that run at once. A call that is alone knows what became of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use larder_conformance::Engine;
use larder_conformance::model::high_volume::Row;

use super::m;
use crate::mutants::Mutant;
use crate::reference::group::{Effect, Ended, Together, as_one};
use crate::reference::high_volume::Place;
use crate::reference::lock;
use crate::reference::medium::{Medium, Trouble};

pub(super) fn neighbours() -> Vec<Mutant> {
    [groups(), alone()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Fault))
        .collect()
}

/// What the others of a group are told becomes `told`, where it failed.
async fn all_but_the_first(mut ended: Vec<Ended>, told: Ended) -> Vec<Ended> {
    for ended in ended.iter_mut().skip(1).filter(|ended| ended.is_err()) {
        *ended = told;
    }
    ended
}

/// Who only waited for the first one's call has not done anything.
fn others_not_applied(medium: Arc<Medium>, effects: Vec<Effect>) -> BoxFuture<'static, Vec<Ended>> {
    as_one(medium, effects)
        .then(|ended| all_but_the_first(ended, Err(Trouble::Refused)))
        .boxed()
}

/// Who only waited for the first one's call takes what that has left.
fn others_go_on(medium: Arc<Medium>, effects: Vec<Effect>) -> BoxFuture<'static, Vec<Ended>> {
    as_one(medium, effects)
        .then(|ended| all_but_the_first(ended, Ok(())))
        .boxed()
}

/// One of a group: how it ended, and what it answers if it is done.
async fn joined<T: Default + Send + 'static>(
    place: &Arc<Place>,
    together: Together,
    effect: impl Fn(&Place) -> T + Send + 'static,
) -> Result<T, Trouble> {
    let answer = Arc::new(Mutex::new(T::default()));
    let (there, told) = (Arc::clone(place), Arc::clone(&answer));
    let effect = move || {
        let _step = lock(&there.step);
        *lock(&told) = effect(&there);
    };
    place.group.join(&place.medium, together, effect).await?;
    Ok(std::mem::take(&mut *lock(&answer)))
}

fn groups() -> Vec<Mutant> {
    vec![
        m(
            "hv-group-others-not-applied",
            "C-1",
            &["HV-6", "HV-7", "HV-5"],
            "puts and swaps are committed together; where the answer is lost, all but the first had no effect",
            |s| {
                s.slow_put_inline = Some(Box::new(|place, id, row| {
                    async move {
                        let put = move |place: &Place| place.put_inline(&id, row.clone());
                        let ended = joined(&place, others_not_applied, put).await;
                        ended.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
                s.slow_swap = Some(Box::new(|place, id, current, new| {
                    async move {
                        let swap =
                            move |place: &Place| place.swap(&id, current.as_ref(), new.clone());
                        let ended = joined(&place, others_not_applied, swap).await;
                        ended.map_err(|trouble| trouble.at_commit().into())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-joined-read-absent",
            "C-1",
            &["HV-2", "HV-3", "BK-2", "HV-7"],
            "rows are read together; if that fails the first read says so, and the others find none",
            |s| {
                s.slow_read = Some(Box::new(|place, _, id| {
                    async move {
                        let look = move |place: &Place| place.access(&id);
                        let found = joined(&place, others_go_on, look).await;
                        found.map_err(|trouble| trouble.before().into())
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

/// Whether the row is what a swap would have left.
fn is_own(found: Option<&Row>, new: Option<&Row>) -> bool {
    match (found, new) {
        (Some(Row::Redirect(found)), Some(Row::Redirect(new))) => found.target == new.target,
        (found, new) => found == new,
    }
}

fn alone() -> Vec<Mutant> {
    vec![m(
        "hv-asks-too-late",
        "C-1",
        &["HV-6", "HV-7", "HV-5"],
        "a swap whose answer was lost looks at the row, and if others have swapped it on had no effect",
        |s| {
            s.slow_swap = Some(Box::new(|place, id, current, new| {
                async move {
                    let swap = || {
                        let _step = lock(&place.step);
                        place.swap(&id, current.as_ref(), new.clone())
                    };
                    match place.medium.timed(swap).await {
                        Err(Trouble::Lost) => {}
                        ended => return ended.map_err(|trouble| trouble.at_commit().into()),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let look = place.medium.timed(|| place.live(&id)).await;
                    let found = look.map_err(Trouble::after)?;
                    if is_own(found.as_ref(), new.as_ref()) {
                        return Ok(true);
                    }
                    Err(Trouble::Refused.before().into())
                }
                .boxed()
            }));
        },
    )]
}
