//! What is read from each row of a table.

use super::table::Column;

/// What to read from each row.
pub(super) struct Plan {
    pub(super) first: (Column, String),
    pub(super) second: Option<(Column, String)>,
    /// What the first row has not, and no other may have.
    pub(super) absent: Option<(Column, String)>,
    pub(super) label: Option<Column>,
    pub(super) id: Option<Column>,
    /// The label of rows that are left out.
    pub(super) undecided: Option<&'static str>,
    /// Whether a row with an empty label is broken, and left out.
    pub(super) skip_without_label: bool,
}
