//! Mutations of an input, the same on every machine: a search without libFuzzer.

use test_support::random::Random;

/// Values that a number in an input is replaced with.
const NUMBERS: [&str; 9] = [
    "0",
    "-1",
    "1",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "1073741824",
];

/// Reads the words of a dictionary of libFuzzer, a quoted string a line with `\\`, `\"` and `\xNN`.
pub fn dictionary(text: &str) -> Vec<Vec<u8>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter(|line| !line.is_empty()).map(word).collect()
}

fn word(line: &str) -> Vec<u8> {
    let quoted = line
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let mut bytes = quoted.unwrap_or_else(|| panic!("{line}")).bytes();
    let mut word = Vec::new();
    while let Some(byte) = bytes.next() {
        word.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'x') => {
                    let digits =
                        [bytes.next(), bytes.next()].map(|digit| digit.unwrap_or_default());
                    let digits = std::str::from_utf8(&digits).unwrap();
                    u8::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{line}: {error}"))
                }
                Some(byte @ (b'\\' | b'"')) => byte,
                other => panic!("{line}: {other:?}"),
            },
            byte => byte,
        });
    }
    word
}

/// Changes an input in one to four places; splices take bytes of `other` and words.
pub fn mutant(input: &[u8], other: &[u8], words: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(16).min(bytes.len() - at);
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => {
                bytes.drain(at..at + length);
            }
            2 => {
                let copy = bytes[at..at + length].to_vec();
                let place = random.below(bytes.len() + 1);
                bytes.splice(place..place, copy);
            }
            3 => {
                let from = random.below(other.len() + 1);
                let taken = other[from..].iter().take(64).copied();
                bytes.splice(at..at + length, taken);
            }
            4 => replace_number(&mut bytes, at, random),
            5 => {
                let word = random.choose(words).iter().copied();
                bytes.splice(at..at + length, word);
            }
            6 if random.below(4) == 0 => bytes.truncate(at),
            _ => {
                let value = *random.choose(&[0, 0x7f, 0x80, 0xff]);
                bytes[at..at + length.min(8)].fill(value);
            }
        }
    }
    bytes
}

/// Replaces the next number from a place on, if there is one.
fn replace_number(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let rest = &bytes[at..];
    let Some(first) = rest.iter().position(u8::is_ascii_digit) else {
        return;
    };
    let digits = rest[first..].iter();
    let count = digits.take_while(|byte| byte.is_ascii_digit()).count();
    let range = at + first..at + first + count;
    bytes.splice(range, random.choose(&NUMBERS).bytes());
}

#[test]
fn words_of_the_dictionary_are_unescaped() {
    let text = "# words\n\"\\x0a%%\\x0a\"\n\n\"\\\"dtype\\\":\"\n";
    assert_eq!(dictionary(text), [&b"\n%%\n"[..], b"\"dtype\":"]);
}

#[test]
fn mutants_differ_by_their_seed_only() {
    let words = [b"word".to_vec()];
    let make = |seed| mutant(b"{\"a\": 12}", b"other", &words, &mut Random::new(seed));
    assert_eq!(make(3), make(3));
    let different: std::collections::BTreeSet<Vec<u8>> = (0..100).map(make).collect();
    assert!(different.len() > 80, "{}", different.len());
}
