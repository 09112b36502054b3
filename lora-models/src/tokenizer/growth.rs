//! How much longer the steps of a `tokenizer.json` can make a text, seen before any text goes through them.
//!
//! A step that puts two hundred letters in the place of one is harmless; six of them in a row make a word fill the
//! memory of any machine. Honest files replace a character by one or a few.

use serde_json::Value;

/// The most that a text may grow, as bytes for each byte. NFKC's own table reaches 33 / 3.
const LIMIT: f64 = 1024.0;

/// Checks a normalizer, pre-tokenizer or decoder, alone or a sequence of them.
///
/// # Errors
///
/// How far it would grow a text.
pub(super) fn check(step: &Value) -> Result<(), String> {
    let times = growth(step);
    match times <= LIMIT {
        true => Ok(()),
        false => Err(format!(
            "its steps can make a text {times:.0} times as long; at most {LIMIT} are taken"
        )),
    }
}

/// How many bytes a step can make of one. How deep sequences go is bounded by the JSON parser.
fn growth(step: &Value) -> f64 {
    let lists = ["normalizers", "pretokenizers", "decoders"];
    let inner = lists.iter().filter_map(|list| step.get(list)?.as_array());
    let inner: f64 = inner.flatten().map(growth).product();
    let own = match step.get("type").and_then(Value::as_str) {
        // Bytes that are no ASCII become characters of two bytes.
        Some("ByteLevel") => 2.0,
        Some("Replace") => replacement(step),
        _ => 1.0,
    };
    own * inner
}

fn replacement(step: &Value) -> f64 {
    let length = |text: Option<&Value>| text.and_then(Value::as_str).map_or(0, str::len) as f64;
    let content = length(step.get("content"));
    let pattern = length(
        step.get("pattern")
            .and_then(|pattern| pattern.get("String")),
    );
    match pattern > 0.0 {
        true => (content / pattern).max(1.0),
        // An expression, or an empty text, may match between any two bytes.
        false => content + 1.0,
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
    }
}
