//! What a store tells of itself.

/// How much a store holds, and what that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many blobs there are.
    pub blobs: usize,
    /// How many frames the file has room for.
    pub slots: usize,
    /// How many of them are free.
    pub free_slots: usize,
    /// How many are out of use until the next open, since a write to them failed.
    pub given_up_slots: usize,
    /// How long the file is, in bytes.
    pub file_len_bytes: u64,
    /// The memory that names, places and hashes of the blobs take, in bytes; buffers are apart.
    pub index_len_bytes: usize,
    /// How many blobs were changed since the last flush began.
    pub unflushed_changes: usize,
    /// How many groups of changes were made durable since the open.
    pub commits: u64,
    /// How many snapshots were written since the open.
    pub snapshots: u64,
}

/// What an open found at the end of the log, and what it did about it.
///
/// After a loss of power it is normal that the last group did not arrive whole: nobody was told that it was durable.
/// The same can be seen if the medium damaged the last group after it was acknowledged, and nobody can tell the two
/// apart. So what was dropped is told here, and never in silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// How many groups were read from the log.
    pub replayed_groups: u64,
    /// How many whole records were dropped, since their frames were not what the record says: 0 or 1.
    pub dropped_groups: u64,
    /// How many blobs those groups would have changed.
    pub dropped_changes: usize,
    /// Whether the log ended in an unfinished or damaged record.
    pub is_tail_torn: bool,
    /// Whether a snapshot was damaged or unfinished. Nothing is lost by that: the one before it and the log have it all.
    pub is_snapshot_damaged: bool,
    /// Whether the last handle was closed in order, or was never opened.
    pub is_clean: bool,
}
