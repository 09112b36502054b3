//! Porter's stemmer with the extensions of NLTK (`nltk.stem.PorterStemmer`), which `rouge_score` uses.
//!
//! Porter, *An Algorithm for Suffix Stripping*, 1980. NLTK's extensions are short words, irregular forms and the rules marked
//! below; Snowball's English stemmer (Porter2) is another algorithm.

/// Stems of forms that the rules would not find.
const IRREGULAR: [(&str, &str); 14] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
];
/// Further forms that are their own stems.
const UNCHANGED: [&str; 2] = ["exceed", "succeed"];

/// Condition on the text before a suffix.
type Condition = fn(&str) -> bool;
/// Suffix, its replacement, and the condition.
type Rule = (&'static str, &'static str, Condition);

/// Returns the stem of a word of ASCII letters in lower case and digits.
pub(super) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*stem).to_string();
    }
    if word.len() <= 2 || UNCHANGED.contains(&word) {
        return word.to_string();
    }
    let word = plural(word);
    let word = past(&word);
    let word = final_y(&word);
    let word = double_suffix(word);
    let word = apply(&word, &STEP_3).unwrap_or(word);
    let word = apply(&word, &STEP_4).unwrap_or(word);
    let word = final_e(word);
    match word.strip_suffix('l') {
        Some(rest) if rest.ends_with('l') && measure(rest) > 1 => rest.to_string(),
        _ => word,
    }
}

/// Applies the first rule whose suffix the word has, if its condition holds; `None` if nothing changes.
fn apply(word: &str, rules: &[Rule]) -> Option<String> {
    let mut rules = rules.iter();
    let found = rules.find_map(|rule| Some((word.strip_suffix(rule.0)?, rule)));
    let (stem, (_, replacement, condition)) = found?;
    condition(stem).then(|| format!("{stem}{replacement}"))
}

/// Returns true for each letter that is a consonant. A `y` is one at the start, and after a vowel.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for letter in word.bytes() {
        let is_consonant = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => flags.last().is_none_or(|before| !before),
            _ => true,
        };
        flags.push(is_consonant);
    }
    flags
}

/// Counts the vowels that a consonant follows: Porter's m.
fn measure(stem: &str) -> usize {
    let flags = consonants(stem);
    flags.windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

fn is_measured(stem: &str) -> bool {
    measure(stem) > 0
}

fn is_long(stem: &str) -> bool {
    measure(stem) > 1
}

fn always(_: &str) -> bool {
    true
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).contains(&false)
}

fn ends_in_double_consonant(word: &str) -> bool {
    match word.as_bytes() {
        [.., a, b] => a == b && consonants(word).last() == Some(&true),
        _ => false,
    }
}

/// Returns true for a short last syllable, as in `hop`; in NLTK also in a word of two letters, as in `at`.
fn ends_in_short_syllable(word: &str) -> bool {
    match consonants(word).as_slice() {
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        [false, true] => true,
        _ => false,
    }
}

/// Step 1a. In NLTK, `dies` becomes `die`.
fn plural(word: &str) -> String {
    const RULES: [Rule; 4] = [
        ("sses", "ss", always),
        ("ies", "i", always),
        ("ss", "ss", always),
        ("s", "", always),
    ];
    match word.strip_suffix("ies") {
        Some(stem) if stem.len() == 1 => format!("{stem}ie"),
        _ => apply(word, &RULES).unwrap_or_else(|| word.to_string()),
    }
}

/// Step 1b. In NLTK, `died` becomes `die` and `spied` `spi`.
fn past(word: &str) -> String {
    const RULES: [Rule; 3] = [
        ("at", "ate", always),
        ("bl", "ble", always),
        ("iz", "ize", always),
    ];
    if let Some(stem) = word.strip_suffix("ied") {
        let end = if stem.len() == 1 { "ie" } else { "i" };
        return format!("{stem}{end}");
    }
    if let Some(stem) = word.strip_suffix("eed") {
        let end = if is_measured(stem) { "ee" } else { "eed" };
        return format!("{stem}{end}");
    }
    let stems = ["ed", "ing"].into_iter();
    let mut stems = stems.filter_map(|suffix| word.strip_suffix(suffix));
    let Some(stem) = stems.find(|stem| has_vowel(stem)) else {
        return word.to_string();
    };
    if let Some(longer) = apply(stem, &RULES) {
        return longer;
    }
    if ends_in_double_consonant(stem) {
        let keeps = stem.ends_with(['l', 's', 'z']);
        return stem[..stem.len() - usize::from(!keeps)].to_string();
    }
    let is_short = measure(stem) == 1 && ends_in_short_syllable(stem);
    format!("{stem}{}", if is_short { "e" } else { "" })
}

/// Step 1c, by NLTK's condition: after a consonant that is not the first letter.
fn final_y(word: &str) -> String {
    match word.strip_suffix('y') {
        Some(stem) if stem.len() > 1 && consonants(stem).last() == Some(&true) => {
            format!("{stem}i")
        }
        _ => word.to_string(),
    }
}

/// Step 2.
fn double_suffix(word: String) -> String {
    const RULES: [Rule; 21] = [
        ("ational", "ate", is_measured),
        ("tional", "tion", is_measured),
        ("enci", "ence", is_measured),
        ("anci", "ance", is_measured),
        ("izer", "ize", is_measured),
        ("bli", "ble", is_measured),
        ("alli", "al", is_measured),
        ("entli", "ent", is_measured),
        ("eli", "e", is_measured),
        ("ousli", "ous", is_measured),
        ("ization", "ize", is_measured),
        ("ation", "ate", is_measured),
        ("ator", "ate", is_measured),
        ("alism", "al", is_measured),
        ("iveness", "ive", is_measured),
        ("fulness", "ful", is_measured),
        ("ousness", "ous", is_measured),
        ("aliti", "al", is_measured),
        ("iviti", "ive", is_measured),
        ("biliti", "ble", is_measured),
        // NLTK's.
        ("fulli", "ful", is_measured),
    ];
    match word.strip_suffix("alli") {
        // NLTK goes on with what this rule makes.
        Some(stem) if is_measured(stem) => return double_suffix(format!("{stem}al")),
        _ => {}
    }
    if let Some(stem) = word.strip_suffix("logi") {
        // Here the `l` belongs to the stem.
        let is_measured = is_measured(&word[..word.len() - 3]);
        return if is_measured {
            format!("{stem}log")
        } else {
            word
        };
    }
    apply(&word, &RULES).unwrap_or(word)
}

/// Step 3.
const STEP_3: [Rule; 7] = [
    ("icate", "ic", is_measured),
    ("ative", "", is_measured),
    ("alize", "al", is_measured),
    ("iciti", "ic", is_measured),
    ("ical", "ic", is_measured),
    ("ful", "", is_measured),
    ("ness", "", is_measured),
];

/// Step 4.
const STEP_4: [Rule; 19] = [
    ("al", "", is_long),
    ("ance", "", is_long),
    ("ence", "", is_long),
    ("er", "", is_long),
    ("ic", "", is_long),
    ("able", "", is_long),
    ("ible", "", is_long),
    ("ant", "", is_long),
    ("ement", "", is_long),
    ("ment", "", is_long),
    ("ent", "", is_long),
    ("ion", "", |stem| {
        is_long(stem) && stem.ends_with(['s', 't'])
    }),
    ("ou", "", is_long),
    ("ism", "", is_long),
    ("ate", "", is_long),
    ("iti", "", is_long),
    ("ous", "", is_long),
    ("ive", "", is_long),
    ("ize", "", is_long),
];

/// Step 5a.
fn final_e(word: String) -> String {
    match word.strip_suffix('e') {
        Some(stem) if is_long(stem) || (is_measured(stem) && !ends_in_short_syllable(stem)) => {
            stem.to_string()
        }
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// `nltk.stem.PorterStemmer()` of the words of E2E and DART, and of some for every rule.
    #[test]
    fn words_are_stemmed_as_nltk_stems_them() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/texts/stems.json"
        );
        let text = std::fs::read_to_string(path).unwrap();
        let stems: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
        assert!(stems.len() > 500, "{}", stems.len());
        for (word, expected) in &stems {
            assert_eq!(stem(word), *expected, "{word}");
        }
    }
}
