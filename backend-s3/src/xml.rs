//! What answers say in XML, element by element: nothing of a page of a listing is kept that nobody asks for.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

/// Calls `each` where an element below `root` ends, with how deep below it lies, its name and its text.
///
/// # Errors
///
/// Why it is no such document; a document that breaks off is none.
pub(crate) fn read(
    document: &[u8],
    root: &str,
    mut each: impl FnMut(usize, &str, &str) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = Reader::from_reader(document);
    let (mut depth, mut begun) = (0, false);
    // One for all elements: a listing has thousands of them.
    let mut text = String::new();
    loop {
        let event = reader.read_event();
        match event.map_err(|e| format!("that is no XML: {e}"))? {
            Event::Start(element) => {
                if depth == 0 && (begun || element.local_name().into_inner() != root) {
                    return Err(format!("that is no {root}"));
                }
                begun = true;
                depth += 1;
                text.clear();
            }
            Event::Empty(element) if depth > 0 => {
                each(depth, element.local_name().into_inner(), "")?;
                text.clear();
            }
            Event::End(element) => {
                // The reader has seen that it ends what began last.
                depth -= 1;
                if depth > 0 {
                    each(depth, element.local_name().into_inner(), &text)?;
                }
                text.clear();
            }
            Event::Text(more) => text.push_str(&more),
            Event::CData(more) => text.push_str(&more),
            Event::GeneralRef(name) => match name.resolve_char_ref() {
                Ok(Some(letter)) => text.push(letter),
                _ => {
                    let letters = resolve_predefined_entity(&name);
                    text.push_str(letters.ok_or("with a letter that nobody knows")?);
                }
            },
            Event::Eof if begun && depth == 0 => return Ok(()),
            Event::Eof => return Err("that breaks off".into()),
            Event::Empty(_) => return Err(format!("that is no {root}")),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(document: &str) -> Result<Vec<(usize, String, String)>, String> {
        let mut found = Vec::new();
        read(document.as_bytes(), "a", |depth, name, text| {
            found.push((depth, name.to_owned(), text.to_owned()));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn elements_come_with_their_own_text() {
        let document = "<?xml version=\"1.0\"?>\n<a xmlns=\"b:c\"><b>1</b> <!-- 2 --><c><d>3&lt;&#52;</d><e/></c>\
                        <n:f x=\"y\"><![CDATA[5<]]>6</n:f></a>\n";
        let found = elements(document).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(at, name, text)| (*at, &name[..], &text[..]))
            .collect();
        let expected = [
            (1, "b", "1"),
            (2, "d", "3<4"),
            (2, "e", ""),
            (1, "c", ""),
            (1, "f", "5<6"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        let document = "<a><b>plum &amp; jam</b><c><d>1</d></c></a>";
        elements(document).unwrap();
        for end in 0..document.len() {
            elements(&document[..end]).unwrap_err();
        }
        for odd in [
            "<b></b>",
            "<b/>",
            "<a/>",
            "<a></a><a></a>",
            "<a></b>",
            "</a>",
            "<a>&plum;</a>",
            "<a><b></a></b>",
            "plum",
            "<a>&#x110000;</a>",
        ] {
            elements(odd).unwrap_err();
        }
        read(b"<a>\xff</a>", "a", |_, _, _| Ok(())).unwrap_err();
        let refused = read(b"<a><b/></a>", "a", |_, _, _| Err("no".into()));
        assert_eq!(refused.unwrap_err(), "no");
    }
}
