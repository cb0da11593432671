//! CL-1 to CL-3: what is recorded, struck out, and whose it is.

use larder_traits::{Change, ChangeId, ObjectContext, ObjectId, Scope, Step, WriterId};

use super::{at, change, conflict, for_ever, id, object, writer};
use crate::change_log::World;
use crate::check::{Check, Outcome};
use crate::cx::Cx;

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "CL-1.1",
        "changes of every shape are listed as they were recorded, on each handle and after a reopen",
    )
    .kills("dropped field, joined names, lost step")
    .run(|cx| Box::pin(cl_1_1(cx))),
    Check::new(
        "CL-1.2",
        "what is recorded again under its id replaces what was there, whatever it is about",
    )
    .kills("second entry, kept first, merged fields")
    .run(|cx| Box::pin(cl_1_2(cx))),
    Check::new(
        "CL-1.3",
        "2,000 changes of one writer are listed once each, and so are the few that are left of them",
    )
    .kills("one page, cut list, a page of struck out ones taken for the end")
    .run(|cx| Box::pin(cl_1_3(cx))),
    Check::new(
        "CL-2.1",
        "complete strikes out that change alone; absent, twice and recorded again it is as if new",
    )
    .kills("range delete, error on absent, revival, tombstone")
    .run(|cx| Box::pin(cl_2_1(cx))),
    Check::new(
        "CL-3.1",
        "ids and writers that differ in one bit are others; changes lists one writer's own",
    )
    .kills("cut id, foreign changes listed")
    .run(|cx| Box::pin(cl_3_1(cx))),
    Check::new(
        "CL-3.2",
        "record and complete of another's change are Conflict and leave it as it is, lease or none",
    )
    .kills("unchecked owner, owner by lease")
    .run(|cx| Box::pin(cl_3_2(cx))),
    Check::new(
        "CL-3.3",
        "who lost a change to a claim is refused until it is struck out",
    )
    .kills("late writer takes over, false Ok")
    .run(|cx| Box::pin(cl_3_3(cx))),
    Check::new(
        "CL-3.4",
        "an id that goes from writer to writer is the last one's alone; those who had it are refused",
    )
    .kills("repeated call taken for done, owner of old")
    .run(|cx| Box::pin(cl_3_4(cx))),
];

/// Names with everything that a medium could read as something else.
const KEYS: [&str; 9] = [
    "",
    "/",
    "a/b",
    "a%2Fb",
    "../x",
    "nul \0 in it",
    "line\r\nbreak",
    "\u{fc}nic\u{f6}de \u{1f980}",
    "quote ' \" \\ ; --",
];

fn shapes(id_len_bytes_max: usize) -> Vec<Change> {
    let mut all = Vec::new();
    for step in [Step::Upload, Step::Swap, Step::Remove] {
        for has_created in [true, false] {
            for has_replaced in [true, false] {
                let n = u64::try_from(all.len()).unwrap_or_default();
                let mut change = Change::new(id(n), object("same"), step);
                change.created = has_created.then(|| object("same"));
                change.replaced = has_replaced.then(|| object("another"));
                all.push(change);
            }
        }
    }
    for (n, key) in (100..).zip(KEYS) {
        let mut change = Change::new(id(n), object(key), Step::Upload);
        change.created = Some(object(format!("{key}{key}")));
        all.push(change);
    }
    // The parts of a name shift into each other.
    let contexts = [
        ObjectContext::new("", Vec::new()),
        ObjectContext::new("a;b=c", Vec::new()),
        ObjectContext::new("a", vec![Scope::new("b", "c")]),
        ObjectContext::new("a", vec![Scope::new("b", "c"), Scope::new("b", "c")]),
        ObjectContext::new("a", vec![Scope::new("b", "c;b=c")]),
        ObjectContext::new("a", vec![Scope::new("", "")]),
        ObjectContext::new("a", vec![Scope::new("z", "2"), Scope::new("b", "1")]),
    ];
    let elsewhere = contexts.iter().cycle().skip(1);
    for ((n, context), elsewhere) in (200..).zip(&contexts).zip(elsewhere) {
        let mut change = Change::new(id(n), ObjectId::new(context.clone(), "key"), Step::Remove);
        // Payloads may lie elsewhere than their object.
        change.created = Some(ObjectId::new(elsewhere.clone(), "key"));
        change.replaced = Some(object("key"));
        all.push(change);
    }
    for (n, object) in (260..).zip(shifted()) {
        let mut change = Change::new(id(n), object.clone(), Step::Upload);
        change.replaced = Some(object);
        all.push(change);
    }
    // As many scopes as a name has room for, and payloads that are one and the same.
    for (n, count) in (300..).zip([3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 128, 256]) {
        let scopes = (0..count).map(|n| Scope::new(format!("s{n}"), format!("{}", n % 3)));
        let context = ObjectContext::new("many", scopes.collect());
        let wide = |key: &str| ObjectId::new(context.clone(), key);
        let payload = if n % 2 == 0 {
            wide("created")
        } else {
            object("created")
        };
        if wide("created").to_string().len() > id_len_bytes_max {
            break;
        }
        let mut change = Change::new(id(n), wide("key"), Step::Swap);
        change.created = Some(payload.clone());
        change.replaced = Some(payload);
        all.push(change);
    }
    for (n, bytes) in odd_ids().into_iter().enumerate() {
        let object = object(format!("odd {n}"));
        all.push(Change::new(ChangeId::from_bytes(bytes), object, Step::Swap));
    }
    all
}

/// Objects that are told apart only by where their parts end: the same text in each, with nothing between the parts or one
/// of the signs that may stand there.
fn shifted() -> Vec<ObjectId> {
    type Parts = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
    );
    const BARE: [Parts; 8] = [
        ("use", &[("bc", "d")], "key"),
        ("use", &[("b", "cd")], "key"),
        ("use", &[("b", "c"), ("d", "")], "key"),
        ("use", &[("bcd", "")], "key"),
        ("use", &[("", "bcd")], "key"),
        ("useb", &[("c", "d")], "key"),
        ("usebcd", &[], "key"),
        ("use", &[("b", "c")], "dkey"),
    ];
    let named = |(use_case, scopes, key): Parts| {
        let scopes = scopes.iter().map(|(name, value)| Scope::new(*name, *value));
        ObjectId::new(ObjectContext::new(use_case, scopes.collect()), key)
    };
    let bare = BARE.into_iter().map(named);
    let between = ["/", ":", ",", "\0"].into_iter().flat_map(|sign| {
        let of = |scopes: Vec<Scope>| ObjectId::new(ObjectContext::new("use", scopes), "key");
        [
            of(vec![Scope::new("a", "b"), Scope::new("c", "d")]),
            of(vec![Scope::new("a", format!("b{sign}c{sign}d"))]),
            of(vec![Scope::new(format!("a{sign}b{sign}c"), "d")]),
        ]
    });
    bare.chain(between).collect()
}

/// Ids that a medium could read as something else: the first and the last of all, those with a sign, and those that go on
/// behind a zero.
fn odd_ids() -> Vec<[u8; 16]> {
    let mut all = vec![[0; 16], [0xff; 16], [0x7f; 16], [0x80; 16]];
    for last in [1, 2] {
        let mut id = [0; 16];
        id[15] = last;
        all.push(id);
        id[0] = b'a';
        all.push(id);
    }
    all
}

async fn cl_1_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let (owner, shapes) = (writer(1), shapes(cx.caps.high_volume.id_len_bytes_max));
    for (n, change) in shapes.iter().enumerate() {
        let handle = if n % 2 == 0 { &a } else { &b };
        handle.record(owner, change).await?;
    }
    for handle in [&b, &a] {
        handle.expect("after record", owner, &shapes).await?;
    }
    let c = cx.open_as("c", "p").await?;
    c.expect("on a new handle", owner, &shapes).await?;
    let claimed = c.claim(writer(2), at(0), usize::MAX).await?;
    let mut expected = shapes;
    expected.sort_by_key(|change| change.id);
    cx.eq("what a claim answers", &claimed, &expected)?;
    a.expect("after the claim", writer(2), &expected).await
}

async fn cl_1_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let owner = writer(1);
    let beside = change(9, 0);
    a.record(owner, &beside).await?;
    // Each handle also records what it has recorded before, and what it has recorded last, over what the other one has.
    let back = [3, 11, 3, 4, 3, 4, 0, 1, 1, 0];
    for (turn, version) in (0..12).chain(back).enumerate() {
        let handle = if version % 3 == 0 { &b } else { &a };
        let latest = change(1, version);
        handle.record(owner, &latest).await?;
        // Once more, as after an answer that was lost.
        handle.record(owner, &latest).await?;
        for reader in [&b, &a] {
            let what = format!("recorded for the time {turn}");
            let expected = [latest.clone(), beside.clone()];
            reader.expect(&what, owner, &expected).await?;
        }
    }
    let longest = Change::new(id(1), object("x".repeat(400)), Step::Swap);
    a.record(owner, &longest).await?;
    let shortest = Change::new(id(1), object(""), Step::Upload);
    b.record(owner, &shortest).await?;
    let c = cx.open_as("c", "p").await?;
    c.expect("a short one over a long one", owner, &[shortest, beside])
        .await
}

async fn cl_1_3(cx: &Cx<dyn World>) -> Outcome {
    let count = if cx.world().is_remote() { 200 } else { 2_000 };
    let (a, b) = cx.open_two("p").await?;
    let owner = writer(1);
    let all: Vec<Change> = (0..count).map(|n| change(n, n % 5)).collect();
    // A log may make many share what takes long.
    for some in all.chunks(100) {
        let records = some.iter().map(|change| a.record(owner, change));
        let ended = futures_util::future::join_all(records).await;
        ended.into_iter().collect::<Outcome>()?;
    }
    b.expect("2,000 of one writer", owner, &all).await?;
    let (gone, left): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(n, _)| n % 7 == 3);
    for (_, change) in &gone {
        b.complete(owner, change.id).await?;
    }
    let mut left: Vec<Change> = left.into_iter().map(|(_, change)| change).collect();
    a.expect("those that were not struck out", owner, &left)
        .await?;
    let c = cx.open_as("c", "p").await?;
    c.expect("on a new handle", owner, &left).await?;
    // The first and the last by their ids, with nothing but struck out ones between and before them.
    left.sort_by_key(|change| change.id);
    let between = left.drain(1..left.len() - 1).collect::<Vec<_>>();
    for some in between.chunks(100) {
        let completes = some.iter().map(|change| a.complete(owner, change.id));
        let ended = futures_util::future::join_all(completes).await;
        ended.into_iter().collect::<Outcome>()?;
    }
    for handle in [&b, &c] {
        let what = "the first and the last of many";
        handle.expect(what, owner, &left).await?;
    }
    b.complete(owner, left.remove(0).id).await?;
    for handle in [&a, &c, &cx.open_as("d", "p").await?] {
        let what = "the last of many";
        handle.expect(what, owner, &left).await?;
    }
    Ok(())
}

async fn cl_2_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let owner = writer(1);
    a.complete(owner, id(1)).await?;
    a.expect("after an absent one was struck out", owner, &[])
        .await?;
    let all: Vec<Change> = (0..6).map(|n| change(n, 2)).collect();
    for change in &all {
        a.record(owner, change).await?;
    }
    let mut left = all.clone();
    for n in [3, 0, 5] {
        let gone = id(n);
        left.retain(|change| change.id != gone);
        for handle in [&b, &a] {
            handle.complete(owner, gone).await?;
            for reader in [&a, &b] {
                reader.expect("after complete", owner, &left).await?;
            }
        }
    }
    let c = cx.open_as("c", "p").await?;
    c.expect("on a new handle", owner, &left).await?;
    // The name is free, for its old owner and for another one.
    let again = change(3, 7);
    c.record(owner, &again).await?;
    let others = change(0, 8);
    c.record(writer(2), &others).await?;
    left.push(again);
    for reader in [&a, &b, &c] {
        reader.expect("recorded again", owner, &left).await?;
        let what = "recorded by another writer";
        let others = [others.clone()];
        reader.expect(what, writer(2), &others).await?;
    }
    one_of_many(cx).await
}

/// CL-2.1, of ids that are beside each other, of changes of one object that were each recorded more than once.
async fn one_of_many(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("q").await?;
    let owner = writer(1);
    let mut left = Vec::new();
    for bytes in neighbours(cx) {
        let of = |step| Change::new(ChangeId::from_bytes(bytes), object("same"), step);
        a.record(owner, &of(Step::Upload)).await?;
        a.record(owner, &of(Step::Swap)).await?;
        left.push(of(Step::Swap));
    }
    for at in [0, 5, 40, 9, 1] {
        let gone = left.remove(at % left.len()).id;
        for handle in [&b, &a] {
            handle.complete(owner, gone).await?;
            let what = format!("one of many of one object, {gone}, struck out");
            handle.expect(&what, owner, &left).await?;
        }
    }
    Ok(())
}

/// Odd ids, and those that are one another but for one bit; of a server fewer are asked.
fn neighbours(cx: &Cx<dyn World>) -> Vec<[u8; 16]> {
    let step = if cx.world().is_remote() { 7 } else { 1 };
    let mut all = odd_ids();
    all.push([0x20; 16]);
    for bit in (0..128).step_by(step) {
        let mut id = [0x20; 16];
        id[bit / 8] ^= 1 << (bit % 8);
        all.push(id);
    }
    all
}

async fn cl_3_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let all = neighbours(cx);
    let of = |n: usize| WriterId::from_bytes(all[n % all.len()]);
    let named = |bytes: [u8; 16], n: usize| {
        let object = object(format!("neighbour {n}"));
        Change::new(ChangeId::from_bytes(bytes), object, Step::Swap)
    };
    // The first takes each as a writer of one change; the second as changes of one writer.
    for (n, bytes) in all.iter().enumerate() {
        a.record(of(n + 3), &named(*bytes, n)).await?;
    }
    for n in 0..all.len() {
        let at = (n + all.len() - 3) % all.len();
        b.expect("of one writer", of(n), &[named(all[at], at)])
            .await?;
    }
    let (c, d) = cx.open_two("q").await?;
    let owner = writer(1);
    let mut expected: Vec<Change> = Vec::new();
    for (n, bytes) in all.iter().enumerate() {
        expected.push(named(*bytes, n));
        c.record(owner, &named(*bytes, n)).await?;
    }
    d.expect("ids that differ in one bit", owner, &expected)
        .await?;
    for (n, bytes) in all.iter().enumerate().step_by(2) {
        d.complete(owner, ChangeId::from_bytes(*bytes)).await?;
        expected.retain(|change| *change != named(*bytes, n));
    }
    c.expect("every second one struck out", owner, &expected)
        .await?;
    // Two places know nothing of each other.
    a.expect("of a writer of another place", owner, &[]).await
}

async fn cl_3_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let intruder = writer(99);
    let owners = [
        writer(1),
        WriterId::from_bytes([0; 16]),
        WriterId::from_bytes([0xff; 16]),
    ];
    let leases = [None, Some(at(0)), Some(for_ever())];
    let cases = leases
        .iter()
        .flat_map(|lease| owners.map(|owner| (*lease, owner)));
    for (n, (lease, owner)) in (0..).zip(cases) {
        let own = change(n, 1);
        a.record(owner, &own).await?;
        if let Some(until) = lease {
            a.renew(owner, until).await?;
        }
        for handle in [&b, &a] {
            let what = format!("record of another's change, whose lease is {lease:?}");
            conflict(&what, handle.try_record(intruder, &change(n, 2)).await)?;
            conflict(&what, handle.try_record(intruder, &own).await)?;
            let what = format!("complete of another's change, whose lease is {lease:?}");
            conflict(&what, handle.try_complete(intruder, own.id).await)?;
        }
        for reader in [&a, &b] {
            let what = "after another was refused";
            let own = [own.clone()];
            reader.expect(what, owner, &own).await?;
            reader.expect(what, intruder, &[]).await?;
        }
        // The refusals gave nobody a lease and took none.
        b.record(owner, &change(n, 3)).await?;
        let own = [change(n, 3)];
        a.expect("the owner goes on", owner, &own).await?;
        b.complete(owner, id(n)).await?;
    }
    Ok(())
}

async fn cl_3_3(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let (loser, winner) = (writer(1), writer(2));
    a.record(loser, &change(1, 0)).await?;
    a.record(loser, &change(2, 0)).await?;
    a.renew(loser, at(10)).await?;
    let claimed = b.claim(winner, at(10), usize::MAX).await?;
    cx.eq("how many are claimed", &claimed.len(), &2)?;
    // A lease that is renewed too late gives nothing back.
    a.renew(loser, for_ever()).await?;
    for handle in [&a, &b] {
        for n in [1, 2] {
            let what = "record by who lost the change to a claim";
            conflict(what, handle.try_record(loser, &change(n, 5)).await)?;
            let what = "complete by who lost the change to a claim";
            conflict(what, handle.try_complete(loser, id(n)).await)?;
        }
        handle.expect("the loser's", loser, &[]).await?;
    }
    let left = [change(1, 0), change(2, 0)];
    a.expect("the winner's", winner, &left).await?;
    b.record(winner, &change(1, 6)).await?;
    b.complete(winner, id(1)).await?;
    let again = change(1, 7);
    a.record(loser, &again).await?;
    b.expect("struck out, and recorded anew", loser, &[again])
        .await?;
    b.expect("the winner's others", winner, &[change(2, 0)])
        .await
}

async fn cl_3_4(cx: &Cx<dyn World>) -> Outcome {
    const WRITERS: u64 = 3;
    let (mut a, mut b) = cx.open_two("p").await?;
    // Each of them has it more than once, from whoever struck it out or had no lease.
    let turns = [0, 1, 0, 2, 1, 0, 1];
    let mut latest: Option<(u64, Change)> = None;
    for (turn, owner) in (0..).zip(turns) {
        let is_claimed = turn % 3 == 2;
        let own = match latest {
            Some((_, held)) if is_claimed => {
                let claimed = a.claim(writer(owner), at(0), usize::MAX).await?;
                cx.eq(
                    "a claim of the one that there is",
                    &claimed,
                    &vec![held.clone()],
                )?;
                held
            }
            held => {
                if let Some((before, _)) = held {
                    a.complete(writer(before), id(1)).await?;
                }
                let own = change(1, turn % 2);
                a.record(writer(owner), &own).await?;
                own
            }
        };
        for other in (0..WRITERS).filter(|it| *it != owner) {
            // Also what they were told once that it is done.
            for version in [0, 1] {
                let what = "record of an id that another one has by now";
                let handle = if version == 0 { &a } else { &b };
                let again = change(1, version);
                conflict(what, handle.try_record(writer(other), &again).await)?;
            }
            for handle in [&a, &b] {
                let what = "complete of an id that another one has by now";
                conflict(what, handle.try_complete(writer(other), id(1)).await)?;
            }
            b.expect("of who was refused", writer(other), &[]).await?;
        }
        let what = "of the last who got the id";
        b.expect(what, writer(owner), std::slice::from_ref(&own))
            .await?;
        if turn == 3 {
            a = cx.open_as("c", "p").await?;
        }
        std::mem::swap(&mut a, &mut b);
        latest = Some((owner, own));
    }
    Ok(())
}
