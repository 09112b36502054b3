//! Values as Python writes them, and methods of Python's strings.
//!
//! `minijinja-contrib` has most methods. Here are those that it lacks, and those that it has otherwise: positions are counted in
//! characters, and an empty text is neither of digits nor of letters.

use super::limits::{charge, charge_deep, charge_shallow, check_count};
use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::fmt::Write;

/// Calls a method of a string, a list or a dictionary.
pub(super) fn call_method(
    state: &State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    charge_text(value)?;
    args.iter().try_for_each(charge_shallow)?;
    if let Some(text) = value.as_str()
        && let Some(result) = string_method(text, method, args)?
    {
        charge_text(&result)?;
        return Ok(result);
    }
    if method == "join"
        && let (Some(separator), [list]) = (value.as_str(), args)
    {
        charge_deep(list)?;
        let elements = match list.len() {
            Some(length) => length,
            None => list.try_iter()?.count(),
        };
        charge(separator.len().saturating_mul(elements))?;
    }
    if method == "copy" && value.kind() == ValueKind::Map {
        let () = from_args(args)?;
        return Ok(value.clone());
    }
    let result = unknown_method_callback(state, value, method, args)?;
    charge_text(&result)?;
    Ok(result)
}

/// Counts the bytes of a text; a list or a dictionary is not copied by a method call.
fn charge_text(value: &Value) -> Result<(), Error> {
    charge(value.as_str().map_or(0, str::len))
}

/// Calls a method of a string; `None` if it is none of those here.
fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let all = |is: fn(char) -> bool| -> Result<Option<Value>, Error> {
        let () = from_args(args)?;
        Ok(Some(Value::from(!text.is_empty() && text.chars().all(is))))
    };
    let position = |found: Option<usize>| found.map(|at| text[..at].chars().count() as i64);
    let has_case = || text.chars().any(|c| c.is_lowercase() || c.is_uppercase());
    Ok(Some(match method {
        "isdigit" | "isnumeric" | "isdecimal" => return all(char::is_numeric),
        "isalnum" => return all(char::is_alphanumeric),
        "isalpha" => return all(char::is_alphabetic),
        "isspace" => return all(char::is_whitespace),
        "islower" => {
            let () = from_args(args)?;
            Value::from(has_case() && !text.chars().any(char::is_uppercase))
        }
        "isupper" => {
            let () = from_args(args)?;
            Value::from(has_case() && !text.chars().any(char::is_lowercase))
        }
        "find" | "index" | "rfind" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let found = if method.starts_with('r') {
                text.rfind(what)
            } else {
                text.find(what)
            };
            match position(found) {
                Some(at) => Value::from(at),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(invalid("substring not found")),
            }
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let from_right = method == "rpartition";
            let split = if from_right {
                text.rsplit_once(separator)
            } else {
                text.split_once(separator)
            };
            let parts = match split {
                Some((before, after)) => [before, separator, after],
                None if from_right => ["", "", text],
                None => [text, "", ""],
            };
            Value::from_iter(parts)
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|most| usize::try_from(most).ok());
            let mut parts: Vec<&str> = match (separator, most) {
                (Some(separator), Some(most)) => text.rsplitn(most + 1, separator).collect(),
                (Some(separator), None) => text.rsplit(separator).collect(),
                (None, None) => text.split_whitespace().rev().collect(),
                (None, Some(_)) => return Err(invalid("rsplit with a count needs a separator")),
            };
            parts.reverse();
            parts.iter().try_for_each(|_| charge(32))?;
            Value::from_iter(parts)
        }
        "zfill" | "ljust" | "rjust" | "center" => {
            let (width, fill): (i64, Option<&str>) = match method {
                "zfill" => from_args::<(i64,)>(args).map(|(width,)| (width, Some("0")))?,
                _ => from_args(args)?,
            };
            check_count(Some(width))?;
            let fill = fill.unwrap_or(" ");
            if fill.chars().count() != 1 {
                return Err(invalid("the fill character is exactly one character long"));
            }
            padded(text, method, usize::try_from(width).unwrap_or(0), fill)
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase())
        }
        "replace" => {
            let (old, new, _): (&str, &str, Option<i64>) = from_args(args)?;
            charge_replaced(text, old, new)?;
            return Ok(None);
        }
        "format" => {
            check_widths(text)?;
            args.iter().try_for_each(charge_deep)?;
            return Ok(None);
        }
        _ => return Ok(None),
    }))
}

/// Pads a text to a width.
fn padded(text: &str, method: &str, width: usize, fill: &str) -> Value {
    let missing = width.saturating_sub(text.chars().count());
    let left = match method {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) if method == "zfill" => text.split_at(text.len() - digits.len()),
        _ => ("", text),
    };
    let (before, after) = (fill.repeat(left), fill.repeat(missing - left));
    Value::from(format!("{sign}{before}{digits}{after}"))
}

/// Counts the bytes of a text in which something is replaced.
pub(super) fn charge_replaced(text: &str, old: &str, new: &str) -> Result<(), Error> {
    let places = match old {
        "" => text.chars().count() + 1,
        old => text.matches(old).count(),
    };
    charge(places.saturating_mul(new.len()))
}

/// Refuses a format with a width of more than four digits.
pub(super) fn check_widths(format: &str) -> Result<(), Error> {
    let mut digits = 0;
    for character in format.chars() {
        digits = if character.is_ascii_digit() {
            digits + 1
        } else {
            0
        };
        if digits > 4 {
            return Err(invalid("a width in the format is out of proportion"));
        }
    }
    if format.contains('*') {
        return Err(invalid("a width given as an argument is not supported"));
    }
    Ok(())
}

/// Creates the error of an operation that the values do not take.
pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Returns a value as `str` of Python writes it: a text as it is, and nothing for an undefined one.
pub(super) fn str(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_str(&mut text, value)?;
    Ok(text)
}

/// Writes a value as `str` of Python.
pub(super) fn write_str(text: &mut String, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(own) => {
            charge(own.len())?;
            text.push_str(own);
            Ok(())
        }
        None => write_repr(text, value),
    }
}

/// Writes a value as `repr` of Python.
fn write_repr(text: &mut String, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => text.push_str("None"),
        ValueKind::Bool => text.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => text.push_str(&number(value)),
        ValueKind::String => {
            let own = value.as_str().unwrap_or_default();
            charge(own.len())?;
            write_quoted(text, own);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            text.push('[');
            for (at, element) in value.try_iter()?.enumerate() {
                charge(2)?;
                text.push_str(if at > 0 { ", " } else { "" });
                write_repr(text, &element)?;
            }
            text.push(']');
        }
        ValueKind::Map if value.as_object().is_some() => {
            text.push('{');
            for (at, key) in value.try_iter()?.enumerate() {
                charge(4)?;
                text.push_str(if at > 0 { ", " } else { "" });
                write_repr(text, &key)?;
                text.push_str(": ");
                write_repr(text, &value.get_item(&key)?)?;
            }
            text.push('}');
        }
        _ => {
            let shown = value.to_string();
            charge(shown.len())?;
            text.push_str(&shown);
        }
    }
    Ok(())
}

/// Writes a text in quotes, with the escapes of Python.
fn write_quoted(text: &mut String, own: &str) {
    let quote = if own.contains('\'') && !own.contains('"') {
        '"'
    } else {
        '\''
    };
    text.push(quote);
    for character in own.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            c if c == quote => {
                text.push('\\');
                text.push(c);
            }
            c if c.is_control() && (c as u32) < 0x100 => {
                // Writing to a string does not fail.
                let _ = write!(text, "\\x{:02x}", c as u32);
            }
            c => text.push(c),
        }
    }
    text.push(quote);
}

/// Returns a number as Python writes it.
pub(super) fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) => float(number),
        Err(_) => value.to_string(),
    }
}

/// Returns a float as `repr` of Python writes it.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    let text = format!("{number:?}");
    // Rust writes the exponent without sign and leading zero, and begins with it at other sizes.
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::limits;

    /// Expected texts by Python 3.11.
    #[test]
    fn floats_are_written_as_in_python() {
        for (number, text) in [
            (1.0, "1.0"),
            (-0.5, "-0.5"),
            (1e16, "1e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e15, "1000000000000000.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (0.1, "0.1"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(float(number), text);
        }
    }

    #[test]
    fn values_are_written_as_in_python() {
        limits::start(0, 0);
        let value = Value::from_serialize(serde_json::json!({
            "a": [true, null, 1, 2.0, "it's", "a\n\"b'\u{7}"], "é": {}
        }));
        assert_eq!(
            str(&value).unwrap(),
            r#"{'a': [True, None, 1, 2.0, "it's", 'a\n"b\'\x07'], 'é': {}}"#
        );
        assert_eq!(str(&Value::from("it's")).unwrap(), "it's");
        assert_eq!(str(&Value::UNDEFINED).unwrap(), "");
    }
}
