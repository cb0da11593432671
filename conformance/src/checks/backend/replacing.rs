//! BK-1: an object is replaced as a whole or not at all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_traits::{
    BackendError, Classify, ClientError, ClientStream, Metadata, ObjectId, Outcome as Effect,
};
use tokio::sync::Notify;

use super::objects::{chunks, far, len_max, name};
use super::{lifecycle, lin, work};
use crate::backend::{Handle, Object, World, collect};
use crate::check::{Check, Engine, Outcome, Stop, describe};
use crate::checks::{contents, pattern, seen_once};
use crate::cx::{Cx, brief};
use crate::engine::fault::{self, each_met, enough};
use crate::engine::kill;
use crate::fixture::FaultKind;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BK-1.1",
        "puts, gets and deletes of few objects at once, one handle and several",
    )
    .kills("torn object")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(lin::registers(cx))),
    Check::new(
        "BK-1.2",
        "a put whose stream fails or whose future is dropped half-way leaves the old object",
    )
    .kills("partial object")
    .run(|cx| Box::pin(bk_1_2(cx))),
    Check::new(
        "BK-1.3",
        "a get that streams while a put replaces is of one object",
    )
    .kills("mixture")
    .engines(&[Engine::Lin])
    .run(|cx| Box::pin(lin::streams(cx))),
    Check::new(
        "BK-1.4",
        "a get that was begun before a put or a delete ends as the old object or in an error",
    )
    .kills("mixture, a short body")
    .run(|cx| Box::pin(bk_1_4(cx))),
    Check::new(
        "BK-1.5",
        "a kill inside a put or a delete leaves the old object or the new one",
    )
    .kills("torn object, mixture")
    .gate(lifecycle::durable)
    .engines(&[Engine::Kill])
    .run(|cx| Box::pin(bk_1_5(cx))),
    Check::new(
        "BK-1.6",
        "each of three hundred objects over the one before, from which most differ little",
    )
    .kills("a change that is not seen, an append, a payload that stays")
    .run(|cx| Box::pin(bk_1_6(cx))),
    Check::new(
        "BK-1.7",
        "while the stream of a put goes on, others see what was there before it, or wait",
    )
    .kills("a place made ready that is taken for an object, the first pieces of one")
    .run(|cx| Box::pin(bk_1_7(cx))),
    seen_once("BK-1.8").run(|cx| Box::pin(bk_1_8(cx))),
];

/// The error of a caller's own stream, told from others by its number.
#[derive(Debug, PartialEq, Eq)]
struct Broken(usize);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the caller's stream broke, number {}", self.0)
    }
}

impl std::error::Error for Broken {}

/// How a put comes to a bad end.
#[derive(Clone, Copy, Debug)]
enum End {
    Error,
    Drop,
}

fn metadata(of: &str) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.time_created = Some(far());
    metadata.custom.insert("of".into(), of.into());
    metadata
}

fn object(of: &str, payload: &Bytes) -> Object {
    let mut metadata = metadata(of);
    metadata.size = u64::try_from(payload.len()).ok();
    Object {
        metadata,
        payload: payload.clone(),
    }
}

async fn bk_1_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let max = len_max(&cx.caps, cx.profile);
    let mut seen = Vec::new();
    let mut number = 0;
    for old_len in [None, Some(0), Some(3_000)] {
        let old = old_len.map(|len| Bytes::from(pattern("old", max.min(len))));
        for before in [0, 1, 70_000, 600_000] {
            for end in [End::Error, End::Drop] {
                number += 1;
                let id = name(&format!("broken-{number}"));
                if let Some(old) = &old {
                    a.put(&id, &metadata("old"), old.clone()).await?;
                }
                let new = Bytes::from(pattern("new", max.min(before)));
                let pieces = chunks(&new, 16_384, false);
                let what = format!("a put over {old_len:?} B, {end:?} after {} B", new.len());
                match end {
                    End::Error => fail_half_way(cx, &a, &id, pieces, number).await?,
                    End::Drop => drop_half_way(&a, &id, pieces).await?,
                }
                let expected = old.as_ref().map(|old| object("old", old));
                cx.eq(
                    format!("the object after {what}"),
                    &b.get(&id).await?,
                    &expected,
                )?;
                seen.push((id, what, expected));
            }
        }
    }
    // What a dropped call left running has come to its end by now, and must not have landed.
    cx.settle().await;
    for (id, what, expected) in seen {
        let what = format!("the object some time after {what}");
        cx.eq(what, &b.get(&id).await?, &expected)?;
        let again = Bytes::from(pattern("again", max.min(500)));
        let metadata = metadata("again");
        let put = b.put(&id, &metadata, again.clone());
        cx.within(Duration::from_secs(10), "a put after a broken one", put)
            .await??;
        let expected = Some(object("again", &again));
        cx.eq("a put after a broken one", &a.get(&id).await?, &expected)?;
    }
    Ok(())
}

async fn fail_half_way(
    cx: &Cx<dyn World>,
    a: &Handle,
    id: &larder_traits::ObjectId,
    pieces: Vec<Bytes>,
    number: usize,
) -> Outcome {
    let what = "put_object of a stream that fails";
    let expected = format!("the caller's own error, number {number}");
    let items = pieces
        .into_iter()
        .map(Ok)
        .chain([Err(ClientError::new(Broken(number)))])
        // A store that goes on after the error would find an end that looks like success.
        .chain([Ok(Bytes::from_static(b"after the error"))]);
    let stream: ClientStream = stream::iter(items.collect::<Vec<_>>()).boxed();
    let result = a
        .try_put_stream(id, &metadata("new"), "a stream that fails", stream)
        .await;
    match result {
        Err(BackendError::Client(e)) => {
            let inner = e.into_inner();
            let ours = inner.downcast_ref::<Broken>() == Some(&Broken(number));
            cx.require(ours, what, brief(&inner), expected)
        }
        Err(e) => Err(Stop::fail(what, describe(&e), expected)),
        Ok(()) => Err(Stop::fail(what, "Ok", expected)),
    }
}

async fn drop_half_way(a: &Handle, id: &larder_traits::ObjectId, pieces: Vec<Bytes>) -> Outcome {
    let reached = Arc::new(Notify::new());
    let end = Arc::clone(&reached);
    let waits = stream::once(async move {
        end.notify_one();
        std::future::pending().await
    });
    let stream = stream::iter(pieces.into_iter().map(Ok))
        .chain(waits)
        .boxed();
    let new = metadata("new");
    tokio::select! {
        result = a.try_put_stream(id, &new, "a stream without an end", stream) => {
            let observed = result.map_or_else(|e| describe(&e), |()| "Ok".into());
            Err(Stop::fail("put_object of a stream without an end", observed, "no answer"))
        }
        () = reached.notified() => Ok(()),
        // A store may ask for no more than it has room for; then this is half-way enough.
        () = tokio::time::sleep(Duration::from_secs(2)) => Ok(()),
    }
}

async fn bk_1_4(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let max = len_max(&cx.caps, cx.profile);
    for (round, new_len) in [None, Some(0), Some(1_000_003), Some(1_500_000)]
        .into_iter()
        .enumerate()
    {
        let id = name(&format!("read-{round}"));
        let old = Bytes::from(pattern("old", max.min(1_000_003)));
        a.put_chunks(&id, &metadata("old"), chunks(&old, 65_536, false))
            .await?;
        let opened = a.store().get_object(&id).await;
        let Some((found, mut stream)) =
            opened.map_err(|e| Stop::error(format!("get_object({id})"), &e))?
        else {
            return Err(Stop::fail("get_object of an object", "None", "the object"));
        };
        let first = stream.next().await;
        match new_len {
            Some(len) => {
                let new = pattern("new", max.min(len));
                b.put(&id, &metadata("new"), new).await?;
            }
            None => b.delete(&id).await?,
        }
        let rest = stream::iter(first).chain(stream).boxed();
        match collect(rest).await {
            Ok(payload) => {
                let observed = Object {
                    metadata: found,
                    payload,
                };
                let what = format!("a get that was begun before the object became {new_len:?} B");
                cx.eq(what, &observed, &object("old", &old))?;
            }
            Err(e) => cx.require(
                e.outcome() == Effect::NotApplied,
                "the error of a get whose object was replaced",
                describe(&e),
                "NotApplied, as of every read",
            )?,
        }
    }
    Ok(())
}

async fn bk_1_5(cx: &Cx<dyn World>) -> Outcome {
    let ends = kill::kills(cx);
    kill::survives(cx, |cx| Box::pin(work::hire(cx)), &ends).await
}

async fn bk_1_6(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let id = name("changing");
    let payloads = contents::successors(cx, len_max(&cx.caps, cx.profile));
    for (at, payload) in payloads.into_iter().enumerate() {
        let payload = Bytes::from(payload);
        let (writer, reader) = if at % 3 == 0 { (&b, &a) } else { (&a, &b) };
        // Of each four, two have the same metadata, and of the pieces some are one.
        let of = format!("{}", at / 2 % 2);
        let pieces = match at % 5 {
            0 => vec![payload.clone()],
            _ => chunks(&payload, 4_096, at % 5 == 1),
        };
        writer.put_chunks(&id, &metadata(&of), pieces).await?;
        let what = format!("the object number {at} of an id");
        cx.eq(what, &reader.get(&id).await?, &Some(object(&of, &payload)))?;
    }
    Ok(())
}

async fn bk_1_7(cx: &Cx<dyn World>) -> Outcome {
    /// A store may make calls wait for each other; then there is nothing to see.
    const WAIT: Duration = Duration::from_secs(1);
    let (a, b) = cx.open_two("p").await?;
    let max = len_max(&cx.caps, cx.profile);
    let olds = [None, Some(0), Some(3_000)];
    for (nth, (old_len, sent)) in olds.into_iter().zip([0, 20, 300_000]).enumerate() {
        let old = old_len.map(|len| Bytes::from(pattern("old", max.min(len))));
        let new = Bytes::from(pattern("new", max.min(sent + 500)));
        let id = name(&format!("uploaded-{nth}"));
        if let Some(old) = &old {
            a.put(&id, &metadata("old"), old.clone()).await?;
        }
        let (reached, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (first, rest) = (
            new.slice(..sent.min(new.len())),
            new.slice(sent.min(new.len())..),
        );
        let rest = {
            let (reached, gate) = (Arc::clone(&reached), Arc::clone(&gate));
            stream::once(async move {
                reached.notify_one();
                gate.notified().await;
                Ok(rest)
            })
        };
        let pieces = chunks(&first, 16_384, false);
        let body = stream::iter(pieces.into_iter().map(Ok)).chain(rest).boxed();
        let put = {
            let (a, id) = (a.clone(), id.clone());
            tokio::spawn(async move {
                let new = metadata("new");
                a.try_put_stream(&id, &new, "a stream that stalls", body)
                    .await
            })
        };
        // A store may ask for no more than it has room for; then this is far enough.
        drop(tokio::time::timeout(WAIT, reached.notified()).await);
        let expected = old.as_ref().map(|old| object("old", old));
        for reader in [&b, &a] {
            let what = format!("an object of {old_len:?} B while another one is uploaded");
            if let Ok(seen) = tokio::time::timeout(WAIT, reader.get(&id)).await {
                cx.eq(&what, &seen?, &expected)?;
            }
            if let Ok(seen) = tokio::time::timeout(WAIT, reader.metadata(&id)).await {
                let expected = expected.as_ref().map(|old| old.metadata.clone());
                cx.eq(format!("the metadata of {what}"), &seen?, &expected)?;
            }
        }
        gate.notify_one();
        let ended = cx.within(Duration::from_secs(20), "the put", put).await?;
        let ended = ended.map_err(|e| Stop::fail("a put", e.to_string(), "no panic"))?;
        ended.map_err(|e| Stop::error("the put whose stream went on", &e))?;
        let what = "the object once its stream has ended";
        cx.eq(what, &b.get(&id).await?, &Some(object("new", &new)))?;
    }
    Ok(())
}

async fn bk_1_8(cx: &Cx<dyn World>) -> Outcome {
    let faults = cx.faults()?;
    let (a, b) = cx.open_two("p").await?;
    let plain = Metadata::new();
    let patience = fault::patience(async || a.put(&name("healthy"), &plain, "1").await).await?;
    let [new, later] = ["new", "later"].map(|text| Some(Bytes::from_static(text.as_bytes())));
    let write = async |handle: &Handle, id: &ObjectId, payload: &Option<Bytes>| match payload {
        Some(payload) => handle.try_put(id, &plain, vec![payload.clone()]).await,
        None => handle.try_delete(id).await,
    };
    // Over what is put comes another object, or it is deleted; and another object over what is deleted.
    let cases = [(&new, &later), (&None, &later), (&new, &None)];
    let mut met = 0;
    for (case, (first, then)) in cases.into_iter().enumerate() {
        met += each_met(&*faults, FaultKind::ErrorAfter, async |nth| {
            let id = name(&format!("k{case}n{nth}"));
            // What comes before the call in question is not to fail.
            faults.disarm();
            a.put(&id, &plain, "old").await?;
            let call = write(&a, &id, first);
            let is_seen = async || {
                let found = b.try_get(&id).await;
                found.is_ok_and(|found| found.map(|it| it.payload) == *first)
            };
            let over = async || write(&b, &id, then).await.is_ok();
            let stays = async || {
                for handle in [&b, &a] {
                    let found = handle.get(&id).await?.map(|it| it.payload);
                    let what = format!("{then:?} over {first:?} whose answer {nth} was lost");
                    cx.eq(what, &found, then)?;
                }
                Ok(())
            };
            fault::seen_once(&*faults, nth, patience, call, is_seen, over, stays).await
        })
        .await?;
    }
    enough(met)
}
