//! Listing names: page by page, and each page held against what it says of itself.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

use crate::error::Failure;
use crate::wire::Wire;

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

impl Wire {
    /// Every object whose name starts with `prefix`.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        let mut found = Vec::new();
        let mut next = None;
        loop {
            let page = self.page(prefix, next, self.config.page_keys_max).await?;
            found.extend(page.found);
            match page.next {
                Some(token) => next = Some(token),
                None => return Ok(found),
            }
        }
    }

    pub(crate) async fn page(
        &self,
        prefix: &str,
        token: Option<String>,
        keys_max: i32,
    ) -> Result<Page, Failure> {
        let list = |client: Client| {
            let request = client
                .list_objects_v2()
                .bucket(&self.config.bucket)
                .prefix(prefix)
                .encoding_type(EncodingType::Url)
                .max_keys(keys_max)
                .set_continuation_token(token.clone());
            let token = token.as_deref();
            async move { page_of(Box::pin(request.send()).await.map_err(Failure::of)?, token) }
        };
        self.repeat(0, list).await
    }
}

impl Wire {
    /// Gives up the uploads below `prefix` that were begun more than `age` ago; how many.
    pub(crate) async fn sweep(&self, prefix: &str, age: Duration) -> Result<u64, Failure> {
        let now = self.config.clock.now();
        let (mut swept, mut key_marker, mut id_marker) = (0, None::<String>, None::<String>);
        loop {
            let list = |client: Client| {
                let request = client
                    .list_multipart_uploads()
                    .bucket(&self.config.bucket)
                    .prefix(prefix)
                    .encoding_type(EncodingType::Url)
                    .set_key_marker(key_marker.clone())
                    .set_upload_id_marker(id_marker.clone());
                async move { Box::pin(request.send()).await.map_err(Failure::of) }
            };
            let page = self.repeat(0, list).await?;
            for upload in page.uploads.unwrap_or_default() {
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
            let next = page
                .next_key_marker
                .filter(|_| page.is_truncated == Some(true));
            let next = next
                .and_then(|next| Some(percent_decode_str(&next).decode_utf8().ok()?.into_owned()));
            if next.is_none() || (&next, &page.next_upload_id_marker) == (&key_marker, &id_marker) {
                return Ok(swept);
            }
            (key_marker, id_marker) = (next, page.next_upload_id_marker);
        }
    }
}

/// What a page says, where it hangs together: a truncated one may still be XML to a lenient reader.
fn page_of(output: ListObjectsV2Output, token: Option<&str>) -> Result<Page, Failure> {
    let garbled = |why: &str| Failure::garbled(format!("a page of a listing {why}"));
    let count = output
        .key_count
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| garbled("without a count"))?;
    let truncated = output
        .is_truncated
        .ok_or_else(|| garbled("that does not say whether it is the last"))?;
    let contents = output.contents.unwrap_or_default();
    if contents.len() != count {
        return Err(garbled("with another number of keys than it says"));
    }
    let mut found = Vec::with_capacity(count);
    for object in contents {
        let key = object.key.ok_or_else(|| garbled("without a key"))?;
        let len = object.size.and_then(|size| u64::try_from(size).ok());
        let name = percent_decode_str(&key).decode_utf8();
        let name = name.map_err(|_e| garbled("with a key that is no text"))?;
        found.push(Listed {
            name: name.into_owned(),
            len_bytes: len.ok_or_else(|| garbled("without a length"))?,
        });
    }
    let next = output
        .next_continuation_token
        .filter(|next| !next.is_empty());
    match (truncated, next) {
        (false, _) => Ok(Page { found, next: None }),
        (true, None) => Err(garbled("that goes on nowhere")),
        (true, Some(next)) if Some(next.as_str()) == token => {
            Err(garbled("that goes on at its start"))
        }
        (true, next) => Ok(Page { found, next }),
    }
}
