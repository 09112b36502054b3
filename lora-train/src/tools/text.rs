//! Text of reports for people, with names from files on the line that they belong to.

use crate::progress::Escaped;
use std::fmt::{Formatter, Result};

/// Writes a title, and lines below it that are indented.
pub(super) fn titled(
    f: &mut Formatter<'_>,
    title: &str,
    lines: impl IntoIterator<Item = String>,
) -> Result {
    writeln!(f, "{}", Escaped::line(title))?;
    let mut lines = lines.into_iter();
    lines.try_for_each(|line| writeln!(f, "  {}", Escaped::line(line)))
}

/// Writes the rows that have a value, with the names in a column of this width.
pub(super) fn rows<'a>(
    f: &mut Formatter<'_>,
    width: usize,
    rows: impl IntoIterator<Item = (&'a str, Option<String>)>,
) -> Result {
    let mut rows = rows.into_iter();
    rows.try_for_each(|(name, value)| match value {
        Some(value) => writeln!(f, "{name:width$} {}", Escaped::line(value)),
        None => Ok(()),
    })
}

/// Joins the facts that are known.
pub(super) fn joined(facts: impl IntoIterator<Item = Option<String>>) -> String {
    facts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
