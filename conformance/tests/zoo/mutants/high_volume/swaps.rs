//! The table of HV-5.

use larder_conformance::model::high_volume::Row;
use larder_traits::ObjectId;

use super::m;
use crate::mutants::Mutant;
use crate::reference::high_volume::{Path, Place, len_u64};
use crate::reference::lock;

/// A swap that answers a call of its own and leaves all others to the table.
macro_rules! swap {
    ($s:ident, |$place:ident, $id:ident| $($pattern:pat $(if $guard:expr)? => $body:expr),+ $(,)?) => {
        $s.swap = Box::new(|$place, $id, current, new| {
            match ($place.live($id), current, new) {
                $($pattern $(if $guard)? => $body,)+
                (_, current, new) => $place.swap($id, current, new),
            }
        })
    };
}

fn set(place: &Place, id: &ObjectId, row: Row) -> bool {
    place.write(id, row);
    true
}

pub(super) fn swaps() -> Vec<Mutant> {
    use Row::{Inline, Redirect};
    vec![
        m(
            "hv-swap-always",
            "HV-5",
            &["HV-7"],
            "a swap never compares",
            |s| {
                s.swap = Box::new(|place, id, _, new| {
                    match new {
                        Some(row) => place.write(id, row),
                        None => place.remove(id),
                    }
                    true
                });
            },
        ),
        m(
            "hv-swap-refused-writes",
            "HV-5",
            &[],
            "a swap that answers false has written all the same",
            |s| {
                s.swap = Box::new(|place, id, current, new| {
                    let answer = place.swap(id, current, new.clone());
                    if let (false, Some(row)) = (answer, new) {
                        place.write(id, row);
                    }
                    answer
                });
            },
        ),
        m(
            "hv-swap-won-not-written",
            "HV-5",
            &[],
            "a swap of one redirect for another answers true and writes nothing",
            |s| {
                swap!(s, |place, id| (Some(Redirect(live)), Some(old), Some(Redirect(_))) if live.target == *old => true);
            },
        ),
        m(
            "hv-create-not-on-inline",
            "HV-5",
            &[],
            "a redirect is not created over an inline object",
            |s| {
                swap!(s, |place, id| (Some(Inline(..)), None, Some(Redirect(_))) => false);
            },
        ),
        m(
            "hv-create-same-target-false",
            "HV-5",
            &["HV-6"],
            "a redirect that is there already with this target is a conflict",
            |s| {
                swap!(s, |place, id| (Some(Redirect(live)), None, Some(Redirect(new))) if live.target == new.target => false);
            },
        ),
        m(
            "hv-create-over-redirect",
            "HV-5",
            &["HV-7"],
            "a redirect is created over another one",
            |s| {
                swap!(s, |place, id| (Some(Redirect(_)), None, Some(Redirect(new))) => set(place, id, Redirect(new)));
            },
        ),
        m(
            "hv-same-target-rewritten",
            "HV-5",
            &["HV-6"],
            "a redirect with the same target and another policy is replaced",
            |s| {
                swap!(s, |place, id| (Some(Redirect(live)), None, Some(Redirect(new))) if live.target == new.target => {
                    set(place, id, Redirect(new))
                });
            },
        ),
        m(
            "hv-own-target-rewritten",
            "HV-5",
            &["HV-6"],
            "a swap whose old target is its own new one is written",
            |s| {
                swap!(s, |place, id| (Some(Redirect(live)), Some(old), Some(Redirect(new)))
                if live.target == *old && live.target == new.target => set(place, id, Redirect(new)));
            },
        ),
        m(
            "hv-repeat-false",
            "HV-6",
            &["HV-5"],
            "a swap that has won already is told that it lost",
            |s| {
                swap!(s, |place, id| (Some(Redirect(live)), Some(old), Some(Redirect(new)))
                if live.target == new.target && live.target != *old => false);
            },
        ),
        m(
            "hv-swap-on-absent",
            "HV-5",
            &[],
            "a redirect is swapped in where the old one is gone",
            |s| {
                swap!(s, |place, id| (None, Some(_), Some(Redirect(new))) => set(place, id, Redirect(new)));
            },
        ),
        m(
            "hv-swap-on-inline",
            "HV-5",
            &[],
            "a redirect is swapped in over the inline object that replaced the old one",
            |s| {
                swap!(s, |place, id| (Some(Inline(..)), Some(_), Some(Redirect(new))) => set(place, id, Redirect(new)));
            },
        ),
        m(
            "hv-swap-other-target",
            "HV-5",
            &["HV-7"],
            "a redirect is swapped for another one, whatever its target is",
            |s| {
                swap!(s, |place, id| (Some(Redirect(_)), Some(_), Some(Redirect(new))) => set(place, id, Redirect(new)));
            },
        ),
        m(
            "hv-object-on-absent-true",
            "HV-5",
            &[],
            "an object for a redirect that is gone is not written, and answered with true",
            |s| {
                swap!(s, |place, id| (None, Some(_), Some(Inline(..))) => true);
            },
        ),
        m(
            "hv-object-on-absent-written",
            "HV-5",
            &[],
            "an object for a redirect that is gone is written",
            |s| {
                swap!(s, |place, id| (None, Some(_), Some(row @ Inline(..))) => set(place, id, row));
            },
        ),
        m(
            "hv-object-on-inline-written",
            "HV-5",
            &[],
            "an object for a redirect overwrites the inline object that replaced it",
            |s| {
                swap!(s, |place, id| (Some(Inline(..)), Some(_), Some(row @ Inline(..))) => set(place, id, row));
            },
        ),
        m(
            "hv-object-on-inline-false",
            "HV-5",
            &["HV-6"],
            "an object for a redirect that became an inline object is a conflict",
            |s| {
                swap!(s, |place, id| (Some(Inline(..)), Some(_), Some(Inline(..))) => false);
            },
        ),
        m(
            "hv-object-other-target",
            "HV-5",
            &[],
            "an object replaces a redirect to another target",
            |s| {
                swap!(s, |place, id| (Some(Redirect(_)), Some(_), Some(row @ Inline(..))) => set(place, id, row));
            },
        ),
        m(
            "hv-object-blind",
            "HV-5",
            &[],
            "an object without an expected redirect overwrites one",
            |s| {
                swap!(s, |place, id| (Some(Redirect(_)), None, Some(row @ Inline(..))) => set(place, id, row));
            },
        ),
        m(
            "hv-delete-on-absent-false",
            "HV-5",
            &["HV-6"],
            "the delete of a redirect that is gone is a conflict",
            |s| {
                swap!(s, |place, id| (None, Some(_), None) => false);
            },
        ),
        m(
            "hv-delete-on-inline",
            "HV-5",
            &[],
            "the delete of a redirect removes the inline object that replaced it",
            |s| {
                swap!(s, |place, id| (Some(Inline(..)), Some(_), None) => {
                    place.remove(id);
                    true
                });
            },
        ),
        m(
            "hv-delete-on-inline-false",
            "HV-5",
            &["HV-6"],
            "the delete of a redirect that became an inline object is a conflict",
            |s| {
                swap!(s, |place, id| (Some(Inline(..)), Some(_), None) => false);
            },
        ),
        m(
            "hv-delete-other-target",
            "HV-5",
            &[],
            "the delete of a redirect removes one to another target",
            |s| {
                swap!(s, |place, id| (Some(Redirect(_)), Some(_), None) => {
                    place.remove(id);
                    true
                });
            },
        ),
        m(
            "hv-delete-blind",
            "HV-5",
            &[],
            "a delete without an expected redirect removes one",
            |s| {
                swap!(s, |place, id| (Some(Redirect(_)), None, None) => {
                    place.remove(id);
                    true
                });
            },
        ),
        m(
            "hv-delete-nothing-false",
            "HV-5",
            &[],
            "a delete of an absent row without an expected redirect is a conflict",
            |s| {
                swap!(s, |place, id| (None, None, None) => false);
            },
        ),
        m(
            "hv-swap-by-key",
            "HV-5",
            &["HV-9"],
            "targets are compared by their keys, without their contexts",
            |s| {
                s.swap = Box::new(|place, id, current, new| {
                    let live = place.redirect(id).map(|live| live.target);
                    match (live, current) {
                        (Some(live), Some(old)) if live.key == old.key => {
                            place.swap(id, Some(&live), new)
                        }
                        _ => place.swap(id, current, new),
                    }
                });
            },
        ),
        m(
            "hv-swap-size-missing",
            "HV-9",
            &["HV-5"],
            "an object that is swapped in has no size",
            |s| {
                s.stamp = Box::new(|place, path, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    if path == Path::Swap {
                        stored.size = None;
                    }
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-inline-size-missing",
            "HV-9",
            &["HV-1"],
            "an object that is put inline has no size",
            |s| {
                s.stamp = Box::new(|place, path, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    if path == Path::PutInline {
                        stored.size = None;
                    }
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-swap-unstamped",
            "HV-8",
            &["HV-5", "HV-9"],
            "an object that is swapped in never expires",
            |s| {
                s.stamp = Box::new(|place, path, metadata, payload| {
                    let mut stored = metadata.stamped(place.clock_now(), len_u64(payload))?;
                    if path == Path::Swap {
                        stored.time_expires = metadata.time_expires;
                    }
                    Ok(stored)
                });
            },
        ),
        m(
            "hv-repeat-writes-again",
            "HV-6",
            &["HV-5"],
            "a call that has won once wins again, whatever was written since",
            |s| {
                s.swap = Box::new(|place, id, current, new| {
                    let won = match (lock(&place.notes).get(id), &new) {
                        (Some(Redirect(won)), Some(Redirect(new))) => won.target == new.target,
                        (Some(Inline(_, won)), Some(Inline(_, new))) => won == new,
                        _ => false,
                    };
                    if let (true, Some(row)) = (won, &new) {
                        place.write(id, row.clone());
                        return true;
                    }
                    let answer = place.swap(id, current, new.clone());
                    if let (true, Some(row)) = (answer, new) {
                        lock(&place.notes).insert(id.clone(), row);
                    }
                    answer
                });
            },
        ),
    ]
}
