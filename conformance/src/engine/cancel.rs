//! Calls that are dropped on the way: before their first poll, after it, after the second, and so on.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use crate::check::Stop;

/// How many polls a sweep goes; a call that still waits after so many is dropped there for the last time.
pub(crate) const POLLS_MAX: usize = 64;

/// Polls `call` up to `polls` times, waiting for it to ask in between, and then drops it; its answer, if it came to
/// one.
pub(crate) async fn poll_then_drop<F: Future>(polls: usize, call: F) -> Option<F::Output> {
    poll_at_most(polls, pin!(call)).await
}

async fn poll_at_most<F: Future>(polls: usize, mut call: Pin<&mut F>) -> Option<F::Output> {
    let mut done = 0;
    poll_fn(|context| {
        if done == polls {
            return Poll::Ready(None);
        }
        done += 1;
        match call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if done == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The answer of a call that is dropped some time after so many polls, if it is to be; `None` where it came to none.
pub(crate) async fn dropped_after<F: Future>(polls: Option<usize>, call: F) -> Option<F::Output> {
    let Some(polls) = polls else {
        return Some(call.await);
    };
    let mut call = pin!(call);
    let answer = poll_at_most(polls, call.as_mut()).await;
    if answer.is_none() {
        // Others go on before whoever waits gives up.
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        if polls.is_multiple_of(2) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    answer
}

/// Calls `attempt` with 0, 1, 2, … polls until it says that the call ran to its end; tells how many drops fell on a
/// call that was waiting.
pub(crate) async fn sweep<A, F>(mut attempt: A) -> Result<usize, Stop>
where
    A: FnMut(usize) -> F,
    F: Future<Output = Result<bool, Stop>>,
{
    for polls in 0..POLLS_MAX {
        if attempt(polls).await? {
            return Ok(polls.saturating_sub(1));
        }
    }
    Ok(POLLS_MAX - 1)
}
