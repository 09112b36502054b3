//! Bound on how much the steps of a `tokenizer.json` can lengthen a text, checked before any text goes through them.
//!
//! A step that replaces one letter by two hundred is harmless, but six of them in a row make a word fill the memory of
//! any machine. The limits on the length of files do not prevent that. Honest files replace a character by one or a
//! few.

use serde_json::Value;

/// Limit for the growth of a text, in bytes for each byte. NFKC's own table reaches 33 / 3.
const LIMIT: f64 = 1024.0;

/// Checks a normalizer, pre-tokenizer or decoder, alone or a sequence of them.
///
/// # Errors
/// A message with the growth, if it is above the limit.
pub(super) fn check(step: &Value) -> Result<(), String> {
    let times = growth(step);
    if times <= LIMIT {
        Ok(())
    } else {
        Err(format!(
            "its steps can make a text {times:.0} times as long; the limit is {LIMIT}"
        ))
    }
}

/// Returns how many bytes a step can make of one. The JSON parser bounds the depth of nested sequences.
fn growth(step: &Value) -> f64 {
    let lists = ["normalizers", "pretokenizers", "decoders"];
    let inner = lists.iter().filter_map(|list| step.get(list)?.as_array());
    let inner: f64 = inner.flatten().map(growth).product();
    let own = match step.get("type").and_then(Value::as_str) {
        // Bytes outside ASCII become characters of two bytes.
        Some("ByteLevel") => 2.0,
        Some("Replace") => replacement(step),
        // It stands before every piece between added tokens, and a piece has at least a byte.
        Some("Prepend") => length(step.get("prepend")) + 1.0,
        _ => 1.0,
    };
    own * inner
}

/// Returns the length of a text in bytes.
fn length(text: Option<&Value>) -> f64 {
    text.and_then(Value::as_str).map_or(0, str::len) as f64
}

fn replacement(step: &Value) -> f64 {
    let content = length(step.get("content"));
    let pattern = length(step.pointer("/pattern/String"));
    if pattern > 0.0 {
        (content / pattern).max(1.0)
    } else {
        // An expression, or an empty text, may match between any two bytes.
        content + 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replace(pattern: Value, content: &str) -> Value {
        json!({"type": "Replace", "pattern": pattern, "content": content})
    }

    #[test]
    fn what_honest_files_do_passes() {
        check(&Value::Null).unwrap();
        let spaces = replace(json!({"String": " "}), "▁");
        let many = replace(json!({"Regex": " {2,}"}), "▁");
        let quotes = replace(json!({"String": "``"}), "\"");
        let steps =
            json!({"type": "Sequence", "normalizers": [spaces, many, quotes, {"type": "NFKC"}]});
        check(&steps).unwrap();
        check(&json!({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]})).unwrap();
    }

    #[test]
    fn steps_that_multiply_a_text_are_refused() {
        let large = replace(json!({"String": "a"}), &"a".repeat(200));
        let deep = json!({"type": "Sequence", "normalizers": [large.clone()]});
        let both = json!({"type": "Sequence", "decoders": [large, deep]});
        let message = check(&both).unwrap_err();
        assert!(message.contains("40000 times"), "{message}");
        let doubling = vec![json!({"type": "ByteLevel"}); 2000];
        assert!(check(&json!({"type": "Sequence", "normalizers": doubling})).is_err());
        assert!(check(&replace(json!({"String": ""}), &"b".repeat(2000))).is_err());
        let prepend = |text: &str| check(&json!({"type": "Prepend", "prepend": text}));
        prepend("▁").unwrap();
        assert!(prepend(&"▁".repeat(400)).is_err());
    }
}
