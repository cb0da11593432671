//! How keys and values become bytes (ST-2).
//!
//! MessagePack with field names. It describes itself, so a value may grow a field that has a default, lose one, or
//! move one, and old rows are still read. Two guards stand around it.
//!
//! *Writing* proves each encoding by decoding it. The format has no way to write `Some(None)` or `Some(())`, both
//! of which come back as `None`, and a skipped field comes back as its default. Without the proof such a value
//! would be lost in silence.
//!
//! *Reading* first walks the bytes without building anything: bytes left over after the value, which the decoder
//! would ignore, and nesting deeper than [`NESTING_LEVELS_MAX`], which could overflow the stack, are refused. So a
//! corrupt row is an error and never the end of the process (C-3).

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Fault};

/// How deep arrays, maps and enum variants may be nested in one another.
pub const NESTING_LEVELS_MAX: usize = 128;

/// Encodes a key or a value.
///
/// Equal values of one type give equal bytes as long as their fields are written in one order, which everything
/// that is [`Ord`] does. The order of the bytes says nothing about the order of the values.
///
/// # Errors
///
/// Kind `InvalidInput`, outcome `NotApplied`: the type refuses to be encoded, or the bytes would not give the same
/// value back, or would not be read at all because they are nested too deeply. Choose another representation, an
/// enum instead of an `Option` of an `Option` for example.
pub fn encode<T: Serialize + DeserializeOwned + PartialEq>(value: &T) -> Result<Vec<u8>, Fault> {
    let bytes = encode_unproved(value)?;
    let lost = "a key or value would not be read back as it was written";
    match decode::<T>(&bytes) {
        Ok(back) if back == *value => Ok(bytes),
        Ok(_) => Err(Fault::not_applied(ErrorKind::InvalidInput, lost)),
        Err(e) => Err(Fault::not_applied(ErrorKind::InvalidInput, lost).because(e)),
    }
}

/// Encodes without the proof, for a type of which a test has shown that every value comes back.
///
/// # Errors
///
/// Kind `InvalidInput`, outcome `NotApplied`: the type refuses to be encoded, as a time before 1970 does.
pub fn encode_unproved<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    rmp_serde::to_vec_named(value).map_err(|e| {
        Fault::not_applied(ErrorKind::InvalidInput, "a key or value does not encode").because(e)
    })
}

/// Decodes what [`encode`] wrote, for this type or for an older shape of it.
///
/// # Errors
///
/// Kind `Corrupt`, outcome `NotApplied`: the bytes are not one whole value of this type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let corrupt =
        |e| Fault::not_applied(ErrorKind::Corrupt, "a key or value does not decode").because(e);
    if scalar_len(bytes) != Some(bytes.len()) {
        let mut rest = bytes;
        let mut walk = rmp_serde::Deserializer::new(&mut rest);
        walk.set_max_depth(NESTING_LEVELS_MAX);
        IgnoredAny::deserialize(&mut walk).map_err(corrupt)?;
        if !rest.is_empty() {
            return Err(Fault::not_applied(
                ErrorKind::Corrupt,
                "bytes are left over after a key or value",
            ));
        }
    }
    rmp_serde::from_slice(bytes).map_err(corrupt)
}

/// How long the value is that these bytes begin with, if it is one of those with nothing in them: most keys and many
/// values are, and their first bytes tell what a walk would find out.
fn scalar_len(bytes: &[u8]) -> Option<usize> {
    let (&first, rest) = bytes.split_first()?;
    let len = match first {
        // Small numbers, nothing, no, yes.
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 0,
        // Numbers of 1, 2, 4, 8 bytes.
        0xcc | 0xd0 => 1,
        0xcd | 0xd1 => 2,
        0xca | 0xce | 0xd2 => 4,
        0xcb | 0xcf | 0xd3 => 8,
        // Texts, and bytes, after lengths of 1, 2, 4 bytes.
        0xa0..=0xbf => usize::from(first & 0x1f),
        0xc4 | 0xd9 => 1 + usize::from(*rest.first()?),
        0xc5 | 0xda => 2 + usize::from(u16::from_be_bytes(*rest.first_chunk()?)),
        0xc6 | 0xdb => {
            4_usize.checked_add(usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?)?
        }
        _ => return None,
    };
    len.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Classify, Outcome};
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    fn round_trips<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
        assert_eq!(decode::<T>(&encode(&value).unwrap()).unwrap(), value);
    }

    fn refused<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let e = encode(value).unwrap_err();
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::InvalidInput, Outcome::NotApplied),
            "{value:?}"
        );
    }

    fn corrupt<T: DeserializeOwned + Debug>(bytes: &[u8]) {
        let e = decode::<T>(bytes).unwrap_err();
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::Corrupt, Outcome::NotApplied)
        );
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Dot,
        Line(u32),
        Box { w: u32, h: u32 },
        Nest(Box<Self>),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unit;

    #[test]
    fn ordinary_types_come_back() {
        round_trips(());
        round_trips(Unit);
        round_trips(String::new());
        round_trips(Vec::<u8>::new());
        round_trips(Option::<u8>::None);
        round_trips(Some(0_u8));
        round_trips((u64::MAX, i64::MIN, i128::MIN, u128::MAX, 'x', true));
        round_trips(BTreeMap::from([((1, "a".to_owned()), vec![Some(1), None])]));
        round_trips(vec![
            Shape::Dot,
            Shape::Line(300),
            Shape::Box { w: 1, h: 2 },
        ]);
        round_trips(Shape::Nest(Box::new(Shape::Nest(Box::new(Shape::Dot)))));
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Forgetful {
            kept: u8,
            #[serde(skip)]
            skipped: u8,
        }
        refused(&Some(Option::<u8>::None));
        refused(&Some(()));
        refused(&Forgetful {
            kept: 1,
            skipped: 2,
        });
        refused(&f64::NAN);
        round_trips(Forgetful {
            kept: 1,
            skipped: 0,
        });
    }

    #[test]
    fn a_type_that_will_not_encode_is_refused() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Mute;
        impl Serialize for Mute {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no"))
            }
        }
        refused(&Mute);
    }

    #[test]
    fn leftovers_and_cuts_are_corrupt() {
        let mut bytes = encode(&(1_u8, "abc".to_owned())).unwrap();
        for cut in 0..bytes.len() {
            corrupt::<(u8, String)>(&bytes[..cut]);
        }
        bytes.push(0xc0);
        corrupt::<(u8, String)>(&bytes);
        corrupt::<u8>(&encode(&"text".to_owned()).unwrap());
        corrupt::<u8>(&encode(&256_u16).unwrap());
        // Lengths of 4 GiB with nothing behind them, the reserved byte, and text that is not UTF-8.
        corrupt::<Vec<u8>>(&[0xc6, 0xff, 0xff, 0xff, 0xff]);
        corrupt::<Vec<u64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff]);
        corrupt::<u8>(&[0xc1]);
        corrupt::<String>(&[0xa1, 0xff]);
    }

    /// The short way and the walk agree on what is one whole value, whatever it begins with.
    #[test]
    fn a_scalar_is_as_long_as_a_walk_finds_it() {
        let walked_len = |bytes: &[u8]| {
            let mut rest = bytes;
            let walk = IgnoredAny::deserialize(&mut rmp_serde::Deserializer::new(&mut rest));
            walk.ok().map(|_| bytes.len() - rest.len())
        };
        let mut scalars = 0;
        for first in 0..=u8::MAX {
            for tail in [
                &[0_u8; 80][..],
                &[1; 300],
                &[0, 0, 0, 70, 65],
                &[0, 70],
                &[],
            ] {
                let tail = [tail, &[b'a'; 71]].concat();
                let bytes = [&[first][..], &tail].concat();
                if let Some(len) = scalar_len(&bytes).filter(|len| *len <= bytes.len()) {
                    assert_eq!(walked_len(&bytes), Some(len), "{bytes:?}");
                    scalars += 1;
                }
            }
        }
        assert!(scalars > 900, "{scalars}");
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        // `{"Nest": {"Nest": ...`: the decoder by itself does not count the levels of enum variants.
        let levels = 1_000_000;
        let mut bytes = b"\x81\xa4Nest".repeat(levels);
        bytes.extend_from_slice(b"\xa3Dot");
        corrupt::<Shape>(&bytes);
        let mut arrays = vec![0x91; levels];
        arrays.push(0x90);
        corrupt::<IgnoredAny>(&arrays);

        let nested = |levels| (0..levels).fold(Shape::Dot, |inner, _| Shape::Nest(Box::new(inner)));
        round_trips(nested(NESTING_LEVELS_MAX - 2));
        refused(&nested(NESTING_LEVELS_MAX + 1));
    }

    #[test]
    fn a_value_may_grow_move_and_lose_fields() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Old {
            name: String,
            size: u32,
            gone: u8,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct New {
            #[serde(default)]
            owner: Option<String>,
            size: u64,
            name: String,
        }
        let old = encode(&Old {
            name: "a".into(),
            size: 7,
            gone: 1,
        })
        .unwrap();
        assert_eq!(
            decode::<New>(&old).unwrap(),
            New {
                owner: None,
                size: 7,
                name: "a".into()
            }
        );
    }

    #[test]
    fn byte_order_is_not_value_order() {
        assert_eq!(encode(&1_i16).unwrap(), [0x01]);
        assert_eq!(encode(&200_i16).unwrap(), [0xcc, 0xc8]);
        assert_eq!(encode(&-1_i16).unwrap(), [0xff]);
        // Widening an integer keeps its bytes.
        assert_eq!(encode(&200_u8).unwrap(), encode(&200_i64).unwrap());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            drop(decode::<Shape>(&bytes));
            drop(decode::<(String, Option<u64>)>(&bytes));
            drop(decode::<BTreeMap<String, Vec<u8>>>(&bytes));
        }
    }
}
