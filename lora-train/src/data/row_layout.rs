//! Columns to read from each row of a table with labels.

use super::table::Column;

/// Columns to read from each row.
pub(super) struct RowLayout<'a> {
    /// Text, or first text of a pair.
    pub(super) first: Column<'a>,
    /// Second text of a pair.
    pub(super) second: Option<Column<'a>>,
    /// True if each row must have the second text, false if JSON objects may lack it.
    pub(super) needs_second: bool,
    /// Label.
    pub(super) label: Option<Column<'a>>,
    /// Labels, if each has a column of its own; `label` is then `None`.
    pub(super) labels: Vec<(&'a str, Column<'a>)>,
    /// Name of the record.
    pub(super) id: Option<Column<'a>>,
    /// Label of the rows to leave out.
    pub(super) undecided: Option<&'static str>,
    /// True if a row with an empty label is broken and left out.
    pub(super) skip_without_label: bool,
}
