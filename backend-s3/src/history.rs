//! What a row was before: the numbers of the writes that came before the one that is there.
//!
//! A server may answer a write that lost a race by an error that says nothing; Ceph does. By the time the writer looks,
//! the winner may have been replaced as well, and the number in the row alone no longer tells whether the write took
//! effect in between. Since every write replaces a known version, a row that names its predecessors does.

use bytes::{Buf, BufMut};

use crate::mark::Nonce;

/// How many predecessors a row names: more than can come and go while one writer looks again.
const LEN_MAX: usize = 16;

/// The predecessors of a row in short, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History(Vec<u64>);

/// What became of a write that would have replaced a version that is there no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It took effect, whatever came after it.
    Applied,
    /// Another one replaced that version, so this one never will.
    Lost,
    /// The history does not go back so far.
    Forgotten,
}

impl History {
    /// How many bytes a history of `len` predecessors takes.
    pub(crate) fn len_bytes(len: u8) -> usize {
        usize::from(len) * size_of::<u64>()
    }

    /// The history of what replaces the version `nonce` with this history; `None` where there was nothing.
    pub(crate) fn then(&self, nonce: Option<Nonce>) -> Self {
        let latest = nonce.iter().map(Nonce::short);
        let all = latest.chain(self.0.iter().copied());
        Self(all.take(LEN_MAX).collect())
    }

    pub(crate) fn len(&self) -> u8 {
        u8::try_from(self.0.len()).expect("it is within the bound")
    }

    pub(crate) fn encode(&self, mut bytes: impl BufMut) {
        for number in &self.0 {
            bytes.put_u64_le(*number);
        }
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Self {
        let mut all = Vec::with_capacity(bytes.len() / size_of::<u64>());
        while let Ok(number) = bytes.try_get_u64_le() {
            all.push(number);
        }
        Self(all)
    }

    /// What became of `write`, which would have replaced the version `base`, or nothing where that is `None`. This is
    /// the history of the version `now`.
    pub(crate) fn fate(&self, now: Nonce, base: Option<Nonce>, write: Nonce) -> Fate {
        let line = || std::iter::once(now.short()).chain(self.0.iter().copied());
        if line().any(|number| number == write.short()) {
            return Fate::Applied;
        }
        let replaced = match base {
            Some(base) => self.0.contains(&base.short()),
            // It goes back to the first write, which would have been this one.
            None => self.0.len() < LEN_MAX,
        };
        if replaced {
            Fate::Lost
        } else {
            Fate::Forgotten
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mark::Nonces;

    #[test]
    fn a_history_is_read_back() {
        let nonces = Nonces::new();
        let mut history = History::default().then(None);
        for nth in 0..40_u8 {
            assert_eq!(history.len(), nth.min(16));
            let mut bytes = Vec::new();
            history.encode(&mut bytes);
            assert_eq!(bytes.len(), History::len_bytes(history.len()));
            assert_eq!(History::decode(&bytes), history);
            history = history.then(Some(nonces.next()));
        }
    }

    #[test]
    fn a_row_tells_what_became_of_a_write_for_as_long_as_it_remembers() {
        let nonces = Nonces::new();
        let writes: Vec<Nonce> = (0..40).map(|_| nonces.next()).collect();
        let stranger = nonces.next();
        let mut history = History::default();
        for (at, now) in writes.iter().enumerate() {
            for (earlier, write) in writes[..at].iter().enumerate() {
                let base = earlier.checked_sub(1).map(|base| writes[base]);
                let after = at - earlier;
                let of_it = if after <= LEN_MAX {
                    Fate::Applied
                } else {
                    Fate::Forgotten
                };
                // It takes what was replaced, one further back, to know who did not replace it.
                let of_stranger = if after < LEN_MAX {
                    Fate::Lost
                } else {
                    Fate::Forgotten
                };
                assert_eq!(history.fate(*now, base, *write), of_it, "{earlier} {at}");
                assert_eq!(
                    history.fate(*now, base, stranger),
                    of_stranger,
                    "{earlier} {at}"
                );
            }
            // Nothing has replaced what is there.
            assert_eq!(history.fate(*now, Some(*now), stranger), Fate::Forgotten);
            history = history.then(Some(*now));
        }
    }
}
