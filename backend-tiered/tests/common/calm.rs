//! What must hold of any combinator where nothing is in its way: what lies where, what a call costs, when things end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use larder_conformance::lin::ModelName;
use larder_traits::{
    Backend, BackendError, ClientError, Clock, ExpirationPolicy, HighVolumeBackend, Metadata,
    ObjectListing, TieredMetadata,
};

use super::checks::{Checked, join, plain};
use super::{Calls, Does, Make, Start, THRESHOLD_BYTES, World, id, now, payload, perform};

/// TS-1: what lies where, by size, whatever the pieces.
pub fn ladder(make: Make<'_>) -> Checked {
    let mut sizes = 0;
    for len in [
        0,
        1,
        THRESHOLD_BYTES - 1,
        THRESHOLD_BYTES,
        THRESHOLD_BYTES + 1,
        10 * THRESHOLD_BYTES,
    ] {
        for piece in [1, 3, len.max(1)] {
            let (world, run) = (World::new(), plain());
            let store = world.open(&run, make);
            let whole = Bytes::from(
                (0..len)
                    .map(|n| b'a' + u8::try_from(n % 26).unwrap())
                    .collect::<Vec<_>>(),
            );
            let pieces: Vec<_> = whole
                .chunks(piece)
                .map(|it| Ok(Bytes::copy_from_slice(it)))
                .collect();
            let (inner, expected) = (Arc::clone(&store), whole.clone());
            let found = run.finish(async move {
                let (id, metadata) = (id("k"), Metadata::new());
                inner
                    .put_object(&id, &metadata, stream::iter(pieces).boxed())
                    .await?;
                let size = inner
                    .get_metadata(&id)
                    .await?
                    .and_then(|metadata| metadata.size);
                let found = perform(&inner, Does::Get, "", &Metadata::new()).await?;
                Ok::<_, BackendError>((found, size))
            });
            let text = String::from_utf8_lossy(&expected).into_owned();
            match found {
                Ok((Some(found), Some(size)))
                    if found == text && usize::try_from(size) == Ok(len) => {}
                other => return Err(format!("{len} bytes came back as {other:?}")),
            }
            let row = now(world.high.high_volume().get_tiered_metadata(&id("k")));
            let is_inline = matches!(row, Ok(TieredMetadata::Object(_)));
            if is_inline != (len <= THRESHOLD_BYTES) {
                return Err(format!(
                    "{len} bytes with a threshold of {THRESHOLD_BYTES}: {row:?}"
                ));
            }
            world.in_order(false)?;
            sizes += 1;
        }
    }
    Ok(sizes)
}

/// TS-1, TS-2: what a call costs at the tiers, and in which order: payload first, redirect last.
pub fn costs(make: Make<'_>) -> Checked {
    let (world, run) = (World::new(), plain());
    let store = world.open(&run, make);
    let cost = |does: Does| {
        world.switch.forget_calls();
        let inner = Arc::clone(&store);
        let ended = run.finish(async move {
            let ended = perform(&inner, does, "v", &Metadata::new()).await;
            inner.join().await;
            ended
        });
        ended.map_err(|e| e.to_string())?;
        let calls = world.switch.calls();
        let calls: Vec<String> = calls
            .iter()
            .map(|it| format!("{}.{}", it.store, it.method))
            .collect();
        Ok::<_, String>(calls.join(" "))
    };
    let large = "high.get_tiered_metadata log.record high.compare_and_write";
    for (does, expected) in [
        (Does::Get, "high.get_tiered_object".to_owned()),
        (Does::PutSmall, "high.put_non_tombstone".into()),
        (Does::PutSmall, "high.put_non_tombstone".into()),
        (Does::Get, "high.get_tiered_object".into()),
        (Does::Delete, "high.delete_non_tombstone".into()),
        (Does::PutLarge, format!("log.renew log.record long.put_object {large} log.complete")),
        (Does::Get, "high.get_tiered_object long.get_object".into()),
        (Does::PutLarge, format!("log.record long.put_object {large} log.record long.delete_object log.complete")),
        (Does::PutSmall, "high.put_non_tombstone log.record high.compare_and_write log.record long.delete_object log.complete".into()),
        (Does::PutLarge, format!("log.record long.put_object {large} log.complete")),
        (Does::Delete, "high.delete_non_tombstone log.record high.compare_and_write log.record long.delete_object log.complete".into()),
    ] {
        let calls = cost(does)?;
        if calls != expected {
            return Err(format!("{does:?} made these calls:\n  {calls}\nand not these:\n  {expected}"));
        }
    }
    Ok(11)
}

/// TS-1: a client's stream that fails, before the threshold and behind it.
pub fn failing_client(make: Make<'_>) -> Checked {
    for start in Start::ALL {
        for len in [0, THRESHOLD_BYTES, THRESHOLD_BYTES * 3] {
            let (world, run) = (World::new(), plain());
            let (calls, metadata) = (Calls::default(), Metadata::new());
            let store = world.open(&run, make);
            start.prepare(&run, &store, &metadata);
            world.switch.forget_calls();
            let broken = [
                Ok(Bytes::from(vec![b'x'; len])),
                Err(ClientError::new("broken")),
            ];
            let inner = Arc::clone(&store);
            let put = run.finish(async move {
                let stream = stream::iter(broken).boxed();
                inner.put_object(&id("k"), &Metadata::new(), stream).await
            });
            if !matches!(put, Err(BackendError::Client(_))) {
                return Err(format!("a broken stream was answered {put:?}"));
            }
            let touched = world.switch.count();
            if len <= THRESHOLD_BYTES && touched != 0 {
                return Err(format!(
                    "{touched} calls for a stream that broke after {len} bytes"
                ));
            }
            join(&run, &store);
            calls.last_look(&run, &store);
            calls.explained(start, ModelName::Register)?;
            world.in_order(false)?;
        }
    }
    Ok(9)
}

/// TS-9: redirect and payload end together, and an access extends both.
pub fn one_deadline(make: Make<'_>) -> Checked {
    let life = Duration::from_secs(1_000);
    for (policy, access) in [
        (ExpirationPolicy::TimeToLive(life), Does::Get),
        (ExpirationPolicy::TimeToIdle(life), Does::Get),
        (ExpirationPolicy::TimeToLive(life), Does::Look),
        (ExpirationPolicy::TimeToIdle(life), Does::Look),
    ] {
        let (world, run) = (World::new(), plain());
        let store = world.open(&run, make);
        let deadlines = || {
            let row = now(world.high.high_volume().get_tiered_metadata(&id("k")));
            let Ok(TieredMetadata::Tombstone(redirect)) = row else {
                return Err(format!("no redirect: {row:?}"));
            };
            let payloads =
                now(world.long.high_volume().list_objects(None, 10)).map_err(|e| e.to_string())?;
            if payloads.ids != [redirect.target.clone()] {
                return Err(format!("payloads {payloads:?}"));
            }
            Ok(redirect.time_expires)
        };
        let metadata = Metadata::with_policy(policy);
        let does = |does| {
            let (inner, metadata) = (Arc::clone(&store), metadata.clone());
            run.finish(async move {
                let ended = perform(&inner, does, "v", &metadata).await;
                inner.join().await;
                (ended, inner.get_metadata(&id("k")).await)
            })
        };
        // The upload takes time, in which a deadline of its own would fall behind.
        let (inner, given, sleeper) = (Arc::clone(&store), metadata.clone(), run.clone());
        let shown = run.finish(async move {
            let pieces = stream::iter(0..5).then(move |_| {
                let pause = sleeper.sleep(Duration::from_secs(3));
                pause.map(|()| Ok(payload("v", true)))
            });
            inner.put_object(&id("k"), &given, pieces.boxed()).await?;
            inner.get_metadata(&id("k")).await
        });
        let shown = shown.ok().flatten().and_then(|it| it.time_expires);
        let redirect = deadlines()?;
        if shown != redirect || redirect.is_none() {
            return Err(format!(
                "{policy:?}: the payload ends at {shown:?}, the redirect at {redirect:?}"
            ));
        }
        world.clock.advance(life / 2);
        let (_, shown) = does(access);
        let shown = shown.ok().flatten().and_then(|it| it.time_expires);
        let extended = deadlines()?;
        if shown != extended {
            return Err(format!(
                "{policy:?}, after an access: the payload ends at {shown:?}, the redirect at {extended:?}"
            ));
        }
        let is_idle = matches!(policy, ExpirationPolicy::TimeToIdle(_));
        let wanted = if is_idle {
            Some(world.clock.now() + life)
        } else {
            redirect
        };
        if extended != wanted {
            return Err(format!(
                "{policy:?}, after an access: {extended:?}, and not {wanted:?}"
            ));
        }
        world.clock.advance(life);
        let (found, _) = does(access);
        if !matches!(found, Ok(None)) {
            return Err(format!("{policy:?}, at the deadline: {found:?}"));
        }
    }
    Ok(4)
}

/// TS-2, TS-5: a payload that is missing for good is an error, after a bounded number of looks.
pub fn missing_payload(make: Make<'_>) -> Checked {
    let (world, run) = (World::new(), plain());
    let store = world.open(&run, make);
    Start::Redirect.prepare(&run, &store, &Metadata::new());
    let payloads =
        now(world.long.high_volume().list_objects(None, 10)).map_err(|e| e.to_string())?;
    for payload in &payloads.ids {
        let long = world.long.high_volume();
        let delete = Backend::delete_object(&long, payload);
        delete
            .now_or_never()
            .expect("memory waits for nothing")
            .map_err(|e| e.to_string())?;
    }
    world.switch.forget_calls();
    let inner = Arc::clone(&store);
    let found = run.finish(async move { perform(&inner, Does::Get, "", &Metadata::new()).await });
    let looks = usize::try_from(world.switch.count()).unwrap_or(usize::MAX);
    match found {
        Err(e) if super::is_unavailable(&e) && looks > 2 && looks < 100 => Ok(looks),
        other => Err(format!(
            "a missing payload reads as {other:?}, after {looks} calls"
        )),
    }
}
