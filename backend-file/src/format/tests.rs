//! The bytes are those of the golden files, and whatever is changed in them is found out.
//!
//! A golden file that has to change is a new version of the format. `LARDER_BLESS=1` writes them anew.

use std::path::PathBuf;

use super::*;

const ID: StoreId = StoreId(*b"golden store id.");

fn guid(number: u128) -> BlobGuid {
    BlobGuid::from_u128(number)
}

fn superblock() -> Superblock {
    Superblock {
        id: ID,
        frame_len: 524_288,
        log_at: 16_384,
        log_sectors: 1_020,
        slots_at: 4_194_304,
    }
}

fn root() -> Root {
    Root {
        seq: 0x0102_0304_0506_0708,
        epoch: 3,
        log_pos: 77,
        blobs: 20_000,
        last: 0x1111_2222_3333_4444_5555_6666_7777_8888,
        chunks_digest: 0x9999,
        chunks: vec![4, 0, 0xffff_0001],
    }
}

fn blobs(count: u32) -> Vec<Blob> {
    let blob = |slot: u32| Blob {
        guid: guid(u128::from(slot) << 64 | 5),
        slot,
        digest: u128::from(slot) + 0xabcd,
    };
    (0..count).map(blob).collect()
}

fn changes(count: u32) -> Vec<Change> {
    let change = |blob: Blob| match blob.slot % 3 {
        2 => Change::Delete(blob.guid),
        _ => Change::Put(blob),
    };
    blobs(count).into_iter().map(change).collect()
}

fn header() -> Header {
    Header {
        kind: Kind::Group,
        seq: 42,
        epoch: 3,
        stable: 41,
        entries: 0,
        previous: 0xfeed,
        body: 0,
        digest: 0,
    }
}

fn record(changes: &[Change]) -> (Header, Vec<u8>) {
    let mut header = header();
    let mut bytes = vec![0xee; record_sectors(changes.len()) * SECTOR_LEN_BYTES];
    let sectors = encode_record(ID, &mut header, changes, &mut bytes);
    assert_eq!(sectors * SECTOR_LEN_BYTES, bytes.len());
    (header, bytes)
}

fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("LARDER_BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(golden == bytes, "{name} is not what this version writes");
}

#[test]
fn what_is_written_is_what_the_golden_files_have() {
    let mut sector = [0xee; SECTOR_LEN_BYTES];
    superblock().encode(&mut sector);
    golden("superblock.bin", &sector);
    root().encode(ID, &mut sector);
    golden("root.bin", &sector);
    encode_chunk(ID, 9, 1, &blobs(5), &mut sector);
    golden("chunk.bin", &sector);
    golden("record.bin", &record(&changes(101)).1);
    let mut mark = Header {
        kind: Kind::Mark,
        ..header()
    };
    encode_record(ID, &mut mark, &[], &mut sector);
    golden("mark.bin", &sector);
    let frame = ID.frame_digest(guid(7), 3, &[1; 4096]);
    golden("frame-digest.bin", &frame.to_le_bytes());
}

#[test]
fn everything_is_read_as_it_was_written() {
    let mut sector = [0; SECTOR_LEN_BYTES];
    assert_eq!(Superblock::decode(&sector), Err(Invalid::Blank));
    assert_eq!(Root::decode(ID, &sector), Err(Invalid::Blank));
    superblock().encode(&mut sector);
    assert_eq!(Superblock::decode(&sector), Ok(superblock()));
    root().encode(ID, &mut sector);
    assert_eq!(Root::decode(ID, &sector), Ok(root()));
    let sum = encode_chunk(ID, 9, 1, &blobs(110), &mut sector);
    let mut read = Vec::new();
    let again = decode_chunk(ID, 9, 1, &sector, &mut |blob| read.push(blob));
    assert_eq!((again, read), (Ok(sum), blobs(110)));
    // Another snapshot's, or another place in it.
    for (seq, index) in [(8, 1), (9, 0)] {
        let other = decode_chunk(ID, seq, index, &sector, &mut |_| {});
        assert_eq!(other, Err(Invalid::Damaged));
    }
}

#[test]
fn records_of_all_lengths_are_read_as_they_were_written() {
    for count in [0, 1, 98, 99, 100, 201, 202, 1_000] {
        let changes = changes(count);
        let (header, bytes) = record(&changes);
        assert_eq!(decode_header(ID, &bytes), Ok(header));
        assert_eq!(header.sectors() * SECTOR_LEN_BYTES, bytes.len());
        assert_eq!(decode_body(ID, &header, &bytes), Ok(changes));
        for (sector, index) in bytes.chunks(SECTOR_LEN_BYTES).zip(0..) {
            assert_eq!(decode_prefix(ID, sector), Sector::Of { seq: 42, index });
        }
        assert!(record_entries_max(header.sectors()) >= wide(count));
    }
}

#[test]
fn no_bit_of_a_header_can_turn_over_unseen() {
    let (mut block, mut top) = ([0; SECTOR_LEN_BYTES], [0; SECTOR_LEN_BYTES]);
    superblock().encode(&mut block);
    root().encode(ID, &mut top);
    let (_, record) = record(&changes(2));
    for bit in 0..HEADER_LEN_BYTES * 8 {
        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        assert_eq!(
            Superblock::decode(&flipped(&block)),
            Err(Invalid::Damaged),
            "bit {bit}"
        );
        assert_eq!(
            Root::decode(ID, &flipped(&top)),
            Err(Invalid::Damaged),
            "bit {bit}"
        );
        assert_eq!(
            decode_header(ID, &flipped(&record)),
            Err(Invalid::Damaged),
            "bit {bit}"
        );
    }
}

#[test]
fn a_header_of_another_store_or_version_is_none_of_ours() {
    let other = StoreId([7; 16]);
    let mut sector = [0; SECTOR_LEN_BYTES];
    root().encode(other, &mut sector);
    assert_eq!(Root::decode(ID, &sector), Err(Invalid::Damaged));
    let (_, bytes) = record(&changes(2));
    assert_eq!(decode_header(other, &bytes), Err(Invalid::Damaged));
    assert_eq!(decode_prefix(other, &bytes), Sector::Damaged);

    superblock().encode(&mut sector);
    put(&mut sector, 8, 2_u32.to_le_bytes());
    let sum = checksum(&sector, &[], 0);
    put(&mut sector, CHECKSUM_AT, sum.to_le_bytes());
    assert_eq!(Superblock::decode(&sector), Err(Invalid::Version(2)));
}

#[test]
fn a_frame_hashes_differently_by_name_slot_and_store() {
    let frame = [1; 4096];
    let here = ID.frame_digest(guid(1), 1, &frame);
    assert_ne!(here, ID.frame_digest(guid(2), 1, &frame));
    assert_ne!(here, ID.frame_digest(guid(1), 2, &frame));
    assert_ne!(here, StoreId([7; 16]).frame_digest(guid(1), 1, &frame));
    assert_eq!(here, ID.frame_digest(guid(1), 1, &frame));
    let mut in_parts = ID.frame_hasher(guid(1), 1);
    frame.chunks(1500).for_each(|part| in_parts.update(part));
    assert_eq!(here, in_parts.digest());
}
