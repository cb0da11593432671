//! Wrong only while several calls run at once. Each call that was begun is done in full, even if it is dropped.

use futures_util::FutureExt;
use larder_conformance::Engine;
use larder_conformance::model::high_volume::Row;
use larder_traits::ObjectId;

use super::m;
use crate::mutants::Mutant;
use crate::reference::high_volume::Place;
use crate::reference::{Due, gap, lock};

pub(super) fn concurrent() -> Vec<Mutant> {
    [swaps(), objects()]
        .into_iter()
        .flatten()
        .map(|mutant| mutant.awaiting(Engine::Lin))
        .collect()
}

/// Judges a swap on what is there, and a moment later writes what it came to, whatever is there by then.
async fn judged_then_written(
    place: &Place,
    id: &ObjectId,
    current: Option<&ObjectId>,
    new: Option<Row>,
) -> bool {
    let seen = place.live(id);
    let aside = place.aside(id, seen.clone());
    let answer = aside.swap(id, current, new);
    let after = aside.live(id);
    if after == seen {
        return answer;
    }
    let written = Due::new(|| match after {
        Some(row) => place.write(id, row),
        None => place.remove(id),
    });
    gap().await;
    written.settle();
    answer
}

fn swaps() -> Vec<Mutant> {
    vec![
        m(
            "hv-check-then-swap",
            "HV-7",
            &["HV-5"],
            "a swap of a redirect looks first and writes a moment later",
            |s| {
                s.slow_swap = Some(Box::new(|place, id, current, new| {
                    async move {
                        if current.is_none() {
                            let _step = lock(&place.step);
                            return Ok(place.swap(&id, None, new));
                        }
                        Ok(judged_then_written(&place, &id, current.as_ref(), new).await)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-two-creators",
            "HV-7",
            &["HV-5"],
            "a swap that creates looks first and writes a moment later, so that two of them win",
            |s| {
                s.slow_swap = Some(Box::new(|place, id, current, new| {
                    async move {
                        if current.is_some() {
                            let _step = lock(&place.step);
                            return Ok(place.swap(&id, current.as_ref(), new));
                        }
                        Ok(judged_then_written(&place, &id, None, new).await)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-put-over-redirect",
            "HV-7",
            &["HV-1"],
            "put_non_tombstone looks for a redirect first, and writes a moment later over whatever came",
            |s| {
                s.slow_put_inline = Some(Box::new(|place, id, row| {
                    async move {
                        let redirect = place.redirect(&id);
                        if redirect.is_some() {
                            return Ok(redirect);
                        }
                        let written = Due::new(|| place.write(&id, row));
                        gap().await;
                        written.settle();
                        Ok(None)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-delete-over-redirect",
            "HV-7",
            &["HV-4"],
            "delete_non_tombstone looks for a redirect first, and removes a moment later whatever came",
            |s| {
                s.slow_delete_inline = Some(Box::new(|place, id| {
                    async move {
                        let redirect = place.redirect(&id);
                        if redirect.is_some() {
                            return Ok(redirect);
                        }
                        let removed = Due::new(|| place.remove(&id));
                        gap().await;
                        removed.settle();
                        Ok(None)
                    }
                    .boxed()
                }));
            },
        ),
    ]
}

fn objects() -> Vec<Mutant> {
    vec![
        m(
            "hv-bump-writes-back",
            "HV-8",
            &["HV-7", "BK-1"],
            "an access that extends an object writes back, a moment later, what it had read",
            |s| {
                s.slow_read = Some(Box::new(|place, _, id| {
                    async move {
                        let found = place.live(&id);
                        if let Some(Row::Inline(metadata, payload)) = &found
                            && let Some(later) = metadata.deadline_after_access(place.clock_now())
                        {
                            let mut extended = metadata.clone();
                            extended.time_expires = Some(later);
                            let row = Row::Inline(extended, payload.clone());
                            let written = Due::new(|| place.write(&id, row));
                            gap().await;
                            written.settle();
                        }
                        Ok(found)
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-metadata-then-payload",
            "BK-1",
            &["HV-7", "HV-2"],
            "a put replaces the metadata first and the payload a moment later",
            |s| {
                s.slow_put = Some(Box::new(|place, id, row| {
                    async move {
                        if let (Some(Row::Inline(_, old)), Row::Inline(metadata, _)) =
                            (place.live(&id), &row)
                        {
                            place.write(&id, Row::Inline(metadata.clone(), old));
                        }
                        let rest = Due::new(|| place.write(&id, row));
                        gap().await;
                        rest.settle();
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-payload-read-later",
            "BK-1",
            &["HV-7", "HV-2", "BK-2"],
            "a get reads the metadata first, and the payload of whatever is there a moment later",
            |s| {
                s.slow_read = Some(Box::new(|place, _, id| {
                    async move {
                        let found = place.access(&id);
                        let Some(Row::Inline(metadata, _)) = &found else {
                            return Ok(found);
                        };
                        gap().await;
                        Ok(match place.access(&id) {
                            Some(Row::Inline(_, payload)) => {
                                Some(Row::Inline(metadata.clone(), payload))
                            }
                            _ => found,
                        })
                    }
                    .boxed()
                }));
            },
        ),
    ]
}
