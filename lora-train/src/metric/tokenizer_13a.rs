//! Tokenizer `13a` of sacrebleu (`tokenizer_13a.py`, `tokenizer_re.py`), the tokenizer of NIST's
//! `mteval-v13a.pl`.

/// Splits a segment into words.
pub(super) fn tokenize(segment: &str) -> Vec<String> {
    let mut text = segment
        .trim_end_matches(is_space)
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    if text.contains('&') {
        // In sacrebleu's order, so that `&amp;lt;` becomes `<`.
        text = text
            .replace("&quot;", "\"")
            .replace("&amp;", "&")
            .replace("&lt;", "<")
            .replace("&gt;", ">");
    }
    // The rules below look at neighbours; the spaces add one to the first and the last character.
    let text = format!(" {text} ");

    let text = set_apart_symbols(&text);
    let text = substitute_pairs(&text, not_digit, period_or_comma, |a, b| [a, ' ', b, ' ']);
    let text = substitute_pairs(&text, period_or_comma, not_digit, |a, b| [' ', a, ' ', b]);
    let text = substitute_pairs(&text, digit, dash, |a, b| [a, ' ', b, ' ']);
    text.split(is_space)
        .filter(|word| !word.is_empty())
        .map(str::to_string)
        .collect()
}

/// Returns true for white space as defined by Python's `str.split` and `str.rstrip`: Unicode's, and the
/// four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn not_digit(c: char) -> bool {
    !digit(c)
}

fn period_or_comma(c: char) -> bool {
    c == '.' || c == ','
}

fn dash(c: char) -> bool {
    c == '-'
}

/// Surrounds ASCII symbols with spaces, except `'`, `,`, `-` and `.`. In sacrebleu the expression
/// ``([\{-\~\[-\` -\&\(-\+\:-\@\/])``, replaced by ` \1 `.
fn set_apart_symbols(text: &str) -> String {
    let mut result = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/') {
            result.extend([' ', c, ' ']);
        } else {
            result.push(c);
        }
    }
    result
}

/// Replaces each pair of neighbours that satisfy `first` and `second`.
///
/// As with a regular expression, matches do not overlap: in `a,,b` the second comma does not match
/// again as the second half of a pair.
fn substitute_pairs(
    text: &str,
    first: fn(char) -> bool,
    second: fn(char) -> bool,
    replacement: fn(char, char) -> [char; 4],
) -> String {
    let mut result = String::with_capacity(text.len() * 2);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(&next) if first(c) && second(next) => {
                result.extend(replacement(c, next));
                chars.next();
            }
            _ => result.push(c),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from `sacrebleu.tokenizers.tokenizer_13a.Tokenizer13a`, sacrebleu 2.6.0.
    #[test]
    fn segments_are_split_as_sacrebleu_splits_them() {
        for (segment, expected) in [
            ("Hello, world!", "Hello , world !"),
            ("It costs 1,000.50 dollars.", "It costs 1,000.50 dollars ."),
            ("family-friendly 2-3", "family-friendly 2 - 3"),
            ("don't (stop)", "don't ( stop )"),
            ("&quot;A &amp; B&quot;", "\" A & B \""),
            ("&amp;lt;b&gt;", "< b >"),
            ("a,,b", "a , , b"),
            ("...", ". . ."),
            ("5.", "5 ."),
            (".5", ". 5"),
            ("x.5,y", "x . 5 , y"),
            ("trail  \t\n", "trail"),
            ("hyphen-\nated<skipped> line", "hyphenated line"),
            ("£5 é–à\u{1c}b\u{a0}c", "£5 é–à b c"),
            ("", ""),
        ] {
            assert_eq!(tokenize(segment).join(" "), expected, "{segment:?}");
        }
    }
}
