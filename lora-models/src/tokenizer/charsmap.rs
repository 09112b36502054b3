//! The table by which a SentencePiece model normalises characters, checked before it is used.
//!
//! It is a trie in a double array, then the replacements, each ended by a zero byte. The `tokenizers` crate walks it
//! with indices from the table itself, and asks for as much memory as the table claims to have units, so a damaged one
//! would end the program: it is checked here once, unit by unit, so that no walk can leave it.

use serde_json::Value;

/// Checks a table.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn check(table: &[u8]) -> Result<(), String> {
    let fail = |message: &str| Err(format!("its `precompiled_charsmap` {message}"));
    let Some((length, rest)) = table.split_first_chunk::<4>() else {
        return fail("is shorter than its header");
    };
    let length = u32::from_le_bytes(*length) as usize;
    let Some((units, replacements)) = rest.split_at_checked(length) else {
        return fail("is shorter than the trie it says it has");
    };
    let (units, left) = units.as_chunks::<4>();
    if units.is_empty() || !left.is_empty() {
        return fail("has a trie that is no list of units");
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
            return fail("leads out of its trie");
        }
        if current >> 8 & 1 == 1 {
            let value = unit(base).map_or(0, |value| (value & 0x7fff_ffff) as usize);
            if value > replacements.len() || !replacements.is_char_boundary(value) {
                return fail("leads to no replacement");
            }
        }
    }
    Ok(())
}

/// Checks every table in a normalizer of `tokenizer.json`, where they stand in base64.
///
/// # Errors
///
/// What is wrong with the first bad one.
pub(super) fn check_normalizer(normalizer: &Value) -> Result<(), String> {
    tables(normalizer).try_for_each(|text| check(&from_base64(text)?))
}

/// The table of a normalizer of `tokenizer.json`, if it has one.
///
/// # Errors
///
/// Where it is not base64. It is not checked yet.
pub(super) fn first_table(normalizer: &Value) -> Result<Option<Vec<u8>>, String> {
    tables(normalizer).next().map(from_base64).transpose()
}

/// The tables of a normalizer, or of those in its sequence. Sequences in sequences are looked through as well; how
/// deep they go is bounded by the JSON parser.
fn tables(normalizer: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    let own = normalizer
        .get("precompiled_charsmap")
        .and_then(Value::as_str);
    let inner = normalizer.get("normalizers").and_then(Value::as_array);
    Box::new(
        own.into_iter()
            .chain(inner.into_iter().flatten().flat_map(tables)),
    )
}

fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    let digit = |symbol: u8| match symbol {
        b'A'..=b'Z' => Some(symbol - b'A'),
        b'a'..=b'z' => Some(symbol - b'a' + 26),
        b'0'..=b'9' => Some(symbol - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let symbols = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(symbols.len() / 4 * 3 + 3);
    for group in symbols.chunks(4) {
        let mut bits = 0_u32;
        for (place, &symbol) in group.iter().enumerate() {
            let digit = digit(symbol).ok_or("its `precompiled_charsmap` is not base64")?;
            bits |= u32::from(digit) << (18 - 6 * place);
        }
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one block of units, with `units` put over the zeros.
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
            (vec![0, 0, 0, 0], "no list"),
            (vec![5, 0, 0, 0, 1, 1, 1, 1, 1], "no list"),
            (vec![0xff; 100], "shorter"),
            (table(&[(97, 97 | far << 10)], b""), "out of its trie"),
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
