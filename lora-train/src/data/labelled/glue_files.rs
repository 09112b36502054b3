//! Which columns the files of GLUE have: as GLUE distributes them, as the authors of a data set
//! publish it, and as the `datasets` library exports it.
//!
//! Which of these a file is, its columns tell, or its first row where there is no header: in CoLA
//! (source, label, star, sentence) and in SST-2 as it is published apart from GLUE (sentence,
//! label). In all TSV files a double quote is a character like any other.

use super::glue::GlueTask;
use super::record::Unlabelled;
use super::row_plan::Plan;
use super::table::Table;
use crate::error::{TrainError, listed};

/// The columns of one kind of file.
#[derive(Clone, Copy)]
struct Layout {
    first: &'static str,
    second: Option<&'static str>,
    label: &'static str,
}

/// What the columns are called that number the records: by GLUE, by `datasets`, in QQP.
const IDS: [&str; 3] = ["index", "idx", "id"];

const fn layout(first: &'static str, second: Option<&'static str>, label: &'static str) -> Layout {
    Layout {
        first,
        second,
        label,
    }
}

const GLUE_MRPC: Layout = layout("#1 String", Some("#2 String"), "Quality");
const GLUE_STSB: Layout = layout("sentence1", Some("sentence2"), "score");
const GLUE_QQP: Layout = layout("question1", Some("question2"), "is_duplicate");
const GLUE_MNLI: Layout = layout("sentence1", Some("sentence2"), "gold_label");

/// The label of a row of MNLI on which its annotators did not agree.
const UNDECIDED: &str = "-";

impl GlueTask {
    /// The kinds of file of this task. The last one is that of `datasets`, which GLUE's own is for
    /// the tasks that have no other.
    fn layouts(self) -> Vec<Layout> {
        let (first, second) = self.text_fields();
        let exported = layout(first, second, "label");
        match self {
            Self::Mrpc => vec![GLUE_MRPC, exported],
            Self::Stsb => vec![GLUE_STSB, exported],
            Self::Qqp => vec![GLUE_QQP, exported],
            Self::Mnli | Self::MnliMismatched => vec![GLUE_MNLI, exported],
            Self::Cola | Self::Sst2 | Self::Qnli | Self::Rte | Self::Wnli => vec![exported],
        }
    }

    /// The columns of a file whose first row, of these fields, is not a header.
    pub(super) fn headerless(self, row: &[String]) -> Option<&'static [&'static str]> {
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

    /// What to read from a file of this task.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if its columns are not those of a file of this task, or it has no
    /// labels and needs them.
    pub(super) fn plan(
        self,
        table: &mut Table,
        unlabelled: Unlabelled,
    ) -> Result<Plan, TrainError> {
        let layout = self.choose(table)?;
        if !table.has(layout.label) && unlabelled == Unlabelled::Refuse {
            return Err(TrainError::data_format(
                table.path(),
                format!(
                    "no column `{}` among {}; GLUE does not publish the labels of its test sets, \
                     which can be predicted on only",
                    layout.label,
                    listed(table.columns())
                ),
            ));
        }
        // As published, the rows of some questions with line breaks or tabs in them are broken;
        // everyone leaves these out.
        let broken_rows = self == Self::Qqp && table.is_tsv() && layout.label == GLUE_QQP.label;
        if broken_rows {
            table.skip_ragged();
        }
        Ok(Plan {
            first: table.named(layout.first)?,
            second: layout
                .second
                .map(|second| table.named(second))
                .transpose()?,
            absent: None,
            label: table.optional(layout.label)?,
            id: match IDS.into_iter().find(|id| table.has(id)) {
                Some(id) => table.optional(id)?,
                None => None,
            },
            undecided: (layout.label == GLUE_MNLI.label).then_some(UNDECIDED),
            skip_without_label: broken_rows && table.has(layout.label),
        })
    }

    /// The layout whose columns the table has.
    fn choose(self, table: &Table) -> Result<Layout, TrainError> {
        let mut layouts = self.layouts();
        layouts.retain(|layout| {
            table.has(layout.first) && layout.second.is_none_or(|second| table.has(second))
        });
        let Some(&any) = layouts.first() else {
            return Err(self.wrong_columns(table, None));
        };
        let labelled: Vec<Layout> = layouts
            .into_iter()
            .filter(|layout| table.has(layout.label))
            .collect();
        let chosen = match labelled.as_slice() {
            [] => any,
            [one] => *one,
            [one, other, ..] => {
                return Err(TrainError::data_format(
                    table.path(),
                    format!(
                        "the columns `{}` and `{}` may each be the labels; remove one",
                        one.label, other.label
                    ),
                ));
            }
        };
        // A file of QNLI has all the columns of one of SST-2, and a question besides.
        let known: Vec<Layout> = Self::ALL.into_iter().flat_map(Self::layouts).collect();
        let foreign = known
            .iter()
            .flat_map(|layout| [Some(layout.first), layout.second])
            .flatten()
            .find(|text| table.has(text) && *text != chosen.first && Some(*text) != chosen.second);
        match foreign {
            Some(_) => Err(self.wrong_columns(table, foreign)),
            None => Ok(chosen),
        }
    }

    /// The error that a file is none of this task.
    fn wrong_columns(self, table: &Table, foreign: Option<&str>) -> TrainError {
        let mut expected: Vec<String> = self
            .layouts()
            .into_iter()
            .map(|layout| {
                let texts = [Some(layout.first), layout.second];
                let names: Vec<String> = texts.into_iter().flatten().map(Into::into).collect();
                format!(
                    "{} and, but for a test set, `{}`",
                    listed(&names),
                    layout.label
                )
            })
            .collect();
        match self {
            Self::Cola => expected
                .push("in TSV without a header, source, label, star and sentence".to_string()),
            Self::Sst2 => {
                expected.push("in TSV without a header, sentence and label".to_string());
            }
            _ => {}
        }
        let foreign = foreign
            .map(|text| format!(", where `{text}` belongs to another task"))
            .unwrap_or_default();
        TrainError::data_format(
            table.path(),
            format!(
                "not a file of {}: its columns are {}{foreign}; expected {}",
                self.title(),
                listed(table.columns()),
                expected.join(", or ")
            ),
        )
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
