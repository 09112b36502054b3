//! `tojson` of chat templates: `json.dumps` of Python.

use super::limits::{charge, check_count};
use super::python::{invalid, number};
use minijinja::Error;
use minijinja::value::{Kwargs, Value, ValueKind};
use std::fmt::Write;

/// Options of `json.dumps`.
struct Options {
    ensure_ascii: bool,
    sort_keys: bool,
    /// Spaces of a level; `None` for one line.
    indent: Option<String>,
    between: String,
    after_key: String,
}

/// Writes a value as JSON, without the escapes for HTML that Jinja's own filter adds.
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = kwargs.get("indent")?;
    let indent = match indent {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) => match value.as_str() {
            Some(text) => Some(text.to_string()),
            None => {
                let count = value.as_i64();
                check_count(count)?;
                Some(" ".repeat(count.unwrap_or(0).max(0) as usize))
            }
        },
    };
    let separators: Option<Value> = kwargs.get("separators")?;
    let (between, after_key) = match separators.filter(|value| !value.is_none()) {
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
        Some(pair) => (part(&pair, 0)?, part(&pair, 1)?),
    };
    let options = Options {
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        between,
        after_key,
    };
    kwargs.assert_all_used()?;
    let mut text = String::new();
    options.write(&mut text, value, 0)?;
    Ok(Value::from(text))
}

fn part(pair: &Value, index: usize) -> Result<String, Error> {
    let part = pair.get_item_by_index(index)?;
    match part.as_str() {
        Some(text) => Ok(text.into()),
        None => Err(invalid("`separators` of tojson are two texts")),
    }
}

impl Options {
    fn write(&self, text: &mut String, value: &Value, level: usize) -> Result<(), Error> {
        charge(4)?;
        match value.kind() {
            ValueKind::None => text.push_str("null"),
            ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => text.push_str(&match number(value).as_str() {
                "nan" => "NaN".into(),
                "inf" => "Infinity".into(),
                "-inf" => "-Infinity".to_string(),
                number => number.into(),
            }),
            ValueKind::String => self.write_text(text, value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                let elements = value.try_iter()?;
                self.write_all(text, ['[', ']'], elements, level, |text, element| {
                    self.write(text, &element, level + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                let keys = keys.into_iter();
                self.write_all(text, ['{', '}'], keys, level, |text, key| {
                    let name = match key.as_str() {
                        Some(name) => name.to_string(),
                        None => number(&key),
                    };
                    self.write_text(text, &name)?;
                    text.push_str(&self.after_key);
                    self.write(text, &value.get_item(&key)?, level + 1)
                })?;
            }
            kind => return Err(invalid(format!("{kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn write_all(
        &self,
        text: &mut String,
        brackets: [char; 2],
        elements: impl Iterator<Item = Value>,
        level: usize,
        mut write: impl FnMut(&mut String, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        text.push(brackets[0]);
        let mut count = 0;
        for element in elements {
            text.push_str(if count > 0 { &self.between } else { "" });
            self.new_line(text, level + 1)?;
            write(text, element)?;
            count += 1;
        }
        if count > 0 {
            self.new_line(text, level)?;
        }
        text.push(brackets[1]);
        Ok(())
    }

    fn new_line(&self, text: &mut String, level: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            charge(1 + indent.len() * level)?;
            text.push('\n');
            (0..level).for_each(|_| text.push_str(indent));
        }
        Ok(())
    }

    fn write_text(&self, text: &mut String, own: &str) -> Result<(), Error> {
        charge(own.len() + 2)?;
        text.push('"');
        for character in own.chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\u{c}' => text.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    charge(12)?;
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string does not fail.
                        let _ = write!(text, "\\u{unit:04x}");
                    }
                }
                c => text.push(c),
            }
        }
        text.push('"');
        Ok(())
    }
}
