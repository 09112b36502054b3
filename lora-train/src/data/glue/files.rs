//! Columns of the files of GLUE: as GLUE distributes them, as the authors of a data set
//! publish it, and as the `datasets` library exports it.
//!
//! The columns show which of these a file is. Files without a header show it in their first row: `CoLA`
//! (source, label, star, sentence) and SST-2 as it is published apart from GLUE (sentence,
//! label). In all TSV files a double quote is a character like any other.

use super::GlueTask;
use crate::data::labels::Unlabelled;
use crate::data::row_layout::RowLayout;
use crate::data::table::Table;
use crate::error::{TrainError, listed};

/// Columns of one kind of file.
#[derive(Clone, Copy)]
struct FileColumns {
    first: Name,
    second: Option<Name>,
    label: Name,
}

/// Name of a column.
type Name = &'static str;

/// Names of the column that numbers the records: in GLUE, in `datasets`, and in QQP.
const IDS: [&str; 3] = ["index", "idx", "id"];

const fn columns(first: Name, second: Option<Name>, label: Name) -> FileColumns {
    FileColumns {
        first,
        second,
        label,
    }
}

const GLUE_MRPC: FileColumns = columns("#1 String", Some("#2 String"), "Quality");
const GLUE_STSB: FileColumns = columns("sentence1", Some("sentence2"), "score");
const GLUE_QQP: FileColumns = columns("question1", Some("question2"), "is_duplicate");
const GLUE_MNLI: FileColumns = columns("sentence1", Some("sentence2"), "gold_label");

/// Label of a row of MNLI on which its annotators did not agree.
const UNDECIDED: &str = "-";

impl GlueTask {
    /// Returns the kinds of file of this task. The last one is that of `datasets`, which equals GLUE's own for
    /// the tasks that have no other.
    fn files(self) -> Vec<FileColumns> {
        let (first, second) = self.text_fields();
        let exported = columns(first, second, "label");
        match self {
            Self::Mrpc => vec![GLUE_MRPC, exported],
            Self::Stsb => vec![GLUE_STSB, exported],
            Self::Qqp => vec![GLUE_QQP, exported],
            Self::Mnli | Self::MnliMismatched => vec![GLUE_MNLI, exported],
            Self::Cola | Self::Sst2 | Self::Qnli | Self::Rte | Self::Wnli => vec![exported],
        }
    }

    /// Returns the columns of a file whose first row is not a header.
    pub(in crate::data) fn headerless(self, row: &[String]) -> Option<&'static [&'static str]> {
        let binary = |field: &String| field == "0" || field == "1";
        match (self, row) {
            // The original judgement: `*` ungrammatical, `?` doubtful, and mixtures.
            (Self::Cola, [_, label, star, _])
                if binary(label) && star.chars().all(|c| matches!(c, '*' | '?' | ' ')) =>
            {
                Some(&["source", "label", "star", "sentence"])
            }
            (Self::Sst2, [_, label]) if binary(label) => Some(&["sentence", "label"]),
            _ => None,
        }
    }

    /// Finds the columns of a file of this task.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if its columns are not those of a file of this task, or it has no
    /// labels and needs them.
    pub(in crate::data) fn row_layout(
        self,
        table: &mut Table,
        unlabelled: Unlabelled,
    ) -> Result<RowLayout<'static>, TrainError> {
        let file = self.choose(table)?;
        if !table.has(file.label) && unlabelled == Unlabelled::Refuse {
            return Err(table.error(format!(
                "no column `{}` among {}; GLUE does not publish the labels of its test sets, \
                 which can be predicted on only",
                file.label,
                listed(table.columns())
            )));
        }
        // As published, the rows of some questions with line breaks or tabs in them are broken;
        // everyone leaves these out.
        let broken_rows = self == Self::Qqp && table.is_tsv() && file.label == GLUE_QQP.label;
        if broken_rows {
            table.skip_ragged();
        }
        Ok(RowLayout {
            first: table.column(file.first)?,
            second: file.second.map(|it| table.column(it)).transpose()?,
            needs_second: true,
            label: table.optional(Some(file.label))?,
            labels: Vec::new(),
            id: table.optional(IDS.into_iter().find(|id| table.has(id)))?,
            undecided: (file.label == GLUE_MNLI.label).then_some(UNDECIDED),
            skip_without_label: broken_rows && table.has(file.label),
        })
    }

    /// Chooses the kind of file whose columns the table has.
    fn choose(self, table: &Table) -> Result<FileColumns, TrainError> {
        let mut files = self.files();
        files.retain(|file| {
            table.has(file.first) && file.second.is_none_or(|second| table.has(second))
        });
        let Some(&any) = files.first() else {
            return Err(self.wrong_columns(table, None));
        };
        files.retain(|file| table.has(file.label));
        let chosen = match files.as_slice() {
            [] => any,
            [one] => *one,
            [one, other, ..] => {
                return Err(table.error(format!(
                    "the columns `{}` and `{}` may each be the labels; remove one",
                    one.label, other.label
                )));
            }
        };
        // A file of QNLI has all the columns of one of SST-2, and a question besides.
        let own = [Some(chosen.first), chosen.second];
        let known = Self::ALL.into_iter().flat_map(Self::files);
        let texts = known.flat_map(|file| [Some(file.first), file.second]);
        let mut foreign = texts.flatten().filter(|text| !own.contains(&Some(*text)));
        match foreign.find(|text| table.has(text)) {
            Some(text) => Err(self.wrong_columns(table, Some(text))),
            None => Ok(chosen),
        }
    }

    /// Creates the error that a file is none of this task.
    fn wrong_columns(self, table: &Table, foreign: Option<&str>) -> TrainError {
        let expected = self.files().into_iter().map(|file| {
            let texts = [Some(file.first), file.second].into_iter().flatten();
            let names = listed(&texts.map(Into::into).collect::<Vec<_>>());
            format!("{names} and, but for a test set, `{}`", file.label)
        });
        let mut expected: Vec<String> = expected.collect();
        let headerless = match self {
            Self::Cola => Some("in TSV without a header, source, label, star and sentence"),
            Self::Sst2 => Some("in TSV without a header, sentence and label"),
            _ => None,
        };
        expected.extend(headerless.map(String::from));
        let foreign = foreign.map(|text| format!(", where `{text}` belongs to another task"));
        let foreign = foreign.unwrap_or_default();
        table.error(format!(
            "not a file of {}: its columns are {}{foreign}; expected {}",
            self.title(),
            listed(table.columns()),
            expected.join(", or ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_no_header_only_where_the_label_stands_in_its_place() {
        let headerless = |task: GlueTask, row: &str| {
            let fields: Vec<String> = row.split('|').map(Into::into).collect();
            task.headerless(&fields).map(<[_]>::len)
        };
        assert_eq!(headerless(GlueTask::Cola, "gj|1||A dog."), Some(4));
        assert_eq!(headerless(GlueTask::Cola, "gj|0|?*|A dog."), Some(4));
        assert_eq!(headerless(GlueTask::Cola, "gj|2||A dog."), None);
        assert_eq!(headerless(GlueTask::Cola, "gj|1|x|A dog."), None);
        assert_eq!(headerless(GlueTask::Cola, "index|sentence"), None);
        assert_eq!(headerless(GlueTask::Sst2, "a film|0"), Some(2));
        assert_eq!(headerless(GlueTask::Sst2, "sentence|label"), None);
        assert_eq!(headerless(GlueTask::Rte, "a film|0"), None);
    }
}
