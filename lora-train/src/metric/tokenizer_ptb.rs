//! Words as `pycocoevalcap`'s `PTBTokenizer` gives them to `CIDEr`: those of the Penn Treebank in lower case, without punctuation.
//!
//! The original is Stanford's tokenizer in Java. These rules give the same words for 5500 of the 5502 different texts of
//! `examples/data/e2e` and of the tests' slice of DART, which a test counts. `python scripts/fixtures.py train/texts` runs
//! Stanford's tokenizer on them. Texts differ in rare abbreviations, of which Stanford's knows hundreds and tells some by their case
//! (`Ill.`, but not `ill.`). Web addresses, markup and other scripts than the Latin one are beyond these rules.

/// Punctuation that is left out.
const PUNCTUATION: [&str; 16] = [
    "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", "\"", "…", "–",
];

/// Abbreviations that keep their period, `no` only before a number.
const ABBREVIATIONS: [&str; 33] = [
    "dr", "mr", "mrs", "ms", "jr", "sr", "st", "prof", "gen", "col", "lt", "capt", "sgt", "rev",
    "gov", "sen", "rep", "inc", "co", "corp", "ltd", "vs", "no", "etc", "bros", "mt", "ft", "u.s",
    "ala", "ark", "blvd", "adv", "ill",
];

/// Ends of contractions, which are words of their own.
const CONTRACTIONS: [&str; 7] = ["n't", "'s", "'re", "'ve", "'ll", "'d", "'m"];

/// Splits a text into words.
pub(super) fn tokenize(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let text = text
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let mut words = Vec::new();
    let apart = set_apart(&text);
    let mut parts = apart.split_whitespace().peekable();
    while let Some(part) = parts.next() {
        let next = parts.peek();
        let before_number = next.is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit()));
        split(part, before_number, &mut words);
    }
    words.retain(|word| !PUNCTUATION.contains(&word.as_str()));
    words.into_iter().map(named).collect()
}

/// Surrounds symbols that are words of their own with spaces.
fn set_apart(text: &str) -> String {
    let mut apart = String::with_capacity(text.len() + text.len() / 4);
    let mut before = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let after = characters.peek();
        let is_digit = |c: Option<&char>| c.is_some_and(char::is_ascii_digit);
        let is_apart = match c {
            ':' => !(is_digit(before.as_ref()) && is_digit(after)),
            '+' => !is_digit(after),
            '#'
            | '$'
            | '%'
            | '&'
            | '('
            | ')'
            | '*'
            | ';'
            | '<'..='@'
            | '['
            | '\\'
            | ']'
            | '^'
            | '`'
            | '{'..='~'
            | '!'
            | '"'
            | '£'
            | '€'
            | '…'
            | '–'
            | '—'
            | '“'
            | '”' => true,
            _ => false,
        };
        match c {
            '“' | '”' => apart.push_str(" \" "),
            '—' => apart.push_str(" – "),
            '‘' | '’' => apart.push('\''),
            c if is_apart => apart.extend([' ', c, ' ']),
            c => apart.push(c),
        }
        before = Some(c);
    }
    apart.replace("--", " – ").replace("...", " … ")
}

/// Splits a part without white space at commas, contractions and the punctuation around it. `before_number` tells of the next part.
fn split(part: &str, before_number: bool, words: &mut Vec<String>) {
    let is_abbreviation =
        |word: &str| ABBREVIATIONS.contains(&word) && (word != "no" || before_number);
    let mut rest = part;
    loop {
        let mut characters = rest.chars();
        let (first, second) = (characters.next(), characters.next());
        let opens = matches!(first, Some('\'' | '.' | ',' | '-')) && second.is_some();
        let is_number = second.is_some_and(|c| c.is_ascii_digit()) && first != Some('\'');
        if !opens || is_number || CONTRACTIONS.contains(&rest) {
            break;
        }
        rest = &rest[1..];
    }
    while rest.chars().count() > 1 && rest.ends_with(['.', ',', '\'', '-']) {
        let without = &rest[..rest.len() - 1];
        if rest.ends_with('.') && (is_abbreviation(without) || are_initials(rest)) {
            break;
        }
        rest = without;
    }
    for word in split_commas(rest) {
        let mut contractions = CONTRACTIONS.iter();
        let found = contractions.find_map(|end| {
            let start = word.strip_suffix(end)?;
            (!start.is_empty()).then_some([start, end])
        });
        match found {
            _ if word == "cannot" => words.extend(["can".into(), "not".into()]),
            Some(parts) => words.extend(parts.map(String::from)),
            None => words.push(word.to_string()),
        }
    }
}

/// Returns true for letters with a period each, such as `a.c.`.
fn are_initials(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len().is_multiple_of(2)
        && bytes
            .chunks_exact(2)
            .all(|pair| pair[0].is_ascii_lowercase() && pair[1] == b'.')
}

/// Splits at commas that are not between digits.
fn split_commas(word: &str) -> Vec<&str> {
    let bytes = word.as_bytes();
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in word.match_indices(',') {
        let is_digit = |at: Option<usize>| {
            let byte = at.and_then(|at| bytes.get(at));
            byte.is_some_and(u8::is_ascii_digit)
        };
        if !(is_digit(at.checked_sub(1)) && is_digit(Some(at + 1))) {
            parts.push(&word[start..at]);
            start = at + 1;
        }
    }
    parts.push(&word[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Returns the name of a bracket or a currency in the Penn Treebank; other words are as they are.
fn named(word: String) -> String {
    let name = match word.as_str() {
        "(" => "-lrb-",
        ")" => "-rrb-",
        "[" => "-lsb-",
        "]" => "-rsb-",
        "{" => "-lcb-",
        "}" => "-rcb-",
        "£" => "#",
        "€" => "$",
        _ => return word,
    };
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::HashSet;
    use std::path::Path;

    /// Number of different texts, and of those with the same words.
    const TEXTS: usize = 5502;
    const SAME: usize = 5500;

    /// Hashes of Stanford's words, which `tests/fixtures/texts/generate.py` wrote.
    #[test]
    fn nearly_all_texts_have_stanford_s_words() {
        let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |name: &str| std::fs::read_to_string(crate_dir.join(name)).unwrap();
        let stored: Value = serde_json::from_str(&read("tests/fixtures/texts/words.json")).unwrap();
        let mut texts = Vec::new();
        for name in ["train.txt", "held_out.txt"] {
            let lines = read(&format!("../examples/data/e2e/{name}"));
            let references = lines.lines().map(|line| line.split_once("||").unwrap().1);
            texts.extend(references.map(|text| text.trim().to_string()));
        }
        let dart: Value =
            serde_json::from_str(&read("tests/fixtures/texts/data/dart.json")).unwrap();
        for entry in dart.as_array().unwrap() {
            let annotations = entry["annotations"].as_array().unwrap().iter();
            let own = annotations.map(|it| it["text"].as_str().unwrap().trim().to_string());
            texts.extend(own);
        }
        let mut seen = HashSet::new();
        texts.retain(|text| seen.insert(text.clone()));
        let hashes: Vec<&str> = stored["hashes"].as_str().unwrap().split(' ').collect();
        assert_eq!((texts.len(), hashes.len()), (TEXTS, TEXTS));
        let fnv1a = |text: &str| {
            let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            format!("{:08x}", text.bytes().fold(0x811c_9dc5, mix))
        };
        let pairs = texts.iter().zip(hashes);
        let (same, other): (Vec<_>, Vec<_>) =
            pairs.partition(|(text, hash)| fnv1a(&tokenize(text).join(" ")) == *hash);
        // The documentation of the module has both numbers.
        let other: Vec<&String> = other.into_iter().map(|(text, _)| text).collect();
        assert_eq!(same.len(), SAME, "{other:#?}");
    }

    /// Words of `PTBTokenizer` of pycocoevalcap 1.2.
    #[test]
    fn texts_are_split_as_stanford_s_tokenizer_splits_them() {
        for (text, expected) in [
            (
                "The Mill's pub isn't cheap.",
                "the mill 's pub is n't cheap",
            ),
            ("It costs £20-25, or \"more\"!", "it costs # 20-25 or more"),
            ("family - friendly (yes)", "family friendly -lrb- yes -rrb-"),
            (
                "A.C. Milan of the U.S. cannot win",
                "a.c. milan of the u.s. can not win",
            ),
            (
                "In 1,000 days; 14l/32r at 9:30",
                "in 1,000 days 14l/32r at 9:30",
            ),
            ("Madrid–Barajas, Dr. No", "madrid barajas dr. no"),
            ("isn 't", "isn t"),
            (
                "No. 5 is cheap? The answer is no. It is the rep.",
                "no. 5 is cheap the answer is no it is the rep.",
            ),
            ("...", ""),
        ] {
            assert_eq!(tokenize(text).join(" "), expected, "{text}");
        }
    }
}
