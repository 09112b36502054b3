//! Which adapter each record of a data file is for.

use super::jsonl::{Objects, kind};
use super::rows::{Dialect, Header, Rows};
use super::{DataFormat, is_blank};
use crate::error::TrainError;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The adapters' names by the line of the record, of a table or JSON Lines. A record without one is not among them: its
/// cell is blank, its key missing or null. Where none names any it is an error if they are `needed`.
pub(crate) fn read_adapter_names(
    path: &Path,
    format: DataFormat,
    column: &str,
    needed: bool,
) -> Result<BTreeMap<usize, String>, TrainError> {
    let format = match format {
        DataFormat::Auto => DataFormat::detect(path)?,
        format => format,
    };
    let names = match format {
        DataFormat::JsonLines => of_objects(path, column)?,
        DataFormat::Csv => of_rows(path, column, Dialect::Csv, needed)?,
        DataFormat::Tsv => of_rows(path, column, Dialect::Tsv, needed)?,
        _ if !needed => BTreeMap::new(),
        format => {
            return Err(TrainError::data_format(
                path,
                format!(
                    "with several adapters each record says which it is for, and `{format}` has no columns"
                ),
            ));
        }
    };
    match names.is_empty() && needed {
        false => Ok(names),
        true => Err(TrainError::data_format(
            path,
            format!(
                "no record says in `{column}` which adapter it is for; `adapter_column` names another column or key"
            ),
        )),
    }
}

fn of_objects(path: &Path, key: &str) -> Result<BTreeMap<usize, String>, TrainError> {
    let mut objects = Objects::open(path)?;
    let mut names = BTreeMap::new();
    while let Some((mut object, origin)) = objects.next_object()? {
        match object.remove(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) => {
                names.insert(origin.line(), name);
            }
            Some(other) => {
                let message = format!(
                    "`{key}` is {}, expected the name of an adapter",
                    kind(&other)
                );
                return Err(TrainError::data_line(path, origin.line(), message));
            }
        }
    }
    Ok(names)
}

fn of_rows(
    path: &Path,
    column: &str,
    dialect: Dialect,
    needed: bool,
) -> Result<BTreeMap<usize, String>, TrainError> {
    let mut rows = Rows::open(path, dialect)?;
    let mut names = BTreeMap::new();
    let Some((header, _)) = rows.next_row()? else {
        return Ok(names);
    };
    let header = Header::new(&header);
    if !needed && !header.has(column) {
        return Ok(names);
    }
    let place = header.position(path, column)?;
    while let Some((mut row, origin)) = rows.next_row()? {
        let name = row.swap_remove(place);
        if !is_blank(&name) {
            names.insert(origin.line(), name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(text: &str, format: DataFormat) -> Result<Vec<(usize, String)>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let names = read_adapter_names(file.path(), format, "adapter", true);
        names
            .map(|names| names.into_iter().collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_told_by_the_line_and_may_be_missing() {
        let expected = Ok(vec![(1, "a".to_string()), (5, "b".to_string())]);
        let text = "{\"adapter\": \"a\"}\n\n{\"adapter\": null}\n{\"text\": \"x\"}\n{\"adapter\": \"b\"}\n";
        assert_eq!(names(text, DataFormat::JsonLines), expected);
        let expected = Ok(vec![(2, "a".to_string()), (5, "b".to_string())]);
        assert_eq!(
            names(
                "text,adapter\n\"x, y\",a\n\"two\nlines\",\nz,b\n",
                DataFormat::Csv
            ),
            expected
        );
        assert_eq!(
            names("text\tadapter\nx\ta\n", DataFormat::Tsv)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn a_file_that_names_none_is_refused() {
        assert!(
            names("{\"text\": \"x\"}\n", DataFormat::JsonLines)
                .unwrap_err()
                .contains("`adapter`")
        );
        assert!(
            names("text,label\nx,y\n", DataFormat::Csv)
                .unwrap_err()
                .contains("adapter")
        );
        assert!(
            names("a||b\n", DataFormat::E2e)
                .unwrap_err()
                .contains("`e2e`")
        );
        assert!(
            names("{\"adapter\": 3}\n", DataFormat::JsonLines)
                .unwrap_err()
                .contains("line 1")
        );
    }
}
