//! The search's memory of where it has been.
//!
//! Two ways of ordering the same calls that end in the same state have the same future, so the second one need not be tried
//! (Lowe's improvement of the search). A configuration is kept whole and compared whole: a hash only finds it, so that no
//! collision can ever turn into a wrong verdict.

use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Configurations already visited.
#[derive(Debug)]
pub(super) struct Memo<S> {
    /// Positions in `entries` plus one, 0 for free; the length is a power of two.
    table: Vec<usize>,
    entries: Vec<Visited<S>>,
    /// The words of all entries, one after the other.
    words: Vec<u64>,
}

#[derive(Debug)]
struct Visited<S> {
    hash: u64,
    words_from: usize,
    words_to: usize,
    state: S,
}

const TABLE_LEN_MIN: usize = 64;

impl<S: Eq + Hash> Memo<S> {
    pub(super) const fn new() -> Self {
        Self {
            table: Vec::new(),
            entries: Vec::new(),
            words: Vec::new(),
        }
    }

    /// What the memory costs by now, with a state that keeps so much on the heap.
    pub(super) const fn bytes(&self, state_heap_bytes: usize) -> usize {
        let entry_bytes = size_of::<Visited<S>>() + state_heap_bytes;
        self.table.len() * size_of::<usize>()
            + self.entries.len() * entry_bytes
            + self.words.len() * size_of::<u64>()
    }

    /// Remembers a configuration; `false` if it was known.
    pub(super) fn insert(&mut self, words: &[u64], state: S) -> bool {
        if self.table.len() < (self.entries.len() + 1) * 2 {
            self.grow();
        }
        let mut mix = Mix(0);
        words.hash(&mut mix);
        state.hash(&mut mix);
        let hash = mix.finish();
        let mask = self.table.len() - 1;
        let mut at = place(hash, mask);
        while let Some(known) = self.table[at].checked_sub(1) {
            let known = &self.entries[known];
            if known.hash == hash
                && self.words[known.words_from..known.words_to] == *words
                && known.state == state
            {
                return false;
            }
            at = (at + 1) & mask;
        }
        let words_from = self.words.len();
        self.words.extend_from_slice(words);
        self.entries.push(Visited {
            hash,
            words_from,
            words_to: self.words.len(),
            state,
        });
        self.table[at] = self.entries.len();
        true
    }

    fn grow(&mut self) {
        let len = (self.table.len() * 2).max(TABLE_LEN_MIN);
        self.table.clear();
        self.table.resize(len, 0);
        for (position, entry) in self.entries.iter().enumerate() {
            let mut at = place(entry.hash, len - 1);
            while self.table[at] != 0 {
                at = (at + 1) & (len - 1);
            }
            self.table[at] = position + 1;
        }
    }
}

/// The high bits of a multiplicative hash are its good ones.
fn place(hash: u64, mask: usize) -> usize {
    let high = usize::try_from(hash >> 32).expect("half of a 64-bit number fits");
    high & mask
}

/// A small multiplicative hash: the same on every machine and in every run, and fast on the few words of a configuration.
///
/// It does not withstand chosen collisions. Who chooses them for a history of their own only waits longer for its verdict.
#[derive(Default)]
pub(super) struct Mix(u64);

/// For maps from the names in a history.
pub(super) type Quick = BuildHasherDefault<Mix>;

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        (self.0 ^ (self.0 >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
}

#[cfg(test)]
mod tests {
    use super::Memo;

    #[test]
    fn knows_what_it_was_told_and_nothing_else() {
        let mut memo = Memo::new();
        for word in 0..5_000_u64 {
            assert!(memo.insert(&[word, word / 7], 1_u32));
            assert!(
                memo.insert(&[word, word / 7], 2_u32),
                "the state is part of the configuration"
            );
            assert!(memo.insert(&[word], 1_u32), "so is the length");
        }
        for word in 0..5_000_u64 {
            assert!(!memo.insert(&[word, word / 7], 1_u32));
            assert!(!memo.insert(&[word, word / 7], 2_u32));
            assert!(!memo.insert(&[word], 1_u32));
        }
        assert!(memo.bytes(0) > 15_000 * 8);
    }
}
