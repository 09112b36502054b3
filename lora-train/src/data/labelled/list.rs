//! Lists of labels in a value of JSON or a cell of a table, and columns with a label each.

use std::path::Path;

use serde_json::Value;

use crate::data::jsonl;
use crate::data::labels::LabelSet;
use crate::error::{TrainError, listed};

/// Largest number of labels of a record.
const MAX_LABELS: usize = 10_000;

/// Items of a list.
pub(super) struct Items {
    /// Each label as it is written.
    pub(super) texts: Vec<String>,
    /// Form of all labels.
    pub(super) form: Form,
}

/// Form of the items of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Names, or numbers that are not all 0 and 1.
    Names,
    /// Each is the number 0 or 1: indices, or a flag for each class.
    ZeroOne,
    /// Each is a truth value, or a fraction that is 0 or 1: a flag for each class.
    Flags,
}

/// Returns true if there is no label: no value, `null`, or a cell without text.
pub(super) fn is_absent(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.trim().is_empty(),
        Some(_) => false,
    }
}

/// Returns the items of a list: of JSON, of a cell that holds one as JSON or Python write it, or separated by `,`, `|` or `;`.
/// A single value is a list of one.
pub(super) fn items(value: Option<Value>) -> Result<Option<Items>, String> {
    let Some(value) = value.filter(|value| !is_absent(Some(value))) else {
        return Ok(None);
    };
    let values = match value {
        Value::Array(values) => values,
        Value::String(text) => match text.trim() {
            text if text.starts_with('[') => parse_list(text)?,
            text => {
                let parts = text.split([',', '|', ';']);
                parts.map(|part| Value::from(part.trim())).collect()
            }
        },
        value @ (Value::Number(_) | Value::Bool(_)) => vec![value],
        other => {
            let kind = jsonl::kind(&other);
            return Err(format!(
                "the label is {kind}; expected a list of names or numbers"
            ));
        }
    };
    if values.len() > MAX_LABELS {
        return Err(format!(
            "{} labels; a record has at most {MAX_LABELS}",
            values.len()
        ));
    }
    let forms = values.iter().map(|value| match value {
        Value::Bool(_) => Form::Flags,
        Value::Number(number) if matches!(number.as_f64(), Some(0.0 | 1.0)) => {
            if number.is_f64() {
                Form::Flags
            } else {
                Form::ZeroOne
            }
        }
        _ => Form::Names,
    });
    let mut forms: Vec<Form> = forms.collect();
    let form = if forms.is_empty() || forms.contains(&Form::Names) {
        Form::Names
    } else {
        forms.retain(|form| *form == Form::Flags);
        forms.pop().unwrap_or(Form::ZeroOne)
    };
    let texts = values.into_iter().map(|value| match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.trim().to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::String(_) => Err("an empty name among the labels".to_string()),
        other => Err(format!(
            "{} among the labels, expected names or numbers",
            jsonl::kind(&other)
        )),
    });
    Ok(Some(Items {
        texts: texts.collect::<Result<_, _>>()?,
        form,
    }))
}

/// Parses a list in a cell: `["a", "b"]`, `['a', 'b']` or `[0 1 1]`.
fn parse_list(text: &str) -> Result<Vec<Value>, String> {
    let quoted = || text.replace('\'', "\"");
    let spaced = || text.split_whitespace().collect::<Vec<_>>().join(",");
    let spaced = || spaced().replace("[,", "[").replace(",]", "]");
    let read = |text: &str| serde_json::from_str::<Vec<Value>>(text).ok();
    let list = read(text)
        .or_else(|| read(&quoted()).filter(|_| !text.contains('"')))
        .or_else(|| read(&spaced()));
    list.ok_or_else(|| {
        format!("the label `{text}` is no list; expected names or numbers, as in [\"a\", \"b\"]")
    })
}

/// Returns the index of each column among the known names.
pub(super) fn by_name(
    path: &Path,
    columns: &[String],
    known: &LabelSet,
) -> Result<Vec<usize>, TrainError> {
    if known.is_generic() && known.len() == columns.len() {
        return Ok((0..columns.len()).collect());
    }
    let found: Option<Vec<usize>> = columns.iter().map(|name| known.find(name)).collect();
    let found = found.filter(|found| {
        let mut distinct = found.clone();
        distinct.sort_unstable();
        distinct.dedup();
        distinct.len() == known.len() && found.len() == known.len()
    });
    found.ok_or_else(|| {
        let message = format!(
            "the columns of the labels are {}, and the outputs of the head are {}; each needs its column",
            listed(columns),
            listed(known.names())
        );
        TrainError::data_format(path, message)
    })
}
