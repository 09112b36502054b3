//! MNLI for a language model, as it is put to GPT-3: premise and hypothesis as text, and one of three words as the answer.
//!
//! ```text
//! A man plays guitar.
//! question: Someone makes music. true, false, or neither?
//! answer: true
//! ```
//!
//! The files are those of GLUE ([`GlueTask::Mnli`]).

use std::path::Path;

use super::format::DataFormat;
use super::glue::GlueTask;
use super::labelled::{LabelledLayout, LabelledSource, read_labelled};
use super::record::{Content, Label, Record};
use super::template::PairTemplate;
use crate::error::TrainError;

/// Answers, by the class of GLUE: entailment, neutral and contradiction.
pub(crate) const ANSWERS: [&str; 3] = ["true", "neither", "false"];

/// Reads every pair of the file.
pub(super) fn read(
    path: &Path,
    template: &PairTemplate,
    adapter: Option<&str>,
) -> Result<Vec<Record>, TrainError> {
    let layout = LabelledLayout::Glue(GlueTask::Mnli);
    let source = LabelledSource::new(&layout)
        .with_format(DataFormat::Auto)
        .with_adapter_column(adapter);
    let data = read_labelled(path, &source)?;
    let records = data.records.into_iter().map(|record| {
        let class = record.label.as_ref().and_then(Label::class);
        let answer = class.and_then(|class| ANSWERS.get(class));
        let (Content::Pair { first, second }, Some(answer)) = (&record.content, answer) else {
            return Err(record
                .origin
                .error("expected a premise, a hypothesis and a label"));
        };
        let question = question(first, second);
        let mut made = template.record(&question, answer, record.origin);
        (made.id, made.adapter) = (record.id, record.adapter);
        Ok(made)
    });
    records.collect()
}

fn question(premise: &str, hypothesis: &str) -> String {
    let (premise, hypothesis) = (premise.trim(), hypothesis.trim());
    format!("{premise}\nquestion: {hypothesis} true, false, or neither?\nanswer:")
}
