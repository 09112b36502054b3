//! JSON documents: files that are one array or object as a whole, read element by element, with the line of each.

use std::path::Path;
use std::sync::Arc;

use lora_core::files::read_bounded;
use serde::de::DeserializeOwned;

use super::record::Origin;
use crate::error::TrainError;

/// Largest document in bytes.
const MAX_BYTES: u64 = 512 * 1024 * 1024;

/// Text of a JSON file.
pub(super) struct Document {
    path: Arc<Path>,
    text: String,
}

/// Value in a document, not parsed yet.
#[derive(Clone, Debug)]
pub(super) struct Element<'a> {
    text: &'a str,
    /// Place where it begins.
    pub(super) origin: Origin,
}

impl Document {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// Fails if it cannot be read, is larger than 512 MiB, or is not UTF-8.
    pub(super) fn open(path: &Path) -> Result<Self, TrainError> {
        let origin = |line| Origin::new(path, line);
        let bytes = read_bounded(path, MAX_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = &error.as_bytes()[..valid];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            origin(line).error("not valid UTF-8; convert the file to UTF-8")
        })?;
        Ok(Self {
            path: Arc::from(path),
            text,
        })
    }

    /// Returns the whole value.
    pub(super) fn root(&self) -> Element<'_> {
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(&self.text);
        Element::new(text, Origin::new(self.path.clone(), 1))
    }
}

impl<'a> Element<'a> {
    /// Takes a text that may begin with white space, from the line of its first character on.
    fn new(text: &'a str, start: Origin) -> Self {
        let inner = text.trim_start();
        let skipped = lines(&text[..text.len() - inner.len()]);
        let origin = Origin::new(start.shared_path(), start.line() + skipped);
        Self {
            text: inner.trim_end(),
            origin,
        }
    }

    /// Returns the elements of an array.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] if it is no array.
    pub(super) fn elements(&self) -> Result<Parts<'a>, TrainError> {
        self.parts('[', b']', "an array")
    }

    /// Returns the members of an object, each as its key and its value.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] if it is no object.
    pub(super) fn members(
        &self,
    ) -> Result<impl Iterator<Item = Result<(String, Element<'a>), TrainError>> + use<'a>, TrainError>
    {
        let parts = self.parts('{', b'}', "an object")?;
        Ok(parts.map(|part| part?.member()))
    }

    /// Parses the value.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] with the line of the value that is not as expected.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, TrainError> {
        serde_json::from_str(self.text).map_err(|error| {
            let message = error.to_string();
            let cause = message.split(" at line ").next().unwrap_or(&message);
            let line = self.origin.line() + error.line().saturating_sub(1);
            Origin::new(self.origin.shared_path(), line).error(cause)
        })
    }

    fn parts(&self, open: char, close: u8, expected: &str) -> Result<Parts<'a>, TrainError> {
        match self.text.strip_prefix(open) {
            Some(rest) => Ok(Parts {
                rest,
                close,
                at: self.origin.clone(),
                state: State::First,
            }),
            None => Err(self.origin.error(format!("expected {expected}"))),
        }
    }

    /// Splits a member of an object at its colon.
    fn member(self) -> Result<(String, Element<'a>), TrainError> {
        let malformed = || self.origin.error("expected a key, a colon and a value");
        let mut keys = serde_json::Deserializer::from_str(self.text).into_iter::<String>();
        let Some(Ok(key)) = keys.next() else {
            return Err(malformed());
        };
        let rest = &self.text[keys.byte_offset()..];
        let value = rest.trim_start().strip_prefix(':').ok_or_else(malformed)?;
        let before = &self.text[..self.text.len() - value.len()];
        let line = self.origin.line() + lines(before);
        let start = Origin::new(self.origin.shared_path(), line);
        Ok((key, Element::new(value, start)))
    }
}

/// Parts of an array or object, between its commas.
pub(super) struct Parts<'a> {
    rest: &'a str,
    close: u8,
    /// Place of `rest`.
    at: Origin,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    First,
    More,
    Ended,
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Element<'a>, TrainError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Ended {
            return None;
        }
        let is_first = std::mem::replace(&mut self.state, State::More) == State::First;
        let Some((length, delimiter)) = part(self.rest) else {
            self.state = State::Ended;
            let element = Element::new(self.rest, self.at.clone());
            return Some(Err(element
                .origin
                .error("the JSON ends within this value; is the file complete?")));
        };
        let element = Element::new(&self.rest[..length], self.at.clone());
        // White space before the delimiter counts too.
        let line = self.at.line() + lines(&self.rest[..length]);
        self.rest = &self.rest[length + 1..];
        self.at = Origin::new(self.at.shared_path(), line);
        if delimiter != b',' {
            self.state = State::Ended;
            if delimiter != self.close || !self.rest.trim().is_empty() {
                let message = "the brackets do not match: something is missing or left over";
                return Some(Err(self.at.error(message)));
            }
            if is_first && element.text.is_empty() {
                return None;
            }
        }
        if element.text.is_empty() {
            self.state = State::Ended;
            return Some(Err(element.origin.error("a value is missing at a comma")));
        }
        Some(Ok(element))
    }
}

/// Finds the end of the next part: its length, and the comma or closing bracket that follows; `None` if neither does.
fn part(text: &str) -> Option<(usize, u8)> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b',' | b']' | b'}' if depth == 0 => return Some((at, byte)),
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::io::Write;

    fn document(text: &str) -> Document {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Document::open(file.path()).unwrap()
    }

    fn parsed(text: &str) -> Result<Vec<(usize, Value)>, TrainError> {
        let document = document(text);
        let elements = document.root().elements()?.map(|element| {
            let element = element?;
            Ok((element.origin.line(), element.parse()?))
        });
        elements.collect()
    }

    #[test]
    fn elements_have_the_line_on_which_they_begin() {
        let found = parsed("\n[\n  {\"a\": [1,\n 2]},\n\n \"x]\\\"},\", 3\n]\n").unwrap();
        let expected = [
            (3, serde_json::json!({"a": [1, 2]})),
            (6, Value::from("x]\"},")),
            (6, Value::from(3)),
        ];
        assert_eq!(found, expected);
        assert!(parsed("[ ]").unwrap().is_empty());
    }

    #[test]
    fn members_have_keys() {
        let document = document("{\"a\\n\": 1,\n \"b\" :\n [2]}");
        let members = document.root().members().unwrap();
        let members = members.map(|member| {
            let (key, value) = member.unwrap();
            (key, value.origin.line())
        });
        let expected = [("a\n".to_string(), 1), ("b".to_string(), 3)];
        assert_eq!(members.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_malformed_is_named_by_its_line() {
        for (text, line, reason) in [
            ("{}", 1, "expected an array"),
            ("[1,\n{\"a\":\n tru}]", 3, "expected ident"),
            ("[1,\n", 1, "the JSON ends"),
            ("[1,\n,2]", 2, "a value is missing"),
            ("[1\n\n,\ntru]", 4, "EOF while"),
            ("[1\n\n}", 3, "the brackets"),
            ("[1,\n]", 2, "a value is missing"),
            ("[1}\n", 1, "the brackets"),
            ("[1]\n]", 1, "the brackets"),
            ("[\n\"open]", 2, "the JSON ends"),
        ] {
            let message = parsed(text).unwrap_err().to_string();
            assert!(message.contains(&format!("line {line}: ")), "{message}");
            assert!(message.contains(reason), "{message}");
        }
    }
}
