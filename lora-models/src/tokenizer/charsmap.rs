//! Table by which a SentencePiece model normalizes characters, checked before it is used.
//!
//! The table is a trie in a double array, followed by the replacements, each ended by a zero byte. The `tokenizers`
//! crate walks the trie with indices from the table itself, and allocates as much memory as the table claims to need.
//! A damaged table would end the program, so every unit is checked here once, and no walk can leave the table.

use serde_json::Value;

/// Checks a table.
///
/// # Errors
/// A description of what is wrong with the table.
pub(super) fn check(table: &[u8]) -> Result<(), String> {
    let fail = |message: &str| Err(format!("its `precompiled_charsmap` {message}"));
    let Some((length, rest)) = table.split_first_chunk::<4>() else {
        return fail("is shorter than its header");
    };
    let length = u32::from_le_bytes(*length) as usize;
    let Some((units, replacements)) = rest.split_at_checked(length) else {
        return fail("is shorter than its trie");
    };
    let (units, left) = units.as_chunks::<4>();
    if units.is_empty() || !left.is_empty() {
        return fail("has a trie that is not a list of units");
    }
    let Ok(replacements) = std::str::from_utf8(replacements) else {
        return fail("has replacements that are not UTF-8");
    };
    let unit = |index: usize| units.get(index).map(|bytes| u32::from_le_bytes(*bytes));
    for (index, bytes) in units.iter().enumerate() {
        let current = u32::from_le_bytes(*bytes);
        if current >> 31 == 1 {
            continue; // A value, which no walk goes on from.
        }
        let offset = (current >> 10) << ((current & (1 << 9)) >> 6);
        let base = index ^ offset as usize;
        // Any byte of a text may be added to the base.
        if base | 0xff >= units.len() {
            return fail("points outside its trie");
        }
        if current >> 8 & 1 == 1 {
            let value = unit(base).map_or(0, |value| (value & 0x7fff_ffff) as usize);
            if value > replacements.len() || !replacements.is_char_boundary(value) {
                return fail("points to no replacement");
            }
        }
    }
    Ok(())
}

/// Checks every table in a normalizer of `tokenizer.json`, where they are stored in base64.
///
/// # Errors
/// A description of what is wrong with the first bad table.
pub(super) fn check_normalizer(normalizer: &Value) -> Result<(), String> {
    tables(normalizer).try_for_each(|text| check(&from_base64(text)?))
}

/// Returns the first table of a normalizer of `tokenizer.json`, decoded but not checked.
///
/// # Errors
/// A description of what is wrong with the base64.
pub(super) fn first_table(normalizer: &Value) -> Result<Option<Vec<u8>>, String> {
    tables(normalizer).next().map(from_base64).transpose()
}

/// Returns the tables of a normalizer and of all normalizers in its sequences. The JSON parser bounds the depth of
/// nesting.
fn tables(normalizer: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    let own = normalizer.get("precompiled_charsmap").into_iter();
    let inner = normalizer.get("normalizers").and_then(Value::as_array);
    let inner = inner.into_iter().flatten().flat_map(tables);
    Box::new(own.filter_map(Value::as_str).chain(inner))
}

fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    base64::decode(text).map_err(|err| format!("its `precompiled_charsmap` is not base64: {err}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a table of one block of units, zero but for `units`.
    fn table(units: &[(usize, u32)], replacements: &[u8]) -> Vec<u8> {
        let mut trie = vec![0_u32; 256];
        for &(index, unit) in units {
            trie[index] = unit;
        }
        let mut bytes = 1024_u32.to_le_bytes().to_vec();
        bytes.extend(trie.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(replacements);
        bytes
    }

    #[test]
    fn a_table_that_keeps_to_itself_passes() {
        // Unit 97 is reached by "a", has a value, and finds it at 97 ^ 2.
        let good = table(&[(97, 97 | 1 << 8 | 2 << 10), (99, 1 << 31 | 1)], b"\0b\0");
        check(&good).unwrap();
        let found = tokenizers::normalizers::Precompiled::from(&good).unwrap();
        assert_eq!(found.transform("a"), Some("b"));
    }

    #[test]
    fn a_table_that_leads_astray_is_refused() {
        let far = 1 << 20;
        for (bad, part) in [
            (Vec::new(), "header"),
            (vec![1, 2, 3], "header"),
            (vec![0, 0, 0, 0], "not a list"),
            (vec![5, 0, 0, 0, 1, 1, 1, 1, 1], "not a list"),
            (vec![0xff; 100], "shorter"),
            (table(&[(97, 97 | far << 10)], b""), "outside its trie"),
            (
                table(&[(97, 97 | 1 << 8), (97 ^ 1, 9)], b"b\0"),
                "no replacement",
            ),
            (
                table(&[(97, 97 | 1 << 8 | 2 << 10), (99, 1 << 31 | 9)], b"b\0"),
                "no replacement",
            ),
            (
                table(
                    &[(97, 97 | 1 << 8 | 2 << 10), (99, 1 << 31 | 1)],
                    "é".as_bytes(),
                ),
                "no replacement",
            ),
            (table(&[], b"\xff"), "UTF-8"),
        ] {
            let message = check(&bad).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("YQ==", b"a"),
            ("YWI=", b"ab"),
            ("YWJj", b"abc"),
            ("+/+/AA==", b"\xfb\xff\xbf\0"),
        ] {
            assert_eq!(from_base64(text).unwrap(), bytes, "{text}");
        }
        assert!(from_base64("a b").is_err());
    }

    #[test]
    fn tables_are_found_in_sequences() {
        let json = serde_json::json!({"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
        ]});
        assert_eq!(first_table(&json).unwrap(), Some(vec![0, 0, 0]));
        assert!(check_normalizer(&json).is_err());
        assert_eq!(first_table(&Value::Null).unwrap(), None);
    }
}
