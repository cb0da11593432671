//! Wrong only where the medium fails.

use futures_util::{FutureExt, StreamExt};
use larder_conformance::Engine;
use larder_conformance::model::high_volume::Row;

use super::m;
use crate::mutants::Mutant;
use crate::reference::high_volume::pieces;
use crate::reference::lock;
use crate::reference::medium::Trouble;

pub(super) fn failing() -> Vec<Mutant> {
    let mutants = vec![
        m(
            "hv-lost-answer-not-applied",
            "C-1",
            &["HV-6"],
            "a write whose answer was lost is said to have had no effect",
            |s| s.fails.commit = |trouble| trouble.before().into(),
        ),
        m(
            "hv-own-win-is-conflict",
            "HV-6",
            &["HV-5"],
            "a swap whose answer was lost is sent again, and taken for lost since the row has left `current`",
            |s| {
                s.slow_swap = Some(Box::new(|place, id, current, new| {
                    async move {
                        let swap = || {
                            let _step = lock(&place.step);
                            place.swap(&id, current.as_ref(), new.clone())
                        };
                        match place.medium.timed(swap).await {
                            Ok(answer) => Ok(answer),
                            Err(Trouble::Refused) => Err(Trouble::Refused.before().into()),
                            Err(_lost) => {
                                let there = place.redirect(&id).map(|redirect| redirect.target);
                                if there != current {
                                    return Ok(false);
                                }
                                let _step = lock(&place.step);
                                Ok(place.swap(&id, current.as_ref(), new.clone()))
                            }
                        }
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-refused-swap-is-won",
            "C-1",
            &["HV-5", "HV-6", "HV-7"],
            "a swap that the medium refused is won",
            |s| {
                s.slow_swap = Some(Box::new(|place, id, current, new| {
                    async move {
                        let swap = || {
                            let _step = lock(&place.step);
                            place.swap(&id, current.as_ref(), new)
                        };
                        match place.medium.timed(swap).await {
                            Err(Trouble::Refused) => Ok(true),
                            ended => ended.map_err(|trouble| trouble.at_commit().into()),
                        }
                    }
                    .boxed()
                }));
            },
        ),
        m(
            "hv-failed-read-absent",
            "C-1",
            &["HV-2", "HV-3", "BK-2", "HV-7"],
            "a row that could not be read is not there",
            |s| s.fails.read = |_| None,
        ),
        m(
            "hv-failed-read-unknown",
            "C-1",
            &[],
            "a read that failed is Unknown",
            |s| s.fails.read = |trouble| Some(trouble.after().into()),
        ),
        m(
            "hv-body-cut-short",
            "BK-2",
            &["C-1"],
            "a payload ends without an error where its next piece could not be fetched",
            |s| {
                s.stream = Box::new(|payload, medium| {
                    let fetched = pieces(&payload, medium);
                    let whole = |piece: &Result<_, _>| std::future::ready(piece.is_ok());
                    fetched.take_while(whole).boxed()
                });
            },
        ),
        m(
            "hv-half-put",
            "C-1",
            &["BK-1", "HV-7"],
            "a put writes the metadata and then the payload, and leaves it at the first where the second fails",
            |s| {
                s.one_at_a_time = true;
                s.slow_put = Some(Box::new(|place, id, row| {
                    async move {
                        let _turn = place.turn.lock().await;
                        let first = || {
                            if let (Some(Row::Inline(_, old)), Row::Inline(metadata, _)) =
                                (place.live(&id), &row)
                            {
                                place.write(&id, Row::Inline(metadata.clone(), old));
                            }
                        };
                        let ended = place.medium.timed(first).await;
                        ended.map_err(|trouble| trouble.at_commit())?;
                        let ended = place.medium.timed(|| place.write(&id, row.clone())).await;
                        ended.map_err(|trouble| trouble.after())?;
                        Ok(())
                    }
                    .boxed()
                }));
            },
        ),
    ];
    let awaiting = |mutant: Mutant| mutant.awaiting(Engine::Fault);
    mutants.into_iter().map(awaiting).collect()
}
