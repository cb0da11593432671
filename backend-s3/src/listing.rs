//! Listing names: page by page, and each page held against what it says of itself.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

use crate::error::Failure;
use crate::thin::{Request, read_body};
use crate::wire::Wire;
use crate::xml;

/// How many pages without an object may follow each other before nobody believes any more that there is an end.
const EMPTY_PAGES_MAX: u32 = 1_000;

/// More than a page can need of a thousand names in which each byte is escaped.
const PAGE_LEN_BYTES_MAX: usize = 16 << 20;

/// One object of a listing.
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) len_bytes: u64,
}

/// One page, and where the next one starts if there is one.
pub(crate) struct Page {
    pub(crate) found: Vec<Listed>,
    pub(crate) next: Option<String>,
}

/// What pages add up to, each object once.
#[derive(Default)]
struct Listing {
    found: Vec<Listed>,
    /// The names that were found, where they do not come in order; where they do, none can come again.
    names: Option<HashSet<String>>,
    empty_pages: u32,
}

impl Listing {
    /// Takes the next page. A listing that gives an object again would go on for ever, if it did so page by page.
    fn take(&mut self, page: Vec<Listed>) -> Result<(), Failure> {
        self.empty_pages = if page.is_empty() {
            self.empty_pages + 1
        } else {
            0
        };
        if self.empty_pages > EMPTY_PAGES_MAX {
            return Err(garbled("of nothing, and another one, and no end"));
        }
        for object in page {
            let in_order = self.names.is_none()
                && self.found.last().is_none_or(|last| last.name < object.name);
            if !in_order {
                let found = &self.found;
                let names = self
                    .names
                    .get_or_insert_with(|| found.iter().map(|it| it.name.clone()).collect());
                if !names.insert(object.name.clone()) {
                    return Err(garbled("with an object that was listed already"));
                }
            }
            self.found.push(object);
        }
        Ok(())
    }
}

impl Wire {
    /// Every object whose name starts with `prefix`.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        let mut listing = Listing::default();
        let mut next = None;
        loop {
            let page = self.page(prefix, next, self.config.page_keys_max).await?;
            listing.take(page.found)?;
            match page.next {
                Some(token) => next = Some(token),
                None => return Ok(listing.found),
            }
        }
    }

    pub(crate) async fn page(
        &self,
        prefix: &str,
        token: Option<String>,
        keys_max: i32,
    ) -> Result<Page, Failure> {
        let keys_max = keys_max.to_string();
        let mut query = vec![
            ("list-type", "2"),
            ("encoding-type", "url"),
            ("max-keys", &keys_max),
            ("prefix", prefix),
        ];
        let token = token.as_deref();
        query.extend(token.map(|token| ("continuation-token", token)));
        let query = query.as_slice();
        let list = || async move {
            let answer = self.ask(Request::of_bucket(query)).await?;
            let page = read_body(answer.into_body(), PAGE_LEN_BYTES_MAX).await?;
            page_of(&page, token)
        };
        self.repeat(0, list).await
    }
}

impl Wire {
    /// Gives up the uploads below `prefix` that were begun more than `age` ago; how many.
    pub(crate) async fn sweep(&self, prefix: &str, age: Duration) -> Result<u64, Failure> {
        let now = self.config.clock.now();
        let (mut swept, mut key_marker, mut id_marker) = (0, None::<String>, None::<String>);
        let mut passed = HashSet::new();
        loop {
            let list = || {
                let request = self
                    .sdk()
                    .list_multipart_uploads()
                    .bucket(&self.config.bucket)
                    .prefix(prefix)
                    .encoding_type(EncodingType::Url)
                    .set_key_marker(key_marker.clone())
                    .set_upload_id_marker(id_marker.clone());
                async move {
                    let page = Box::pin(request.send()).await.map_err(Failure::of)?;
                    let next = next_uploads(&page)?;
                    Ok((page.uploads.unwrap_or_default(), next))
                }
            };
            let (uploads, next) = self.repeat(0, list).await?;
            for upload in uploads {
                let begun = upload
                    .initiated
                    .and_then(|at| SystemTime::try_from(at).ok());
                let is_old =
                    begun.is_some_and(|at| now.duration_since(at).is_ok_and(|is| is > age));
                let (Some(key), Some(id), true) = (upload.key, upload.upload_id, is_old) else {
                    continue;
                };
                let Ok(name) = percent_decode_str(&key).decode_utf8() else {
                    continue;
                };
                if name.starts_with(prefix) && self.abort(&name, &id).await {
                    swept += 1;
                }
            }
            match next {
                None => return Ok(swept),
                Some(next) if !passed.insert(next.clone()) => {
                    return Err(garbled("of uploads that was listed already"));
                }
                Some((key, id)) => (key_marker, id_marker) = (Some(key), id),
            }
        }
    }
}

/// Where the next page of uploads starts, if there is one.
fn next_uploads(
    page: &ListMultipartUploadsOutput,
) -> Result<Option<(String, Option<String>)>, Failure> {
    match (page.is_truncated, &page.next_key_marker) {
        (None, _) => Err(garbled(
            "of uploads that does not say whether it is the last",
        )),
        (Some(false), _) => Ok(None),
        (Some(true), Some(key)) if !key.is_empty() => {
            let key = percent_decode_str(key).decode_utf8();
            let key = key.map_err(|_e| garbled("of uploads that goes on at what is no text"))?;
            Ok(Some((key.into_owned(), page.next_upload_id_marker.clone())))
        }
        (Some(true), _) => Err(garbled("of uploads that goes on nowhere")),
    }
}

fn garbled(why: &str) -> Failure {
    Failure::garbled(format!("a page of a listing {why}"))
}

/// A name as it is; `None` where it is no text, and so none of ours, but somebody else's.
fn decoded(text: &str) -> Option<String> {
    let mut name = Vec::with_capacity(text.len());
    name.extend(percent_decode_str(text));
    String::from_utf8(name).ok()
}

/// What a page says, where it hangs together.
fn page_of(document: &[u8], token: Option<&str>) -> Result<Page, Failure> {
    let (mut found, mut listed) = (Vec::new(), 0);
    let (mut name, mut len) = (None, None);
    let (mut count, mut truncated, mut next) = (None, None, None);
    xml::read(document, "ListBucketResult", |depth, element, text| {
        match (depth, element) {
            (2, "Key") => name = Some(decoded(text)),
            (2, "Size") => len = text.parse().ok(),
            (1, "Contents") => {
                listed += 1;
                let name = name.take().ok_or("without a key")?;
                let len_bytes = len.take().ok_or("without a length")?;
                found.extend(name.map(|name| Listed { name, len_bytes }));
            }
            (1, "KeyCount") => count = text.parse().ok(),
            (1, "IsTruncated") => truncated = text.parse().ok(),
            (1, "NextContinuationToken") => next = Some(text.to_owned()),
            _ => {}
        }
        Ok(())
    })
    .map_err(|why| garbled(&why))?;
    let truncated: bool =
        truncated.ok_or_else(|| garbled("that does not say whether it is the last"))?;
    if count != Some(listed) {
        return Err(garbled("with another number of keys than it says"));
    }
    match (truncated, next.filter(|next| !next.is_empty())) {
        (false, _) => Ok(Page { found, next: None }),
        (true, None) => Err(garbled("that goes on nowhere")),
        (true, Some(next)) if Some(next.as_str()) == token => {
            Err(garbled("that goes on at its start"))
        }
        (true, next) => Ok(Page { found, next }),
    }
}
