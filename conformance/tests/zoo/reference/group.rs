//! Calls that the medium is asked for together: those that come while it is busy are of the next group.

use std::fmt;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::medium::{Medium, Trouble};
use super::{Due, gap, lock};

/// What a member wants done: once, or again where a group is tried again.
pub(crate) type Effect = Box<dyn FnMut() + Send>;
pub(crate) type Ended = Result<(), Trouble>;

/// Asks the medium for what the members of a group want, and says how it ended for each of them, in their order.
pub(crate) type Together = fn(Arc<Medium>, Vec<Effect>) -> BoxFuture<'static, Vec<Ended>>;

/// In one call to the medium: what becomes of it becomes of all.
pub(crate) fn as_one(
    medium: Arc<Medium>,
    mut effects: Vec<Effect>,
) -> BoxFuture<'static, Vec<Ended>> {
    async move {
        let ended = medium.timed(|| effects.iter_mut().for_each(|effect| effect()));
        vec![ended.await; effects.len()]
    }
    .boxed()
}

/// What becomes of those who wait, where the one that leads them is dropped.
pub(crate) type Left = fn(&mut Vec<Member>);

pub(crate) struct Member {
    effect: Effect,
    told: oneshot::Sender<Ended>,
}

impl Member {
    pub(crate) fn carry_out(&mut self) {
        (self.effect)();
    }

    pub(crate) fn tell(self, ended: Ended) {
        tell(self.told, ended);
    }
}

fn tell(member: oneshot::Sender<Ended>, ended: Ended) {
    // Who was dropped meanwhile asks no more.
    let _is_gone = member.send(ended).is_err();
}

#[derive(Default)]
struct Waiting {
    members: Vec<Member>,
    /// Whether somebody will come for them.
    is_led: bool,
}

/// One for all handles of a place.
#[derive(Default)]
pub(crate) struct Group {
    waiting: Mutex<Waiting>,
    /// Held by the one that leads the others, where it is one of them.
    lead: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

impl Group {
    /// Has `effect` done with those of others. Dropped before that, it is not done.
    pub(crate) async fn join(
        self: &Arc<Self>,
        medium: &Arc<Medium>,
        together: Together,
        effect: impl FnMut() + Send + 'static,
    ) -> Ended {
        let (told, ended) = oneshot::channel();
        let effect: Effect = Box::new(effect);
        let leads = {
            let mut waiting = lock(&self.waiting);
            waiting.members.push(Member { effect, told });
            !std::mem::replace(&mut waiting.is_led, true)
        };
        if leads {
            // In the background, since a call that is dropped must not take those of others with it.
            drop(tokio::spawn(
                Arc::clone(self).lead(Arc::clone(medium), together),
            ));
        }
        ended.await.unwrap_or(Err(Trouble::Lost))
    }

    async fn lead(self: Arc<Self>, medium: Arc<Medium>, together: Together) {
        loop {
            gap().await;
            let members = {
                let mut waiting = lock(&self.waiting);
                waiting.is_led = !waiting.members.is_empty();
                std::mem::take(&mut waiting.members)
            };
            if members.is_empty() {
                return;
            }
            let members = members.into_iter().filter(|it| !it.told.is_closed());
            let (effects, told): (Vec<_>, Vec<_>) = members.map(|it| (it.effect, it.told)).unzip();
            if effects.is_empty() {
                continue;
            }
            let ended = together(Arc::clone(&medium), effects).await;
            for (told, ended) in told.into_iter().zip(ended) {
                tell(told, ended);
            }
        }
    }

    /// The same, led by one of those who wait. If that is dropped, and `left` leaves others waiting, one of them leads.
    pub(crate) async fn join_led(
        &self,
        medium: &Arc<Medium>,
        left: Left,
        effect: impl FnMut() + Send + 'static,
    ) -> Ended {
        let (told, mut ended) = oneshot::channel();
        let effect: Effect = Box::new(effect);
        lock(&self.waiting).members.push(Member { effect, told });
        let _lead = tokio::select! {
            biased;
            ended = &mut ended => return ended.unwrap_or(Err(Trouble::Lost)),
            lead = self.lead.lock() => lead,
        };
        let leaves = Due::new(|| {
            let mut waiting = lock(&self.waiting);
            waiting.members.retain(|it| !it.told.is_closed());
            left(&mut waiting.members);
        });
        // Where this is dropped, its own end is so first: it is not one of those who wait.
        let ended = ended;
        gap().await;
        let members = std::mem::take(&mut lock(&self.waiting).members);
        leaves.call_off();
        let members = members.into_iter().filter(|it| !it.told.is_closed());
        let (effects, told): (Vec<_>, Vec<_>) = members.map(|it| (it.effect, it.told)).unzip();
        let done = as_one(Arc::clone(medium), effects).await;
        for (told, done) in told.into_iter().zip(done) {
            tell(told, done);
        }
        ended.await.unwrap_or(Err(Trouble::Lost))
    }
}
