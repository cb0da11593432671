//! Listings, a folder of objects after the other, the names of each in order.
//!
//! The files on their way in lie elsewhere, and what else may lie among the objects has a name that says nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use larder_traits::{ErrorKind, Fault, ObjectId, ObjectPage};

use super::get;
use super::name::{self, Name, Says};
use super::place::Place;
use super::threads::Call;
use crate::plain::{corrupt, failed};

/// Between the folder and the name in the mark of where a listing goes on.
const SEPARATOR: char = '/';

/// Where a listing has come to: the last object that was named, or looked at.
struct Position {
    shard: u8,
    file: String,
}

impl Position {
    /// The beginning of the folder of this number.
    const fn start_of(shard: u8) -> Self {
        let file = String::new();
        Self { shard, file }
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        let parts = text.split_once(SEPARATOR).and_then(|(folder, file)| {
            let shard = u8::from_str_radix(folder, 16).ok()?;
            let is_ours = folder == name::folder(shard) && name::says(file) != Says::Nothing;
            let file = file.to_owned();
            is_ours.then_some(Self { shard, file })
        });
        parts.ok_or_else(|| {
            let message = "no page of this backend goes on there";
            Fault::not_applied(ErrorKind::InvalidInput, message)
        })
    }
}

/// Names up to `limit` objects behind `after`.
pub(super) fn page(
    place: &Place,
    after: Option<&str>,
    limit: usize,
    call: &Call<'_>,
) -> Result<ObjectPage, Fault> {
    let limit = limit.max(1);
    let mut at = after.map_or(Ok(Position::start_of(0)), Position::parse)?;
    let mut ids = Vec::new();
    loop {
        let wanted = limit - ids.len();
        let files = files(place, &at, wanted)?;
        let has_more = files.len() == wanted;
        for file in files {
            let id = match name::says(&file) {
                Says::Id(id) => Some(id),
                Says::Digest => stored_id(place, at.shard, &file, call)?,
                Says::Nothing => None,
            };
            ids.extend(id);
            at.file = file;
        }
        if ids.len() == limit {
            let next = format!("{}{SEPARATOR}{}", name::folder(at.shard), at.file);
            return Ok(ObjectPage::new(ids, Some(next)));
        }
        if has_more {
            // Of those that it named, one is gone by now.
            continue;
        }
        match at.shard.checked_add(1) {
            Some(shard) => at = Position::start_of(shard),
            None => return Ok(ObjectPage::new(ids, None)),
        }
    }
}

/// The first `limit` names of objects behind a position in its folder, in order.
fn files(place: &Place, behind: &Position, limit: usize) -> Result<BTreeSet<String>, Fault> {
    let unlisted = || failed("a folder of objects could not be read");
    let mut first = BTreeSet::new();
    let entries = match fs::read_dir(place.shard_path(behind.shard)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(first),
        Err(e) => return Err(unlisted()(e)),
    };
    for entry in entries {
        let Ok(file) = entry.map_err(unlisted())?.file_name().into_string() else {
            continue;
        };
        let is_here = match name::says(&file) {
            // Under another folder no call would find it.
            Says::Id(id) => Name::of(&id.to_string()).shard == behind.shard,
            Says::Digest => true,
            Says::Nothing => false,
        };
        if is_here && file > behind.file {
            first.insert(file);
            if first.len() > limit {
                first.pop_last();
            }
        }
    }
    Ok(first)
}

/// The id of an object whose name does not say it; `None` where the object is gone by now.
fn stored_id(
    place: &Place,
    shard: u8,
    file: &str,
    call: &Call<'_>,
) -> Result<Option<ObjectId>, Fault> {
    let path = place.shard_path(shard).join(file);
    let Some(found) = get::open(&place.medium, path, call)? else {
        return Ok(None);
    };
    let Name {
        shard: own,
        file: name,
    } = Name::of(&found.id);
    if (own, name.as_str()) != (shard, file) {
        return Err(corrupt("an object's file holds another object"));
    }
    let id = found.id.parse();
    let damaged = |e| corrupt("an object's file holds no id").because(e);
    id.map(Some).map_err(damaged)
}
