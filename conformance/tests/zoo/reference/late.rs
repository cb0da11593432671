//! High-volume stores in which a write that was dropped lands a little later, unless a fence has come before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use futures_util::FutureExt;

use super::high_volume::{Place, Store};
use super::{Due, behind, lock};

/// Which fences a write that was dropped heeds.
#[derive(Clone)]
pub(crate) enum Heeds {
    Nothing,
    /// Those of the handle by which it was made, which counts them.
    OwnHandle(Arc<AtomicU64>),
    /// Those of all handles, which the place counts.
    All,
}

impl Heeds {
    fn fences(&self, place: &Place) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::OwnHandle(fences) => fences.load(SeqCst),
            Self::All => place.counter.load(SeqCst),
        }
    }

    /// Does `effect` after a while, whoever waits for it, unless a fence comes first.
    fn later(&self, place: &Arc<Place>, effect: impl FnOnce(&Place) + Send + 'static) {
        let (heeds, place) = (self.clone(), Arc::clone(place));
        let begun = self.fences(&place);
        behind(move || {
            let _step = lock(&place.step);
            if heeds.fences(&place) == begun {
                effect(&place);
            }
        });
    }
}

/// Puts and swaps that are dropped land late.
pub(crate) fn lands_late(s: &mut Store, puts: Heeds, swaps: Heeds) {
    let of_inline = puts.clone();
    s.slow_put = Some(Box::new(move |place, id, row| {
        let late = Due::new({
            let (puts, place, id, row) =
                (puts.clone(), Arc::clone(&place), id.clone(), row.clone());
            move || puts.later(&place, move |place| place.write(&id, row))
        });
        async move {
            tokio::task::yield_now().await;
            late.call_off();
            let _step = lock(&place.step);
            place.write(&id, row);
            Ok(())
        }
        .boxed()
    }));
    s.slow_put_inline = Some(Box::new(move |place, id, row| {
        let late = Due::new({
            let puts = of_inline.clone();
            let (place, id, row) = (Arc::clone(&place), id.clone(), row.clone());
            move || {
                puts.later(&place, move |place| {
                    place.put_inline(&id, row);
                });
            }
        });
        async move {
            tokio::task::yield_now().await;
            late.call_off();
            let _step = lock(&place.step);
            Ok(place.put_inline(&id, row))
        }
        .boxed()
    }));
    s.slow_swap = Some(Box::new(move |place, id, current, new| {
        let late = Due::new({
            let swaps = swaps.clone();
            let (place, id) = (Arc::clone(&place), id.clone());
            let (current, new) = (current.clone(), new.clone());
            move || {
                swaps.later(&place, move |place| {
                    place.swap(&id, current.as_ref(), new);
                });
            }
        });
        async move {
            tokio::task::yield_now().await;
            late.call_off();
            let _step = lock(&place.step);
            Ok(place.swap(&id, current.as_ref(), new))
        }
        .boxed()
    }));
}
