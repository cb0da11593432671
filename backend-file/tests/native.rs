//! What the folder of a place is, beyond the contracts of what lies in it.

use std::fs;

use larder_file::{FilePlace, FilePlaceConfig};
use larder_traits::{BlobGuid, BlobStore, Classify, ErrorKind, Outcome};

#[test]
fn a_folder_is_made_and_the_one_it_lies_in_is_not() {
    let scratch = tempfile::tempdir().unwrap();
    let open = |name: &str| FilePlace::open(FilePlaceConfig::new(scratch.path().join(name)));
    open("pantry").unwrap();
    open("pantry").unwrap();
    let mistyped = open("panrty/shelf").unwrap_err();
    assert_eq!(
        (mistyped.kind(), mistyped.outcome()),
        (ErrorKind::NotFound, Outcome::NotApplied)
    );
    fs::write(scratch.path().join("note"), "a file").unwrap();
    assert_eq!(open("note").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(fs::read(scratch.path().join("note")).unwrap(), b"a file");
}

#[test]
fn the_frame_store_is_open_once_and_shared_within_a_place() {
    let scratch = tempfile::tempdir().unwrap();
    let config = FilePlaceConfig::new(scratch.path().join("pantry"));
    let place = FilePlace::open(config.clone()).unwrap();
    let one = place.blob_store().unwrap();
    let other = place.blob_store().unwrap();
    let guid = BlobGuid::from_u128(1);
    let mut frame = one.alloc_blob_buf_zeroed();
    frame.fill(7);
    one.write_blob(guid, &frame).unwrap();
    assert!(other.has_blob(guid).unwrap());

    let second = FilePlace::open(config.clone()).unwrap();
    assert_eq!(second.blob_store().unwrap_err().kind(), ErrorKind::Conflict);
    one.flush().unwrap();
    drop((place, one, other));
    assert!(second.blob_store().unwrap().has_blob(guid).unwrap());
}

#[tokio::test]
async fn a_place_is_erased_and_what_is_not_its_own_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("pantry");
    let place = FilePlace::open(FilePlaceConfig::new(&folder)).unwrap();
    drop(place.blob_store().unwrap());
    drop(place.backend().await.unwrap());
    drop(place.change_log().await.unwrap());
    drop(place);
    fs::write(folder.join("note"), "mine").unwrap();
    FilePlace::erase(&folder).expect_err("the folder is not empty");
    let left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    assert_eq!(left, ["note"]);
    fs::remove_file(folder.join("note")).unwrap();
    FilePlace::erase(&folder).unwrap();
    assert!(!folder.exists());
    FilePlace::erase(&folder).unwrap();
}
