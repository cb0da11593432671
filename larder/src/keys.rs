//! The keys of a URL: a backend takes those that it knows, and what is left over is an error.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::open_error::{Hint, OpenError};

pub(crate) struct Keys {
    scheme: &'static str,
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

#[cfg_attr(
    not(any(
        feature = "mem",
        feature = "sqlite",
        feature = "file",
        feature = "s3",
        feature = "tiered"
    )),
    expect(dead_code, reason = "no backend was built in")
)]
impl Keys {
    /// Reads `key=value&key=value`, percent-encoded.
    pub(crate) fn read(scheme: &'static str, query: &str) -> Result<Self, OpenError> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let left = pairs
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(key)?, decode(value)?))
            })
            .collect::<Result<_, OpenError>>()?;
        Ok(Self {
            scheme,
            left,
            known: Vec::new(),
        })
    }

    /// The value of `key`, if the URL has it.
    pub(crate) fn take<T>(&mut self, key: &'static str) -> Result<Option<T>, OpenError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        self.known.push(key);
        let Some(at) = self.left.iter().position(|(given, _)| given == key) else {
            return Ok(None);
        };
        let (key, value) = self.left.remove(at);
        match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(e) => Err(OpenError::InvalidValue {
                why: format!("{e}"),
                key,
                value,
            }),
        }
    }

    /// The configuration with the value of `key`, if the URL has it.
    #[cfg(any(feature = "mem", feature = "sqlite", feature = "file", feature = "s3"))]
    pub(crate) fn set<C, T>(
        &mut self,
        key: &'static str,
        config: C,
        with: impl FnOnce(C, T) -> C,
    ) -> Result<C, OpenError>
    where
        T: FromStr<Err: fmt::Display>,
    {
        Ok(match self.take(key)? {
            Some(value) => with(config, value),
            None => config,
        })
    }

    /// Refuses what nobody took. A key that stands there twice is left once.
    pub(crate) fn finish(mut self) -> Result<(), OpenError> {
        let Some((key, value)) = self.left.pop() else {
            return Ok(());
        };
        if self.known.contains(&key.as_str()) {
            return Err(OpenError::InvalidValue {
                key,
                value,
                why: "the key stands there twice".into(),
            });
        }
        Err(OpenError::UnknownKey {
            scheme: self.scheme,
            hint: Hint::of(&key, &self.known),
            key,
        })
    }
}

/// Undoes the percent-encoding of a part of a URL.
pub(crate) fn decode(text: &str) -> Result<String, OpenError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_not_utf8| OpenError::Malformed {
            url: text.to_owned(),
            why: "its percent-encoding is not that of UTF-8",
        })
}
