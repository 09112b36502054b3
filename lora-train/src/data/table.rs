//! Rows with named cells, the common form of CSV, TSV and JSON Lines.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::format::DataFormat;
use super::jsonl::{self, Object, Objects};
use super::lines::is_blank;
use super::quoting::is_quoted;
use super::record::Origin;
use super::rows::{Dialect, Header, Rows};
use crate::error::TrainError;

/// Function that names the columns of a TSV file without a header, from its first row. It returns `None` if that row is
/// a header.
pub(super) type Headerless<'a> = &'a dyn Fn(&[String]) -> Option<&'static [&'static str]>;

/// File of rows.
pub(super) struct Table {
    path: PathBuf,
    source: Source,
    columns: Header,
    /// First row, if it was read to learn the columns.
    pending: Option<Row>,
}

enum Source {
    Delimited(Rows, Dialect),
    Objects(Objects),
}

/// Row of a table.
pub(super) struct Row {
    cells: Cells,
    /// Place where it was read.
    pub(super) origin: Origin,
}

enum Cells {
    Fields(Vec<String>),
    Object(Object),
}

/// Column of a delimited file, or key of JSON objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column<'a> {
    name: &'a str,
    /// Position in a delimited file.
    position: usize,
}

impl<'a> Column<'a> {
    /// Creates the column of a key of JSON objects.
    pub(super) fn key(name: &'a str) -> Self {
        Self { name, position: 0 }
    }
}

impl Table {
    /// Opens the table at `path`, in the format CSV, TSV or else JSON Lines; `None` if it has neither a row nor a header.
    /// `headerless` is called for TSV only.
    pub(super) fn open(
        path: &Path,
        format: DataFormat,
        headerless: Headerless,
    ) -> Result<Option<Self>, TrainError> {
        let dialect = match format {
            DataFormat::Csv => Dialect::Csv,
            DataFormat::Tsv if is_quoted(path)? => Dialect::QuotedTsv,
            DataFormat::Tsv => Dialect::Tsv,
            _ => return Self::open_objects(path),
        };
        let mut rows = Rows::open(path, dialect)?;
        let Some((first, origin)) = rows.next_row()? else {
            return Ok(None);
        };
        let names = Some(&first).filter(|_| format == DataFormat::Tsv);
        let names = names.and_then(|first| headerless(first));
        let names = names.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let columns = Header::new(names.as_deref().unwrap_or(&first));
        let cells = Cells::Fields(first);
        Ok(Some(Self {
            path: path.to_path_buf(),
            source: Source::Delimited(rows, dialect),
            columns,
            pending: names.map(|_| Row { cells, origin }),
        }))
    }

    fn open_objects(path: &Path) -> Result<Option<Self>, TrainError> {
        let mut objects = Objects::open(path)?;
        let Some((first, origin)) = objects.next_object()? else {
            return Ok(None);
        };
        let names: Vec<String> = first.keys().cloned().collect();
        let cells = Cells::Object(first);
        Ok(Some(Self {
            path: path.to_path_buf(),
            source: Source::Objects(objects),
            columns: Header::new(&names),
            pending: Some(Row { cells, origin }),
        }))
    }

    /// Creates the error that the table does not have the expected format.
    pub(super) fn error(&self, message: impl Into<String>) -> TrainError {
        TrainError::data_format(&self.path, message)
    }

    /// Returns the names of the columns, or the keys of the first object.
    pub(super) fn columns(&self) -> &[String] {
        self.columns.names()
    }

    /// Returns true if the header, or the first object, has this column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.has(column)
    }

    /// Returns true for JSON Lines, where each row has its own keys.
    pub(super) fn has_objects(&self) -> bool {
        matches!(self.source, Source::Objects(_))
    }

    pub(super) fn is_tsv(&self) -> bool {
        matches!(
            self.source,
            Source::Delimited(_, Dialect::Tsv | Dialect::QuotedTsv)
        )
    }

    /// Leaves out the rows with another number of fields than the first row.
    pub(super) fn skip_ragged(&mut self) {
        if let Source::Delimited(rows, _) = &mut self.source {
            rows.skip_ragged();
        }
    }

    /// Returns the number of ragged rows that have been left out.
    pub(super) fn skipped(&self) -> usize {
        match &self.source {
            Source::Delimited(rows, _) => rows.skipped(),
            Source::Objects(_) => 0,
        }
    }

    /// Finds a column that the header, or the first object, must have.
    ///
    /// # Errors
    /// [`TrainError::Column`] if it is missing, [`TrainError::DataFormat`] if it is there twice.
    pub(super) fn column<'a>(&self, name: &'a str) -> Result<Column<'a>, TrainError> {
        let position = self.columns.position(&self.path, name)?;
        Ok(Column { name, position })
    }

    /// Finds a column that may be missing: from the header, or from any of the objects. Without a name there is none.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if it is there twice.
    pub(super) fn optional<'a>(
        &self,
        name: Option<&'a str>,
    ) -> Result<Option<Column<'a>>, TrainError> {
        match name {
            Some(name) if self.has_objects() => Ok(Some(Column::key(name))),
            Some(name) if self.has(name) => self.column(name).map(Some),
            _ => Ok(None),
        }
    }

    /// Creates the error that a column is missing.
    pub(super) fn missing(&self, column: &str) -> TrainError {
        self.columns.missing(&self.path, column)
    }

    /// Returns the next row; `None` at the end of the file.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, TrainError> {
        if let Some(row) = self.pending.take() {
            return Ok(Some(row));
        }
        Ok(match &mut self.source {
            Source::Delimited(rows, _) => rows.next_row()?.map(|(fields, origin)| Row {
                cells: Cells::Fields(fields),
                origin,
            }),
            Source::Objects(objects) => objects.next_object()?.map(|(object, origin)| Row {
                cells: Cells::Object(object),
                origin,
            }),
        })
    }
}

impl Row {
    /// Returns true if an object has this key. The fields of a delimited file have no names.
    pub(super) fn has_key(&self, key: &str) -> bool {
        matches!(&self.cells, Cells::Object(object) if object.contains_key(key))
    }

    /// Takes the value of a column out of the row; `None` if an object lacks the key.
    pub(super) fn take(&mut self, column: Column) -> Option<Value> {
        match &mut self.cells {
            Cells::Fields(fields) => {
                let field = fields.get_mut(column.position)?;
                Some(Value::String(std::mem::take(field)))
            }
            Cells::Object(object) => object.remove(column.name),
        }
    }

    /// Takes the text of a column, which must be there.
    pub(super) fn take_text(&mut self, column: Column) -> Result<String, String> {
        jsonl::string(self.take(column), column.name)
    }

    /// Takes the text of a column; `None` if an object lacks it or has null there.
    pub(super) fn take_optional_text(
        &mut self,
        column: Option<Column>,
    ) -> Result<Option<String>, String> {
        let found = column.map(|column| jsonl::optional_string(self.take(column), column.name));
        found.unwrap_or(Ok(None))
    }

    /// Takes the name in a column; `None` if it is missing, null or blank.
    pub(super) fn take_name(&mut self, column: Option<Column>) -> Result<Option<String>, String> {
        Ok(self
            .take_optional_text(column)?
            .filter(|name| !is_blank(name)))
    }
}
