//! BM-10 and BM-11: the domains of keys and values.

use larder_traits::blob_multi::{BASE_KEY_LEN_BYTES_MAX, KEY_LEN_BYTES_MAX};
use larder_traits::{Atomicity, Classify, ErrorKind, ExternalError, Outcome as Effect};

use super::bounds::refuses_longer_values;
use super::{all_is, fill, get_is, list_is, long_key, read_is, same_lines, value_len_max};
use crate::blob_multi::{Handle, World, name, patient};
use crate::check::{Check, Outcome, Stop, describe};
use crate::checks::{pattern, refused};
use crate::cx::Cx;
use crate::model::blob_multi::{Blobs, KeyDomain, is_base};

pub(super) static CHECKS: &[Check<dyn World>] = &[
    Check::new(
        "BM-10.1",
        "every key of the base alphabet works: each character in each place, dots, slashes, lengths",
    )
    .kills("normalising")
    .run(|cx| Box::pin(bm_10_1(cx))),
    Check::new(
        "BM-10.2",
        "any other key works exactly, or is InvalidInput; the empty one always is",
    )
    .kills("folding")
    .run(|cx| Box::pin(bm_10_2(cx))),
    Check::new("BM-10.3", "keys that point out of the place change nothing outside")
        .kills("traversal")
        .run(|cx| Box::pin(bm_10_3(cx))),
    Check::new(
        "BM-11.1",
        "the longest value comes back; one byte more is refused and the old value stays",
    )
    .kills("late check")
    .run(|cx| Box::pin(bm_11_1(cx))),
];

async fn bm_10_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut keys: Vec<String> = Vec::new();
    for c in (0..=127_u8).filter(|&byte| is_base(byte)).map(char::from) {
        keys.extend([
            format!("{c}k"),
            format!("k{c}k"),
            format!("k{c}"),
            c.to_string(),
        ]);
    }
    let special = [
        ".", "..", "...", "/", "//", "///", "a/../b", "a/./b", "a//b", "a/b", "a/", "a.", "/a",
        ".a", "./a", "../a", "a/..", "a/.", "a/b/", "a/b/..", "a..", "..a", "a/b.", "a./b", "b",
        "*", "**", "-rf", "--", "'", "''", "()", "!", "a.tmp", ".tmp", "a.lock", "CON", "nul.txt",
        "a'b''c", "_", "a_b", "(a)", "a-", "0", "00", "0x0", "1e3",
    ];
    keys.extend(special.map(str::to_owned));
    keys.extend([2, 63, 64, 127, 128, 254, 255].map(long_key));
    for segment in ["/", ".", "a/", "../", "'", "!"] {
        keys.push(segment.repeat(BASE_KEY_LEN_BYTES_MAX / segment.len()));
    }
    keys.sort();
    keys.dedup();
    let mut model = Blobs::default();
    for (at, key) in keys.iter().enumerate() {
        let writer = if at % 2 == 0 { &a } else { &b };
        fill(writer, &mut model, key, "10.1", 4 + at % 7).await?;
    }
    all_is(&b, &model).await?;
    // Every third goes; its neighbours stay.
    for key in keys.iter().step_by(3) {
        a.delete(key).await?;
        model.delete(key);
        get_is(&b, key, None).await?;
    }
    all_is(&cx.open_as("c", "p").await?, &model).await?;
    for key in keys {
        b.delete(&key).await?;
    }
    list_is(&a, Vec::<String>::new()).await
}

/// Keys beyond the base alphabet, with those that a careless store would take for the same beside them.
fn odd_keys() -> Vec<String> {
    let odd = [
        " ",
        "a b",
        " a",
        "a ",
        "a  b",
        "%20",
        "a%20b",
        "a+b",
        "+",
        "%",
        "%%",
        "%2F",
        "a%2Fb",
        "a%2fb",
        "a/b",
        "%25",
        "a%00b",
        "#",
        "a#b",
        "?",
        "a?b",
        "a?x=1&y=2",
        "&",
        "&amp;",
        "\\",
        "a\\b",
        "\n",
        "a\nb",
        "a\r\nb",
        "\r",
        "\t",
        "\0",
        "a\0b",
        "a\0",
        "a",
        "\u{7f}",
        "\u{1b}[0m",
        "\"",
        "\"a\"",
        "<a>",
        "|",
        ":",
        "C:",
        ";",
        "@",
        "a@b",
        "=",
        ",",
        "$",
        "$a",
        "^",
        "`",
        "~",
        "~a",
        "{}",
        "[a]",
        "\u{1F980}",
        "a\u{1F980}b",
        "\u{1F468}\u{200D}\u{1F469}",
        "\u{FEFF}a",
        "a\u{200B}",
        "\u{202E}a",
        "\u{FFFD}",
        "\u{10FFFF}",
        "\u{E000}",
        "\u{D7FF}",
        // Pairs in case, and in composed and decomposed form.
        "KEY",
        "key",
        "Key",
        "\u{C4}",
        "\u{E4}",
        "A\u{308}",
        "a\u{308}",
        "\u{DF}",
        "\u{1E9E}",
        "SS",
        "ss",
        "\u{130}",
        "\u{131}",
        "I",
        "i",
        "\u{3A9}",
        "\u{2126}",
        "\u{E9}t\u{E9}",
        "e\u{301}te\u{301}",
        "\u{AC00}",
        "\u{1100}\u{1161}",
        "\u{FB01}",
        "fi",
        "\u{212B}",
        "\u{C5}",
        "A\u{30A}",
        "\u{FF41}",
    ];
    let mut keys: Vec<String> = odd.iter().map(|&key| key.to_owned()).collect();
    keys.extend([256, 512, 1_023, KEY_LEN_BYTES_MAX].map(long_key));
    // 1,024 bytes of four each, and a key that a cut at 255 bytes would split or fold into another.
    keys.push("\u{1F980}".repeat(KEY_LEN_BYTES_MAX / 4));
    keys.push("\u{E4}".repeat(128));
    keys.push("\u{E4}".repeat(127));
    keys
}

async fn bm_10_2(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let mut keys = odd_keys();
    keys.push(String::new());
    keys.extend([KEY_LEN_BYTES_MAX + 1, 5_000, 70_000].map(long_key));
    keys.push("\u{1F980}".repeat(KEY_LEN_BYTES_MAX / 4 + 1));
    let mut model = Blobs::default();
    for (at, key) in keys.iter().enumerate() {
        let (writer, reader) = if at % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let domain = KeyDomain::of(key, &cx.caps.blob_multi);
        let value = pattern(key, 5 + at % 9);
        let set = patient(|| {
            writer.try_set(
                Handle::ample(),
                key,
                value.clone(),
                Atomicity::RequireAtomic,
            )
        })
        .await;
        match (set, domain) {
            (Ok(()), KeyDomain::Base | KeyDomain::Optional) => model.set(key, value.into()),
            (Err(e), KeyDomain::Base) => {
                return Err(Stop::error(format!("set({})", name(key)), &e));
            }
            (result, KeyDomain::Optional | KeyDomain::Refused) => {
                let what = format!("set({})", name(key));
                refused(&what, result, ErrorKind::InvalidInput)?;
                refused_everywhere(reader, key, domain).await?;
            }
        }
    }
    all_is(&b, &model).await?;
    all_is(&cx.open_as("c", "p").await?, &model).await?;
    let accepted: Vec<String> = model.keys().map(str::to_owned).collect();
    for key in accepted {
        let read = a.get_range(&key, 1..3).await?;
        let expected = model.get_range(&key, 1..3);
        read_is("get_range 1..3 of", &key, read, expected.as_deref())?;
        let found = a.list_prefix(&key).await?;
        let what = format!("list_prefix({})", name(&key));
        same_lines(&what, &found, &model.list_prefix(&key))?;
        b.delete(&key).await?;
        model.delete(&key);
        list_is(&a, model.keys()).await?;
    }
    Ok(())
}

/// Fails unless every other method treats a key that `set` refused as one that cannot be.
async fn refused_everywhere(handle: &Handle, key: &str, domain: KeyDomain) -> Outcome {
    let deadline = Handle::ample();
    let call = |method: &str| format!("{method}({}), a key that set refuses", name(key));
    let read = patient(|| handle.try_get(deadline, key)).await;
    unknown_key(&call("get"), read.map(|value| value.is_none()), domain)?;
    let read = patient(|| handle.try_get_bytes(deadline, key)).await;
    unknown_key(
        &call("get_bytes"),
        read.map(|value| value.is_none()),
        domain,
    )?;
    let read = patient(|| handle.try_get_range(deadline, key, 0..1)).await;
    unknown_key(
        &call("get_range"),
        read.map(|value| value.is_none()),
        domain,
    )?;
    let deleted = patient(|| handle.try_delete(deadline, key)).await;
    unknown_key(&call("delete"), deleted.map(|()| true), domain)
}

/// A key outside every domain is refused; one that this store does not take may be answered as absent as well.
fn unknown_key(call: &str, absent: Result<bool, ExternalError>, domain: KeyDomain) -> Outcome {
    let expected = match domain {
        KeyDomain::Refused => "invalid input, NotApplied",
        KeyDomain::Base | KeyDomain::Optional => "invalid input, NotApplied, or absent",
    };
    match absent {
        Err(e) if e.kind() == ErrorKind::InvalidInput && e.outcome() == Effect::NotApplied => {
            Ok(())
        }
        Ok(true) if domain != KeyDomain::Refused => Ok(()),
        Ok(absent) => {
            let seen = if absent { "Ok" } else { "a value" };
            Err(Stop::fail(call, seen, expected))
        }
        Err(e) => Err(Stop::fail(call, describe(&e), expected)),
    }
}

async fn bm_10_3(cx: &Cx<dyn World>) -> Outcome {
    const BELOW: &str = "q/in";
    let lost = |e| Stop::Inconclusive(format!("the surroundings could not be seen: {e}"));
    let foreign = cx.world().foreign(BELOW);
    let mut before = None;
    if let Some(foreign) = &foreign {
        foreign.plant().await.map_err(lost)?;
        before = Some(foreign.look().await.map_err(lost)?);
    }
    // The places that such keys would point to, each with keys that they would hit.
    let mut outside = Vec::new();
    for (name, place) in [("q", "q"), ("x", "x"), ("qx", "q/x"), ("qinx", "q/inx")] {
        let handle = cx.open_as(name, place).await?;
        let mut model = Blobs::default();
        for key in ["x", "k", "in", "in/x", "in/k", "x/k"] {
            fill(&handle, &mut model, key, place, 9).await?;
        }
        outside.push((handle, model));
    }
    let a = cx.open_as("a", BELOW).await?;
    let b = cx.open_as("b", BELOW).await?;
    let mut model = Blobs::default();
    let keys = [
        "../x",
        "/x",
        "../../x",
        "..",
        "../",
        "../..",
        "../x/k",
        "../k",
        "x/../../x/k",
        "../inx/k",
        "/",
        "../in/x",
        "./../x",
        "/../x",
        "//x",
        "/q/x/k",
        "/q/k",
        "../../../../../../../../x",
        "x",
        "k",
    ];
    for (at, key) in keys.iter().enumerate() {
        let writer = if at % 2 == 0 { &a } else { &b };
        fill(writer, &mut model, key, "10.3", 20 + at).await?;
    }
    all_is(&b, &model).await?;
    for (handle, model) in &outside {
        all_is(handle, model).await?;
    }
    for (at, key) in keys.iter().enumerate() {
        let writer = if at % 2 == 0 { &b } else { &a };
        writer.delete(key).await?;
    }
    list_is(&a, Vec::<String>::new()).await?;
    for (handle, model) in &mut outside {
        all_is(handle, model).await?;
        for key in ["x", "k", "in", "in/x", "in/k", "x/k"] {
            handle.delete(key).await?;
        }
    }
    match (foreign, before) {
        (Some(foreign), Some(before)) => {
            let after = foreign.look().await.map_err(lost)?;
            cx.eq("what lies beside the place", &after, &before)
        }
        _ => Ok(()),
    }
}

async fn bm_11_1(cx: &Cx<dyn World>) -> Outcome {
    let (a, b) = cx.open_two("p").await?;
    let len_max = value_len_max(cx);
    let mut model = Blobs::default();
    for (writer, reader) in [(&a, &b), (&b, &a)] {
        fill(writer, &mut model, "v", writer.name(), len_max).await?;
        get_is(reader, "v", model.get("v").map(|value| &value[..])).await?;
        refuses_longer_values(cx, writer).await?;
        all_is(reader, &model).await?;
        fill(reader, &mut model, "v", "short again", 3).await?;
        all_is(writer, &model).await?;
    }
    if u64::try_from(len_max).is_ok_and(|len| len < cx.caps.blob_multi.value_len_bytes_max) {
        return Err(Stop::Ignored(format!(
            "values of up to {len_max} bytes work, and the declared maximum is more than this profile writes"
        )));
    }
    Ok(())
}
