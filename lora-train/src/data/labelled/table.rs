//! Rows with named cells, whether they come from CSV, TSV or JSON Lines.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::data::jsonl::{self, Object, Objects};
use crate::data::lines::{Lines, is_blank};
use crate::data::rows::{Dialect, Header, Ragged, Rows};
use crate::data::{DataFormat, Origin};
use crate::error::TrainError;

/// The names of the columns of a table that has no header, told from its first row.
pub(super) type Headerless<'a> = &'a dyn Fn(&[String]) -> Option<&'static [&'static str]>;

/// A file of rows.
pub(super) struct Table {
    path: PathBuf,
    source: Source,
    columns: Header,
    /// The first row, read to learn the columns.
    pending: Option<Row>,
}

enum Source {
    Delimited(Rows, Dialect),
    Objects(Objects),
}

/// One row.
pub(super) struct Row {
    cells: Cells,
    pub(super) origin: Origin,
}

enum Cells {
    Fields(Vec<String>),
    Object(Object),
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(super) enum Column {
    At(usize),
    Key(String),
}

impl Table {
    /// Opens the table at `path`; `None` if it has no row and no header. `headerless` is asked
    /// about TSV alone.
    pub(super) fn open(
        path: &Path,
        format: DataFormat,
        headerless: Headerless,
    ) -> Result<Option<Self>, TrainError> {
        let dialect = match detect(path, format)? {
            DataFormat::Csv => Dialect::Csv,
            DataFormat::Tsv => Dialect::Tsv,
            _ => return Self::open_objects(path),
        };
        let mut rows = Rows::open(path, dialect)?;
        let Some((first, origin)) = rows.next_row()? else {
            return Ok(None);
        };
        let names = (dialect == Dialect::Tsv)
            .then(|| headerless(&first))
            .flatten()
            .map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
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

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The columns of the table, or the keys of its first object.
    pub(super) fn columns(&self) -> &[String] {
        self.columns.names()
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.has(column)
    }

    pub(super) fn is_tsv(&self) -> bool {
        matches!(self.source, Source::Delimited(_, Dialect::Tsv))
    }

    /// Leaves out rows that have not as many fields as the first one.
    pub(super) fn skip_ragged(&mut self) {
        if let Source::Delimited(rows, _) = &mut self.source {
            rows.set_ragged(Ragged::Skip);
        }
    }

    /// How many ragged rows have been left out.
    pub(super) fn skipped(&self) -> usize {
        match &self.source {
            Source::Delimited(rows, _) => rows.skipped(),
            Source::Objects(_) => 0,
        }
    }

    /// A column that must be there.
    ///
    /// # Errors
    /// [`TrainError::Column`] if it is not, [`TrainError::DataFormat`] if it is there twice.
    pub(super) fn column(&self, name: &str) -> Result<Column, TrainError> {
        let position = self.columns.position(&self.path, name)?;
        Ok(match self.source {
            Source::Delimited(..) => Column::At(position),
            Source::Objects(_) => Column::Key(name.to_string()),
        })
    }

    /// A column that must be there, with its name.
    ///
    /// # Errors
    /// As [`Table::column`].
    pub(super) fn named(&self, name: &str) -> Result<(Column, String), TrainError> {
        Ok((self.column(name)?, name.to_string()))
    }

    /// A column that may be missing: of a table altogether, of objects one by one.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if it is there twice.
    pub(super) fn optional(&self, name: &str) -> Result<Option<Column>, TrainError> {
        match self.source {
            Source::Objects(_) => Ok(Some(Column::Key(name.to_string()))),
            Source::Delimited(..) if self.has(name) => self.column(name).map(Some),
            Source::Delimited(..) => Ok(None),
        }
    }

    /// The next row; `None` at the end of the file.
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
    /// The value of a column, which is then gone; `None` if an object lacks the key.
    pub(super) fn take(&mut self, column: &Column) -> Option<Value> {
        match (&mut self.cells, column) {
            (Cells::Fields(fields), Column::At(at)) => {
                fields.get_mut(*at).map(std::mem::take).map(Value::String)
            }
            (Cells::Object(object), Column::Key(key)) => object.remove(key),
            _ => None,
        }
    }

    /// The text in a column, which must be there.
    pub(super) fn take_text(&mut self, column: &Column, name: &str) -> Result<String, String> {
        match self.take(column) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(format!(
                "the value of \"{name}\" is {}, expected a string",
                jsonl::kind(&other)
            )),
            None => Err(format!("the object has no key \"{name}\"")),
        }
    }
}

/// The format of the table at `path`, which is told by its extension, or else by its first line
/// that is not blank: an object, or fields between tabs.
///
/// # Errors
/// [`TrainError::DataFormat`] if neither tells; [`TrainError::Config`] if `format` is not one of
/// labelled data.
pub(super) fn detect(path: &Path, format: DataFormat) -> Result<DataFormat, TrainError> {
    match format {
        DataFormat::JsonLines | DataFormat::Csv | DataFormat::Tsv => return Ok(format),
        DataFormat::E2e | DataFormat::PlainText => {
            return Err(TrainError::config(
                "format",
                format!("`{format}` has no labels; labelled data is `jsonl`, `csv` or `tsv`"),
            ));
        }
        DataFormat::Auto => {}
    }
    if let Some(format) = DataFormat::from_extension(path) {
        return Ok(format);
    }
    let mut lines = Lines::open(path)?;
    while let Some((line, _)) = lines.next_line()? {
        if is_blank(line) {
            continue;
        }
        if jsonl::parse_object(line).is_ok() {
            return Ok(DataFormat::JsonLines);
        }
        if line.contains('\t') {
            return Ok(DataFormat::Tsv);
        }
        return Err(TrainError::data_format(
            path,
            "neither the extension nor the first line tells the format; give it as one of `jsonl`, \
             `csv`, `tsv`",
        ));
    }
    // Empty, whatever it is.
    Ok(DataFormat::Tsv)
}
