//! Which file an object lies in.
//!
//! The text form of an object's id is reversible and of letters, digits and eight signs, one of which no file name may
//! contain. With that one replaced it is the name of the file, as long as the 255 bytes of a name suffice. Beyond that
//! the name is a cryptographic digest, and the id is known from the file alone. The two never meet: the one always
//! contains `~` and the other never does.
//!
//! Files are spread over folders by a hash of the id, so that no folder grows without measure and no two calls wait for
//! one lock without need.

use larder_traits::ObjectId;
use sha2::{Digest, Sha256};
use twox_hash::XxHash3_64;

/// The longest name of a file.
const NAME_LEN_BYTES_MAX: usize = 255;

/// Stands for the slash of the text form.
const SLASH: &str = "~";

/// What the name of a digest begins with.
const DIGEST: char = '+';

/// Where an object lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// The number of the folder.
    pub(super) shard: u8,
    /// The name of the file there.
    pub(super) file: String,
}

impl Name {
    /// The place of the object with this text form.
    pub(super) fn of(text: &str) -> Self {
        let [shard, ..] = XxHash3_64::oneshot(text.as_bytes()).to_le_bytes();
        let file = if text.len() <= NAME_LEN_BYTES_MAX {
            text.replacen('/', SLASH, 1)
        } else {
            let mut name = String::from(DIGEST);
            for byte in Sha256::digest(text.as_bytes()) {
                name.push_str(&format!("{byte:02x}"));
            }
            name
        };
        Self { shard, file }
    }
}

/// The name of a folder of files.
pub(super) fn folder(shard: u8) -> String {
    format!("{shard:02x}")
}

/// What the name of a file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Which object lies in it.
    Id(ObjectId),
    /// That this stands in the file.
    Digest,
    /// Nothing: no object lies under such a name.
    Nothing,
}

/// The inverse of [`Name::of`], as far as there is one.
pub(super) fn says(file: &str) -> Says {
    let (context, key) = match file.split_once(SLASH) {
        Some(parts) => parts,
        None => {
            let is_digest = file.strip_prefix(DIGEST).is_some_and(|digest| {
                let mut digits = digest.bytes();
                digest.len() == 64 && digits.all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
            });
            return if is_digest {
                Says::Digest
            } else {
                Says::Nothing
            };
        }
    };
    match format!("{context}/{key}").parse() {
        Ok(id) => Says::Id(id),
        Err(_no_text_form) => Says::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_traits::{ObjectContext, Scope};
    use proptest::prelude::*;

    fn id(parts: &[String]) -> ObjectId {
        let scopes = parts[2..].chunks_exact(2);
        let scopes = scopes.map(|it| Scope::new(&*it[0], &*it[1])).collect();
        ObjectId::new(ObjectContext::new(&*parts[0], scopes), &*parts[1])
    }

    /// Short and long parts, of plain and of odd characters.
    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c~/%+.;=]{0,3}",
            "[a-z]{0,20}",
            ".{0,12}",
            (0..300_usize).prop_map(|len| "x".repeat(len)),
        ]
    }

    proptest! {
        #[test]
        fn a_name_is_one_that_a_file_may_have_and_leads_back(
            parts in proptest::collection::vec(part(), 2..8),
        ) {
            let id = id(&parts);
            let text = id.to_string();
            let name = Name::of(&text);
            prop_assert!((1..=NAME_LEN_BYTES_MAX).contains(&name.file.len()));
            prop_assert!(!name.file.contains(['/', '\0']) && name.file.is_ascii());
            prop_assert!(name.file != "." && name.file != "..");
            match says(&name.file) {
                Says::Id(back) => prop_assert_eq!(back, id),
                says => {
                    prop_assert_eq!(says, Says::Digest);
                    prop_assert!(text.len() > NAME_LEN_BYTES_MAX);
                }
            }
            prop_assert_eq!(Name::of(&text), name);
        }

        #[test]
        fn two_objects_never_share_a_file(
            one in proptest::collection::vec(part(), 2..6),
            other in proptest::collection::vec(part(), 2..6),
        ) {
            let (one, other) = (id(&one), id(&other));
            let (a, b) = (Name::of(&one.to_string()), Name::of(&other.to_string()));
            prop_assert_eq!(one == other, a.file == b.file);
        }

        #[test]
        fn any_name_says_something_that_leads_to_it(file in "[a-c~/%+.;=]{0,8}|.{0,20}") {
            if let Says::Id(id) = says(&file) {
                prop_assert_eq!(Name::of(&id.to_string()).file, file);
            }
        }
    }

    #[test]
    fn ids_at_the_longest_name_differ_by_their_last_byte() {
        let ids = [252, 253, 254, 255, 2_000].map(|len| {
            let key = |end| format!("{}{end}", "k".repeat(len - 1));
            [1, 2].map(|end| ObjectId::new(ObjectContext::new("u", Vec::new()), key(end)))
        });
        let mut names: Vec<_> = ids
            .iter()
            .flatten()
            .map(|id| Name::of(&id.to_string()).file)
            .collect();
        assert_eq!(
            names.iter().map(String::len).max(),
            Some(NAME_LEN_BYTES_MAX)
        );
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 10);
    }

    #[test]
    fn what_is_no_name_of_an_object_says_nothing() {
        for file in ["", "a", "x.tmp", "+", "+0", "a~b~c", "a~%41", "..", "+zz~"] {
            assert_eq!(says(file), Says::Nothing, "{file}");
        }
    }
}
