//! The bodies of the checks in which time passes: C-5, KV-3, KV-4 and KV-9.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use larder_traits::{Clock, ClockSource, TestClock, TtlRestart};

use super::{bytes, invalid};
use crate::check::{Outcome, Stop};
use crate::checks::pattern;
use crate::cx::Cx;
use crate::engine::time;
use crate::kv_client::{Handle, World};

/// What time it is for the stores of a world: by the test clock where that decides, else by the machine's.
struct Watch {
    clock: Option<(Arc<TestClock>, SystemTime)>,
    started: Instant,
    /// By how much the store's clock may be apart from this one.
    blur: Duration,
}

impl Watch {
    fn of(cx: &Cx<dyn World>) -> Self {
        let (clock, skew) = match cx.caps.clock {
            ClockSource::Injected => (cx.clock().ok(), Duration::ZERO),
            ClockSource::Server { skew } => (None, skew),
        };
        let blur = match clock {
            Some(_) => Duration::ZERO,
            None => skew + Duration::from_millis(50),
        };
        Self {
            clock: clock.map(|clock| {
                let start = clock.now();
                (clock, start)
            }),
            started: Instant::now(),
            blur,
        }
    }

    fn now(&self) -> Duration {
        match &self.clock {
            Some((clock, start)) => clock.now().duration_since(*start).unwrap_or_default(),
            None => self.started.elapsed(),
        }
    }

    /// One time to live for each kind of time.
    fn secs(&self, moved: u64, waited: u64) -> u64 {
        self.clock.as_ref().map_or(waited, |_| moved)
    }

    /// The last moment before `end` at which there is still time to look.
    fn last_look(&self, end: Duration) -> Duration {
        let before = match self.clock {
            Some(_) => Duration::from_millis(1),
            None => self.blur + Duration::from_millis(250),
        };
        end.saturating_sub(before)
    }

    /// Lets time pass until `moment`.
    async fn until(&self, cx: &Cx<dyn World>, moment: Duration) -> Outcome {
        let by = moment.saturating_sub(self.now());
        if !by.is_zero() {
            time::pass(cx, by).await?;
        }
        Ok(())
    }
}

/// An entry that ends, and when it was put.
struct Entry {
    key: String,
    value: Vec<u8>,
    from: Duration,
    by: Duration,
    ttl: Duration,
}

impl Entry {
    async fn put(watch: &Watch, writer: &Handle, key: &str, ttl_secs: u64) -> Result<Self, Stop> {
        let from = watch.now();
        let value = pattern(&format!("{key} at {from:?}"), 300);
        writer.put_with_ttl(key, &value, ttl_secs).await?;
        Ok(Self {
            key: key.to_owned(),
            value,
            from,
            by: watch.now(),
            ttl: Duration::from_secs(ttl_secs),
        })
    }

    /// When it must be gone.
    fn over(&self, cx: &Cx<dyn World>, watch: &Watch) -> Duration {
        self.by + self.ttl + cx.caps.kv_client.ttl_granularity + watch.blur
    }

    /// Fails unless the entry is there, as long as it must be; whether it had to.
    async fn alive(&self, watch: &Watch, what: &str, reader: &Handle) -> Result<bool, Stop> {
        let seen = reader.expect(what, &self.key, Some(&self.value)).await;
        if watch.now() + watch.blur >= self.from + self.ttl {
            return Ok(false);
        }
        seen?;
        Ok(true)
    }

    /// Fails unless the entry is gone, once it must be.
    async fn gone(
        &self,
        cx: &Cx<dyn World>,
        watch: &Watch,
        what: &str,
        reader: &Handle,
    ) -> Outcome {
        if watch.now() < self.over(cx, watch) {
            return Err(Stop::Inconclusive(format!(
                "the end of {:?} was not waited for",
                self.key
            )));
        }
        reader.expect(what, &self.key, None).await
    }
}

fn too_late() -> Stop {
    Stop::Inconclusive("the machine came too late to look before an end".into())
}

pub(super) async fn kv_3_1(cx: &Cx<dyn World>) -> Outcome {
    let watch = Watch::of(cx);
    let secs = watch.secs(60, 1);
    let ttl = Duration::from_secs(secs);
    let (a, b) = cx.open_two("p").await?;
    a.put("over a plain one", "old").await?;
    a.put_with_ttl("over a long one", "old", 50 * secs).await?;
    for what in ["after use", "after silence"] {
        if what == "after silence" {
            watch.until(cx, watch.now() + 3 * ttl).await?;
        }
        // The first call after the silence is a put: it must not count from a time that was last looked at long ago.
        let mut entries = Vec::new();
        for (writer, key, secs) in [
            (&b, "by b", secs),
            (&a, "by a", secs),
            (&b, "over a plain one", secs),
            (&a, "over a long one", secs),
            (&b, "for longer", 2 * secs),
        ] {
            entries.push(Entry::put(&watch, writer, key, secs).await?);
        }
        let first = entries[0].from;
        for look in [Duration::ZERO, ttl / 2, watch.last_look(ttl)] {
            watch.until(cx, first + look).await?;
            let mut judged = 0;
            for entry in &entries {
                for reader in [&a, &b] {
                    judged += usize::from(entry.alive(&watch, what, reader).await?);
                }
            }
            if judged == 0 {
                return Err(too_late());
            }
        }
        let fresh = cx.open_as("fresh", "p").await?;
        let longest = entries.last().expect("five were put");
        longest.alive(&watch, "on a new handle", &fresh).await?;
    }
    Ok(())
}

pub(super) async fn kv_3_2(cx: &Cx<dyn World>) -> Outcome {
    const COUNT: usize = 100;
    let watch = Watch::of(cx);
    let (a, b) = cx.open_two("p").await?;
    let mut entries = Vec::new();
    for at in 0..COUNT {
        let key = format!("k{at:03}");
        let writer = if at % 3 == 0 { &b } else { &a };
        if at % 5 == 0 {
            a.put(&key, "a plain one before it").await?;
        }
        entries.push(Entry::put(&watch, writer, &key, 1).await?);
    }
    b.put("stays", "plain").await?;
    // Some were looked at while they lived, the others are first asked for when they are gone.
    for entry in entries.iter().step_by(4) {
        entry.alive(&watch, "right after the put", &b).await?;
    }
    let over = entries.iter().map(|entry| entry.over(cx, &watch)).max();
    watch.until(cx, over.expect("a hundred were put")).await?;
    let what = "once time and granularity are over";
    for (at, entry) in entries.iter().enumerate() {
        // The first look by one method and the other, and through one handle and the other.
        let reader = if at % 2 == 0 { &a } else { &b };
        if at % 4 < 2 {
            entry.gone(cx, &watch, what, reader).await?;
        } else {
            let many = reader.get_multi(&[bytes(&entry.key)]).await?;
            let what = format!("get_multi of {:?} {what}", entry.key);
            cx.eq(what, &many, &vec![None])?;
        }
    }
    let keys: Vec<Bytes> = entries.iter().map(|entry| bytes(&entry.key)).collect();
    let fresh = cx.open_as("fresh", "p").await?;
    for reader in [&b, &a, &fresh] {
        let many = reader.get_multi(&keys).await?;
        cx.eq(
            "get_multi of all that ended",
            &many,
            &vec![None; keys.len()],
        )?;
        reader
            .expect("beside them", "stays", Some(b"plain"))
            .await?;
    }
    // For good: nothing that is done to others, or to the key itself, brings the old value back.
    a.put(&entries[0].key, "new").await?;
    a.delete(&entries[1].key).await?;
    b.put_with_ttl(&entries[2].key, "new", 3_600).await?;
    time::pass(cx, Duration::from_millis(100)).await?;
    for reader in [&a, &b, &fresh] {
        reader
            .expect("put after the end", &entries[0].key, Some(b"new"))
            .await?;
        reader
            .expect("put after the end", &entries[2].key, Some(b"new"))
            .await?;
        for entry in entries[3..].iter().chain([&entries[1]]) {
            entry.gone(cx, &watch, "later", reader).await?;
        }
    }
    a.delete(&entries[0].key).await?;
    entries[0].gone(cx, &watch, "deleted, later", &b).await
}

pub(super) async fn kv_3_4(cx: &Cx<dyn World>) -> Outcome {
    let watch = Watch::of(cx);
    let secs = watch.secs(60, 2);
    let ttl = Duration::from_secs(secs);
    let granularity = cx.caps.kv_client.ttl_granularity;
    if watch.clock.is_none() && ttl + granularity > time::REAL_WAIT_MAX {
        let why = format!("needs the power clock(), or {granularity:?} of real time");
        return Err(Stop::Ignored(why));
    }
    let (a, b) = cx.open_two("p").await?;
    let mut entries = Vec::new();
    for key in ["by get", "by get_multi", "by both", "unread"] {
        entries.push(Entry::put(&watch, &a, key, secs).await?);
    }
    let over = entries.iter().map(|entry| entry.over(cx, &watch)).max();
    let over = over.expect("four were put");
    let step = ((over - watch.now()) / 40).max(Duration::from_millis(10));
    let mut at = 0;
    while watch.now() < over {
        let reader = if at % 2 == 0 { &b } else { &a };
        at += 1;
        reader.get("by get").await?;
        reader.get_multi(&[bytes("by get_multi")]).await?;
        entries[2].alive(&watch, "while it is read", reader).await?;
        let left = over.saturating_sub(watch.now());
        if !left.is_zero() {
            time::pass(cx, step.min(left)).await?;
        }
    }
    cx.require(
        at >= 20,
        "reads while the entry lives",
        at.to_string(),
        "at least 20",
    )
    .map_err(|_few| too_late())?;
    for entry in &entries {
        for reader in [&b, &a] {
            let what = "after reads all the time";
            entry.gone(cx, &watch, what, reader).await?;
        }
    }
    Ok(())
}

pub(super) async fn kv_4_1(cx: &Cx<dyn World>) -> Outcome {
    const LONG_SECS: u64 = 3_600;
    let watch = Watch::of(cx);
    let (a, b) = cx.open_two("p").await?;
    let plain: [(&str, &[u8]); 4] = [
        ("put", b"new"),
        ("same", b"the same value"),
        ("deleted", b"new"),
        ("twice", b"newest"),
    ];
    for key in ["put", "same", "deleted", "twice", "longer"] {
        a.put_with_ttl(key, "the same value", 1).await?;
    }
    a.put_with_ttl("shorter", "old", LONG_SECS).await?;
    // May be refused, and then there is nothing to put over.
    let endless = a.try_put_with_ttl(b"over endless", b"old", u64::MAX).await;
    if endless.is_err() {
        invalid("put_with_ttl for ever", endless)?;
    }
    let last = Entry::put(&watch, &a, "untouched", 1).await?;
    b.put("put", "new").await?;
    b.put("same", "the same value").await?;
    b.delete("deleted").await?;
    b.put("deleted", "new").await?;
    a.put_with_ttl("twice", "new", 1).await?;
    b.put("twice", "newest").await?;
    let longer = Entry::put(&watch, &b, "longer", LONG_SECS).await?;
    let shorter = Entry::put(&watch, &b, "shorter", 1).await?;
    let over_endless = Entry::put(&watch, &b, "over endless", 1).await?;
    let ending = [shorter, last, over_endless];
    let over = ending.iter().map(|entry| entry.over(cx, &watch)).max();
    let over = over.expect("three were put");
    watch.until(cx, over).await?;
    // Once by the store's time, and again when a timer of the machine's time has had its second as well.
    for what in ["past the old end", "when old timers have gone off"] {
        for reader in [&b, &a] {
            for (key, value) in plain {
                reader.expect(what, key, Some(value)).await?;
            }
            longer.alive(&watch, what, reader).await?;
            for entry in &ending {
                entry.gone(cx, &watch, what, reader).await?;
            }
        }
        if what == "past the old end" {
            cx.log().push("-- 1.3 s of real time --".into());
            tokio::time::sleep(Duration::from_millis(1_300)).await;
        }
    }
    Ok(())
}

const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn set(cx: &Cx<dyn World>, clock: &TestClock, to: SystemTime) {
    cx.log().push(format!("clock = {to:?}"));
    clock.set(to);
}

pub(super) async fn c_5_1(cx: &Cx<dyn World>) -> Outcome {
    if cx.caps.clock != ClockSource::Injected {
        let why = "declares that a server decides about time (C-5)";
        return Err(Stop::Ignored(why.into()));
    }
    let clock = cx.clock()?;
    let (a, b) = cx.open_two("p").await?;
    let (hour, year) = (HOUR.as_secs(), YEAR.as_secs());
    a.put("plain", "v").await?;
    a.put_with_ttl("two years", "v", 2 * year).await?;
    for (key, secs) in [("second", 1), ("hour", hour), ("nearly a year", year - 1)] {
        a.put_with_ttl(key, "v", secs).await?;
        b.expect("right after the put", key, Some(b"v")).await?;
    }
    let over = cx.caps.kv_client.ttl_granularity;
    set(cx, &clock, clock.now() + YEAR + over);
    for reader in [&b, &a] {
        for key in ["second", "hour", "nearly a year"] {
            reader.expect("a year later", key, None).await?;
        }
        for key in ["plain", "two years"] {
            reader.expect("a year later", key, Some(b"v")).await?;
        }
    }

    let now = clock.now();
    a.put_with_ttl("before", "v", hour).await?;
    let jumps = [
        ("an hour back", now - HOUR),
        ("an hour ahead again", now),
        ("years back", SystemTime::UNIX_EPOCH + HOUR),
        ("another hour back", SystemTime::UNIX_EPOCH),
    ];
    for (what, to) in jumps {
        set(cx, &clock, to);
        // What was not over stays, and every call works.
        for reader in [&a, &b, &cx.open_as("fresh", "p").await?] {
            for key in ["plain", "two years", "before"] {
                reader.expect(what, key, Some(b"v")).await?;
            }
        }
        b.put(what, "plain").await?;
        a.expect(what, what, Some(b"plain")).await?;
        a.put_with_ttl(what, "for an hour", hour).await?;
        b.expect(what, what, Some(b"for an hour")).await?;
        b.get("second").await?;
        a.delete(what).await?;
        b.expect(what, what, None).await?;
    }
    set(cx, &clock, now + HOUR + over);
    b.expect("past its end", "before", None).await?;
    a.expect("past the end of others", "two years", Some(b"v"))
        .await
}

pub(super) async fn kv_9_2(cx: &Cx<dyn World>) -> Outcome {
    let watch = Watch::of(cx);
    let secs = watch.secs(100, 3);
    let ttl = Duration::from_secs(secs);
    let over = cx.caps.kv_client.ttl_granularity + watch.blur;
    if watch.clock.is_none() && ttl + over > time::REAL_WAIT_MAX {
        let why = format!("needs the power clock(), or {over:?} of real time");
        return Err(Stop::Ignored(why));
    }
    let (a, b) = cx.open_two("p").await?;
    let dead = Entry::put(&watch, &a, "dead", 1).await?;
    a.put("plain", "v").await?;
    watch.until(cx, dead.over(cx, &watch)).await?;
    let kept = Entry::put(&watch, &b, "kept", secs).await?;
    drop((a, b));

    let a = cx.open_as("reopened", "p").await?;
    let reopened = watch.now();
    dead.gone(cx, &watch, "dead before the restart", &a).await?;
    kept.alive(&watch, "in its time, after a restart", &a)
        .await?;
    let restarted = match cx.caps.kv_client.ttl_restart {
        TtlRestart::Deadline => kept.over(cx, &watch),
        TtlRestart::Restarts => reopened + ttl + over,
    };
    watch.until(cx, restarted).await?;
    let what = "past its end, as declared for a restart";
    a.expect(what, "kept", None).await?;
    drop(a);
    let a = cx.open_as("again", "p").await?;
    for key in ["dead", "kept"] {
        a.expect("ended before a restart", key, None).await?;
    }
    a.expect("an entry without an end", "plain", Some(b"v"))
        .await?;

    // The clock moves while nobody has the place open.
    let Some((clock, _)) = &watch.clock else {
        return Ok(());
    };
    a.put_with_ttl("hour", "v", HOUR.as_secs()).await?;
    drop(a);
    set(cx, clock, clock.now() - HOUR);
    let a = cx.open_as("an hour earlier", "p").await?;
    for key in ["hour", "plain"] {
        a.expect("opened an hour earlier", key, Some(b"v")).await?;
    }
    drop(a);
    set(cx, clock, clock.now() + YEAR);
    let a = cx.open_as("a year later", "p").await?;
    a.expect("opened a year later", "plain", Some(b"v")).await?;
    if cx.caps.kv_client.ttl_restart == TtlRestart::Deadline {
        a.expect("opened a year later", "hour", None).await?;
    }
    Ok(())
}
