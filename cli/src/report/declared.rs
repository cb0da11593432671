//! What a backend declares, in words, and the clauses whose checks hold it to that.

use std::time::Duration;

use larder::{Caps, ClockSource, Contract, Durability, LateLanding, TtlRestart};

/// One declared item.
pub(super) struct Item {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) clauses: &'static [&'static str],
}

fn item(name: &'static str, value: impl Into<String>, clauses: &'static [&'static str]) -> Item {
    Item {
        name,
        value: value.into(),
        clauses,
    }
}

/// What matters of `caps` to this contract.
pub(super) fn items(contract: Contract, caps: &Caps) -> Vec<Item> {
    let mut items = common(caps);
    items.extend(match contract {
        Contract::BlobMulti => blob_multi(caps),
        Contract::Stash => stash(caps),
        Contract::BlobStore => vec![item(
            "opened once only",
            yes(caps.blob_store.exclusive),
            &["BS-14"],
        )],
        Contract::Backend => objects(caps),
        Contract::HighVolume => high_volume(caps),
        Contract::KvClient => kv_client(caps),
        // A contract that this program does not know yet.
        _ => Vec::new(),
    });
    items
}

fn common(caps: &Caps) -> Vec<Item> {
    let durability = match caps.durability {
        Durability::None => "lives as long as the process",
        Durability::Process => "survives the loss of the process",
        Durability::Power => "survives the loss of power",
    };
    let late = match caps.late_landing {
        LateLanding::Fenced => "never lands late".to_owned(),
        LateLanding::MayLandLate(None) => "may land late".to_owned(),
        LateLanding::MayLandLate(Some(bound)) => format!("may land late, within {}", time(bound)),
    };
    let clock = match caps.clock {
        ClockSource::Injected => "the clock given at construction".to_owned(),
        ClockSource::Server { skew } => format!("the server's, within {}", time(skew)),
    };
    let in_flight = caps
        .in_flight_max
        .map_or_else(|| "not bounded".to_owned(), |max| max.to_string());
    vec![
        item(
            "an acknowledged write",
            durability,
            &["BM-9", "ST-13", "BS-3", "BK-4", "KV-9"],
        ),
        item("an abandoned write", late, &["C-6", "BM-12"]),
        item("expiry is decided by", clock, &["C-5"]),
        item("calls in flight", in_flight, &["C-4"]),
    ]
}

fn blob_multi(caps: &Caps) -> Vec<Item> {
    let caps = &caps.blob_multi;
    vec![
        item("longest key", size(caps.key_len_bytes_max), &["BM-10"]),
        item("longest value", size(caps.value_len_bytes_max), &["BM-11"]),
        item("a list is a snapshot", yes(caps.list_snapshot), &["BM-6"]),
    ]
}

fn stash(caps: &Caps) -> Vec<Item> {
    let caps = &caps.stash;
    vec![
        item("a batch is atomic", yes(caps.batch_atomic), &["ST-12"]),
        item("fences older writers", yes(caps.exclusive), &["ST-14"]),
        item("longest name", size(caps.name_len_bytes_max), &["C-4"]),
        item(
            "longest encoded key or value",
            size(caps.row_len_bytes_max),
            &["C-4"],
        ),
        item(
            "most rows in an update",
            caps.batch_rows_max.to_string(),
            &["C-4"],
        ),
    ]
}

fn objects(caps: &Caps) -> Vec<Item> {
    let caps = &caps.high_volume;
    vec![
        item(
            "longest payload",
            size(caps.payload_len_bytes_max),
            &["C-4"],
        ),
        item("longest object id", size(caps.id_len_bytes_max), &["C-4"]),
    ]
}

fn high_volume(caps: &Caps) -> Vec<Item> {
    let mut items = objects(caps);
    items.push(item("fence", yes(caps.high_volume.fence), &["HV-6"]));
    items.push(item(
        "extend_expiry",
        yes(caps.high_volume.extend_expiry),
        &["HV-8"],
    ));
    items
}

fn kv_client(caps: &Caps) -> Vec<Item> {
    let caps = &caps.kv_client;
    let restart = match caps.ttl_restart {
        TtlRestart::Deadline => "runs on",
        TtlRestart::Restarts => "starts anew",
    };
    vec![
        item("the empty key is a key", yes(caps.empty_key), &["KV-2"]),
        item("longest key", size(caps.key_len_bytes_max), &["C-4"]),
        item("longest value", size(caps.value_len_bytes_max), &["C-4"]),
        item(
            "an entry outlives its time by",
            time(caps.ttl_granularity),
            &["KV-3"],
        ),
        item(
            "get_multi is a snapshot",
            yes(caps.multi_snapshot),
            &["KV-5"],
        ),
        item("over a restart a time to live", restart, &["KV-9"]),
    ]
}

fn yes(declared: bool) -> &'static str {
    if declared { "yes" } else { "no" }
}

fn time(time: Duration) -> String {
    format!("{time:?}")
}

fn size(len_bytes: impl TryInto<u64>) -> String {
    let Ok(len_bytes) = len_bytes.try_into() else {
        return "beyond counting".into();
    };
    for (unit, name) in [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if len_bytes >= unit && len_bytes.is_multiple_of(unit) {
            return format!("{} {name}", len_bytes / unit);
        }
    }
    format!("{len_bytes} B")
}
