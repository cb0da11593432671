//! What a loss of power leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::chance::Chance;
use super::image::{Image, SECTOR_LEN_BYTES, Sector};
use super::state::State;
use super::{SimDisk, SimDiskOptions};

/// Which write something belongs to, in the order in which they took effect.
type WriteId = u64;

/// Everything that was written since the last sync: for each sector, what each write made of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Volatile {
    sectors: BTreeMap<u64, Vec<(WriteId, Sector)>>,
    lens: Vec<(WriteId, u64)>,
    next: WriteId,
}

impl Volatile {
    /// What is added from now on belongs to a new write.
    pub(super) fn begin(&mut self) {
        self.next += 1;
    }

    pub(super) fn add_sector(&mut self, number: u64, sector: Sector) {
        let versions = self.sectors.entry(number).or_default();
        versions.push((self.next, sector));
    }

    pub(super) fn add_len(&mut self, len: u64) {
        self.lens.push((self.next, len));
    }

    pub(super) fn record_len(&mut self, len: u64) {
        self.begin();
        self.add_len(len);
    }

    pub(super) fn keep_lens_of(&mut self, other: &Self) {
        self.lens.clone_from(&other.lens);
        self.next = other.next;
    }

    pub(super) fn sectors(&self) -> impl Iterator<Item = u64> {
        self.sectors.keys().copied()
    }

    pub(super) fn sector_count(&self) -> usize {
        self.sectors.len()
    }

    fn writes(&self) -> Vec<WriteId> {
        let sectors = self.sectors.values().flatten().map(|(id, _)| *id);
        let all: BTreeSet<WriteId> = sectors.chain(self.lens.iter().map(|(id, _)| *id)).collect();
        all.into_iter().collect()
    }

    /// The image where the first `lens` changes of length happened, and `version` says of each sector which of its
    /// versions landed, if any.
    fn image(
        &self,
        durable: &Image,
        lens: usize,
        mut version: impl FnMut(u64, &[(WriteId, Sector)]) -> Option<usize>,
    ) -> Image {
        let mut image = durable.clone();
        let lens = &self.lens[..lens];
        // Changes of length are metadata, which a journal keeps in order: what was cut off does not come back.
        let mut cuts = Vec::new();
        for &(id, len) in lens {
            if len < image.len() {
                cuts.push((id, len));
            }
            image.set_len(len);
        }
        for (&number, versions) in &self.sectors {
            let Some(at) = version(number, versions) else {
                continue;
            };
            let (id, sector) = &versions[at];
            let start = number * SECTOR_LEN_BYTES;
            let was_cut = cuts.iter().any(|&(cut, len)| *id < cut && start >= len);
            if !was_cut {
                image.set_sector(number, sector);
            }
        }
        image
    }

    /// The image where exactly these writes landed, torn where `tears` says so.
    fn image_of(
        &self,
        durable: &Image,
        kept: &BTreeSet<WriteId>,
        mut tears: impl FnMut(WriteId) -> bool,
    ) -> Image {
        let lens = self.lens.iter().rposition(|(id, _)| kept.contains(id));
        self.image(durable, lens.map_or(0, |at| at + 1), |_, versions| {
            versions
                .iter()
                .rposition(|(id, _)| kept.contains(id) && !tears(*id))
        })
    }

    /// One of the images, by chance.
    fn any_image(&self, durable: &Image, chance: &mut Chance) -> Image {
        let writes = self.writes();
        let some = chance.index(writes.len().max(1));
        let one: Option<WriteId> = writes.get(some).copied();
        let whole = |ids: &[WriteId]| ids.iter().copied().collect::<BTreeSet<_>>();
        match chance.below(7) {
            // Whole writes, in any order.
            0 => {
                let kept = writes.iter().copied().filter(|_| chance.coin()).collect();
                self.image_of(durable, &kept, |_| false)
            }
            // The first ones, and part of the next.
            1 => {
                let kept = whole(&writes[..(some + 1).min(writes.len())]);
                self.image_of(durable, &kept, |id| Some(id) == one && chance.coin())
            }
            // All but one.
            2 => {
                let mut kept = whole(&writes);
                one.map(|id| kept.remove(&id));
                self.image_of(durable, &kept, |_| false)
            }
            // One alone.
            3 => self.image_of(durable, &one.into_iter().collect(), |_| false),
            // The last ones.
            4 => self.image_of(durable, &whole(&writes[some..]), |_| false),
            // All, one of them in part.
            5 => self.image_of(durable, &whole(&writes), |id| {
                Some(id) == one && chance.coin()
            }),
            // Every sector by itself.
            _ => {
                let lens = chance.index(self.lens.len() + 1);
                self.image(durable, lens, |_, versions| {
                    chance.index(versions.len() + 1).checked_sub(1)
                })
            }
        }
    }

    /// The same with the versions left out that change nothing.
    fn distinct(mut self, durable: &Image) -> Self {
        let mut len = durable.len();
        self.lens
            .retain(|&(_, next)| std::mem::replace(&mut len, next) != next);
        self.sectors.retain(|&number, versions| {
            let mut seen = vec![durable.sector(number)];
            versions.retain(|(_, sector)| {
                let is_new = !seen.contains(sector);
                seen.push(*sector);
                is_new
            });
            !versions.is_empty()
        });
        self
    }

    /// How many choices there are; `None` for more than can be counted.
    fn count(&self) -> Option<usize> {
        let sectors = self.sectors.values();
        sectors
            .map(|versions| versions.len() + 1)
            .try_fold(self.lens.len() + 1, |product, choices| {
                product.checked_mul(choices)
            })
    }
}

impl State {
    fn after(&self, image: Image) -> Self {
        let options = SimDiskOptions {
            align_bytes: self.options.align_bytes,
            capacity_bytes: self.options.capacity_bytes,
            ..SimDiskOptions::new(self.options.seed)
        };
        Self::on(options, image)
    }

    fn image_by(&self, volatile: &Volatile, seed: u64) -> Image {
        match seed {
            0 => self.durable.clone(),
            1 => {
                let all = volatile.writes().into_iter().collect();
                volatile.image_of(&self.durable, &all, |_| false)
            }
            _ => {
                let mixed = Chance::new(seed).next() ^ self.options.seed;
                volatile.any_image(&self.durable, &mut Chance::new(mixed))
            }
        }
    }

    pub(super) fn crash(&self, seed: u64) -> Self {
        self.after(self.image_by(&self.volatile(), seed))
    }

    pub(super) fn crash_states(&self, limit: usize, seed: u64) -> CrashStates {
        let volatile = self.volatile();
        let distinct = volatile.clone().distinct(&self.durable);
        let count = distinct.count().filter(|count| *count <= limit);
        CrashStates {
            volatile: if count.is_some() { distinct } else { volatile },
            state: self.clone(),
            left: count.unwrap_or(limit),
            next: 0,
            is_exhaustive: count.is_some(),
            seeds: Chance::new(seed),
            seen: BTreeSet::new(),
        }
    }
}

/// The disks that a loss of power may leave (see [`SimDisk::crash_states`]).
pub struct CrashStates {
    state: State,
    volatile: Volatile,
    left: usize,
    next: usize,
    is_exhaustive: bool,
    seeds: Chance,
    seen: BTreeSet<u64>,
}

impl CrashStates {
    /// Whether these are all of them.
    #[must_use]
    pub fn is_exhaustive(&self) -> bool {
        self.is_exhaustive
    }

    /// The choice of that number: its digits, each in the base of its sector, say which versions landed.
    fn numbered(&self, mut number: usize) -> Image {
        let mut digit = |base: usize| {
            let digit = number % base;
            number /= base;
            digit
        };
        let lens = digit(self.volatile.lens.len() + 1);
        self.volatile
            .image(&self.state.durable, lens, |_, versions| {
                digit(versions.len() + 1).checked_sub(1)
            })
    }

    /// Whether the image is another one than all before. Only a sector past the end can land without a difference.
    fn is_new(&mut self, image: &Image) -> bool {
        self.volatile.lens.is_empty() || self.seen.insert(image.hash())
    }
}

impl Iterator for CrashStates {
    type Item = SimDisk;

    fn next(&mut self) -> Option<SimDisk> {
        while self.left > 0 {
            let number = self.next;
            self.next += 1;
            self.left -= 1;
            let image = if self.is_exhaustive {
                self.numbered(number)
            } else {
                let seed = match number {
                    0 => 0,
                    1 => 1,
                    _ => self.seeds.next() | 2,
                };
                self.state.image_by(&self.volatile, seed)
            };
            if !self.is_exhaustive || self.is_new(&image) {
                return Some(SimDisk::of(self.state.after(image)));
            }
        }
        None
    }
}

impl fmt::Debug for CrashStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashStates")
            .field("left", &self.left)
            .field("is_exhaustive", &self.is_exhaustive)
            .finish_non_exhaustive()
    }
}
