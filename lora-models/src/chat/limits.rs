//! Limits of a rendering: a template comes with a model, and may be hostile.
//!
//! Fuel bounds the number of instructions. It does not bound memory: forty concatenations of a text with itself are a terabyte. So
//! the bytes that a template copies are counted, too: every operand of a concatenation, every text that a filter or method takes
//! or makes, and everything that is printed.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};
use std::cell::Cell;

/// Largest template in bytes; the longest in use have some 20 KB.
pub(super) const MAX_SOURCE: u64 = 1 << 18;
/// Maximum number of tokens of an expression: the parser and the compiler go a level deeper with each.
pub(super) const MAX_TOKENS: usize = 1000;
/// Maximum number of `-` and `not` one after another.
pub(super) const MAX_PREFIXES: usize = 10;
/// Maximum number of `elif`, which the parser takes as branches in branches.
pub(super) const MAX_BRANCHES: usize = 300;
/// Maximum number of instructions of a rendering, beside those of its messages.
const FUEL: u64 = 5_000_000;
/// Maximum number of instructions for each message.
const FUEL_OF_MESSAGE: u64 = 10_000;
/// Length of a text between tags, in bytes, up to which its instruction is all that is counted.
pub(super) const SHORT: usize = 32;
/// Maximum length of a text between tags that cannot be counted, in bytes.
pub(super) const MAX_UNCOUNTED: usize = 256;
/// Maximum number of bytes that a rendering copies, beside those of its variables.
const BYTES: usize = 16 << 20;
/// Number of times that a rendering may copy its variables.
const COPIES: usize = 64;
/// Number of bytes that it may copy for each message, beside those of its text.
const BYTES_OF_MESSAGE: usize = 64 << 10;
/// Largest number that a filter takes as a count or a width.
pub(super) const MAX_COUNT: usize = 10_000;
/// Maximum depth of lists and dictionaries in one another.
const MAX_DEPTH: usize = 200;
/// Size of an element of a list in bytes.
const ELEMENT: usize = 32;

thread_local! {
    /// Bytes that the rendering on this thread may still copy.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Allows a new rendering on this thread to copy its bytes, with so many messages and variables of this size in bytes.
pub(super) fn start(messages: usize, variables: usize) {
    let of_messages = messages.saturating_mul(BYTES_OF_MESSAGE);
    let bytes = variables.saturating_mul(COPIES).saturating_add(of_messages);
    LEFT.set(bytes.saturating_add(BYTES));
}

/// Returns the maximum number of instructions of a rendering.
pub(super) fn fuel(messages: usize) -> u64 {
    FUEL.saturating_add(FUEL_OF_MESSAGE.saturating_mul(messages as u64))
}

/// Counts copied bytes.
pub(super) fn charge(bytes: usize) -> Result<(), Error> {
    match LEFT.get().checked_sub(bytes) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => Err(Error::new(
            ErrorKind::InvalidOperation,
            "it copies more text than a template may",
        )),
    }
}

/// Counts the bytes of a value and of its first level, as a copy of it takes them.
pub(super) fn charge_shallow(value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String => charge(value.as_str().map_or(0, str::len)),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => match value.len() {
            Some(length) => charge(length.saturating_mul(ELEMENT)),
            None => value.try_iter()?.try_for_each(|_| charge(ELEMENT)),
        },
        _ => Ok(()),
    }
}

/// Counts the bytes of a value with all that is in it, as a text of it takes them.
pub(super) fn charge_deep(value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String => charge(value.as_str().map_or(0, str::len)),
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|element| {
            charge(2)?;
            charge_deep(&element)
        }),
        ValueKind::Map => value.try_iter()?.try_for_each(|key| {
            charge(4)?;
            charge_deep(&key)?;
            charge_deep(&value.get_item(&key)?)
        }),
        _ => charge(8),
    }
}

/// Refuses lists and dictionaries that are too deep in one another: what reads or drops them goes a level deeper with each. A
/// namespace may not hold another, or a macro: they change after this, or have values that are not seen here.
pub(super) fn check_depth(value: &Value, may_have_namespaces: bool) -> Result<(), Error> {
    check_levels(value, may_have_namespaces, MAX_DEPTH)
}

fn check_levels(value: &Value, may_have_namespaces: bool, left: usize) -> Result<(), Error> {
    let Some(object) = value.as_object() else {
        return Ok(());
    };
    let refused = |message: &'static str| Err(Error::new(ErrorKind::InvalidOperation, message));
    let name = object.type_name();
    if !may_have_namespaces && (name.ends_with("Namespace") || name.ends_with("Macro")) {
        return refused("a namespace holds no other here, and no macro");
    }
    let Some(left) = left.checked_sub(1) else {
        return refused("its lists and dictionaries are too deep in one another");
    };
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(());
    }
    value.try_iter()?.try_for_each(|element| {
        charge(1)?;
        if is_map {
            check_levels(&value.get_item(&element)?, may_have_namespaces, left)?;
        }
        check_levels(&element, may_have_namespaces, left)
    })
}

/// Returns an argument that is a count or a width, checked; `None` if there is none, or no number.
pub(super) fn count(argument: Option<&Value>) -> Result<Option<usize>, Error> {
    let Some(argument) = argument.filter(|argument| argument.is_number()) else {
        return Ok(None);
    };
    // A number without a place in 64 bits is no count, either.
    let count = argument.as_i64().unwrap_or(i64::MAX);
    check_count(Some(count))?;
    Ok(usize::try_from(count).ok())
}

/// Refuses a count or a width that is out of proportion.
pub(super) fn check_count(count: Option<i64>) -> Result<(), Error> {
    match count {
        Some(count) if count.unsigned_abs() > MAX_COUNT as u64 => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("{count} is more than the {MAX_COUNT} that a count or a width may be"),
        )),
        _ => Ok(()),
    }
}
