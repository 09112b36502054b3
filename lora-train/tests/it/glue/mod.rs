//! GLUE's files, and in the modules labelled data of one's own, through the public interface only. The files in
//! `fixtures/glue` have the published formats and invented sentences; what must be found in them
//! was read by Python's `csv` and written by the `datasets` library.

mod own;
mod refused;
mod words;

use std::path::{Path, PathBuf};

use lora_core::files::Overwrite;
use lora_train::TrainError;
use lora_train::data::{
    Columns, GlueTask, Label, LabelKind, LabelSet, LabelledData, LabelledLayout, LabelledSource,
    Predictions, Record, Unlabelled, read_labelled, write_glue_submission,
};
use lora_train::task::TaskName;
use serde_json::Value;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/glue")
        .join(name)
}

fn expected() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(fixture("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Reads a text as a file of that name.
fn read(
    name: &str,
    text: &str,
    layout: &LabelledLayout,
    labels: Option<&LabelSet>,
    unlabelled: Unlabelled,
) -> Result<LabelledData, TrainError> {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, name, text);
    let source = LabelledSource::new(layout)
        .with_labels(labels)
        .with_unlabelled(unlabelled);
    read_labelled(&path, &source)
}

fn glue(task: GlueTask, name: &str, text: &str) -> Result<LabelledData, TrainError> {
    let layout = LabelledLayout::Glue(task);
    read(name, text, &layout, None, Unlabelled::Refuse)
}

fn refused(result: Result<LabelledData, TrainError>, reasons: &[&str]) {
    let message = result.unwrap_err().to_string();
    for reason in reasons {
        assert!(message.contains(reason), "no `{reason}` in: {message}");
    }
}

fn classes(data: &LabelledData) -> Vec<Option<usize>> {
    let class = |record: &Record| record.label.as_ref().and_then(Label::class);
    data.records.iter().map(class).collect()
}

/// The first and the second text of a record.
fn texts(record: &Record) -> (&str, Option<&str>) {
    record.content.texts().unwrap()
}

/// A label as the reference has it.
fn reference_label(task: GlueTask, value: &Value) -> Option<Label> {
    match task.kind() {
        LabelKind::Score => value.as_f64().map(Label::Score),
        LabelKind::MultiLabel => unreachable!("GLUE has no such task"),
        LabelKind::Classes => {
            let class = value.as_u64();
            class.map(|class| Label::Class(usize::try_from(class).unwrap()))
        }
    }
}

#[test]
fn every_task_in_every_layout_is_read_as_the_reference_reads_it() {
    let expected = expected();
    let mut layouts_of = std::collections::HashMap::<GlueTask, Vec<&str>>::new();
    for (name, reference) in &expected {
        let task: GlueTask = reference["task"].as_str().unwrap().parse().unwrap();
        let layout = LabelledLayout::Glue(task);
        let source = LabelledSource::new(&layout).with_unlabelled(Unlabelled::Accept);
        let data = read_labelled(&fixture(name), &source).unwrap();

        let records = reference["records"].as_array().unwrap();
        assert_eq!(data.records.len(), records.len(), "{name}");
        for (found, record) in data.records.iter().zip(records) {
            let (first, second) = texts(found);
            assert_eq!(Some(first), record[0].as_str(), "{name}");
            assert_eq!(second, record[1].as_str(), "{name}");
            assert_eq!(found.label, reference_label(task, &record[2]), "{name}");
            assert_eq!(found.id.as_deref(), record[3].as_str(), "{name}");
        }
        let count = |key: &str| usize::try_from(reference[key].as_u64().unwrap()).unwrap();
        assert_eq!(data.report.records, records.len(), "{name}");
        assert_eq!(data.report.malformed, count("malformed"), "{name}");
        assert_eq!(data.report.undecided, count("undecided"), "{name}");
        let unlabelled = records.iter().filter(|record| record[2].is_null()).count();
        assert_eq!(data.report.unlabelled, unlabelled, "{name}");
        assert_eq!(data.labels, task.labels(), "{name}");

        // Without a label the same file is good to predict on and for nothing else.
        let strict = read_labelled(&fixture(name), &LabelledSource::new(&layout));
        assert_eq!(strict.is_ok(), unlabelled == 0, "{name}");
        let folder = name.split('/').next().unwrap();
        layouts_of.entry(task).or_default().push(folder);
    }
    // The reference speaks of every task, as GLUE and `datasets` write it.
    for task in GlueTask::ALL {
        let folders = &layouts_of[&task];
        assert!(folders.contains(&"glue"), "{task}");
        assert!(folders.contains(&"exported") || task == GlueTask::MnliMismatched);
    }
}

#[test]
fn what_is_left_out_is_counted() {
    let layout = LabelledLayout::Glue(GlueTask::Qqp);
    let source = LabelledSource::new(&layout);
    let report = read_labelled(&fixture("glue/qqp/train.tsv"), &source)
        .unwrap()
        .report;
    assert_eq!((report.malformed, report.rows()), (3, 6));
    assert_eq!(
        report.to_string(),
        "3 records (1 with a blank text, 3 malformed left out)"
    );
    let layout = LabelledLayout::Glue(GlueTask::Mnli);
    let source = LabelledSource::new(&layout);
    let report = read_labelled(&fixture("glue/mnli/dev_matched.tsv"), &source)
        .unwrap()
        .report;
    assert_eq!(report.to_string(), "1 records (1 undecided left out)");
}

#[test]
fn the_lines_of_records_are_those_of_the_file() {
    let layout = LabelledLayout::Glue(GlueTask::Qqp);
    let source = LabelledSource::new(&layout);
    let data = read_labelled(&fixture("glue/qqp/train.tsv"), &source).unwrap();
    let lines: Vec<usize> = data.records.iter().map(|r| r.origin.line()).collect();
    assert_eq!(lines, [2, 3, 7]);
    // Without a header the first line is a record.
    let layout = LabelledLayout::Glue(GlueTask::Cola);
    let source = LabelledSource::new(&layout);
    let data = read_labelled(&fixture("authors/cola/in_domain_train.tsv"), &source).unwrap();
    assert_eq!(data.records[0].origin.line(), 1);
}

#[test]
fn tasks_have_the_metrics_and_fields_of_glue() {
    use lora_train::metric::TaskMetric::{Accuracy, AccuracyAndF1, Matthews, PearsonAndSpearman};
    for (task, score, fields) in [
        (GlueTask::Cola, Matthews, ("sentence", None)),
        (GlueTask::Sst2, Accuracy, ("sentence", None)),
        (
            GlueTask::Mrpc,
            AccuracyAndF1,
            ("sentence1", Some("sentence2")),
        ),
        (
            GlueTask::Stsb,
            PearsonAndSpearman,
            ("sentence1", Some("sentence2")),
        ),
        (
            GlueTask::Qqp,
            AccuracyAndF1,
            ("question1", Some("question2")),
        ),
        (GlueTask::Mnli, Accuracy, ("premise", Some("hypothesis"))),
        (GlueTask::Qnli, Accuracy, ("question", Some("sentence"))),
        (GlueTask::Rte, Accuracy, ("sentence1", Some("sentence2"))),
        (GlueTask::Wnli, Accuracy, ("sentence1", Some("sentence2"))),
    ] {
        assert_eq!(TaskName::Glue(task).metric(), Some(score), "{task}");
        assert_eq!(task.text_fields(), fields, "{task}");
    }
}

#[test]
fn class_names_and_indices_mean_the_same_in_a_file_of_glue() {
    let text = "{\"sentence\": \"a\", \"label\": \"acceptable\"}\n{\"sentence\": \"b\", \"label\": 1}\n\
                {\"sentence\": \"c\", \"label\": \"0\"}\n";
    let data = glue(GlueTask::Cola, "a.json", text).unwrap();
    assert_eq!(classes(&data), [Some(1), Some(1), Some(0)]);
}

#[test]
fn a_model_with_its_classes_in_another_order_gets_them_in_its_own() {
    let model = LabelSet::new(["contradiction", "entailment", "neutral"]).unwrap();
    let layout = LabelledLayout::Glue(GlueTask::Mnli);
    let source = LabelledSource::new(&layout).with_labels(Some(&model));
    let data = read_labelled(&fixture("glue/mnli/train.tsv"), &source).unwrap();
    assert_eq!(classes(&data), [Some(0), Some(1), Some(2)]);
    assert_eq!(data.labels.as_ref(), Some(&model));

    let other = LabelSet::new(["yes", "no", "perhaps"]).unwrap();
    let source = LabelledSource::new(&layout).with_labels(Some(&other));
    let result = read_labelled(&fixture("glue/mnli/train.tsv"), &source);
    refused(result, &["`yes`, `no`, `perhaps`", "those of MNLI"]);
}

#[test]
fn a_test_set_becomes_the_file_of_predictions_that_glue_asks_for() {
    let layout = LabelledLayout::Glue(GlueTask::MnliMismatched);
    let source = LabelledSource::new(&layout).with_unlabelled(Unlabelled::Accept);
    let data = read_labelled(&fixture("glue/mnli/test_mismatched.tsv"), &source).unwrap();
    let ids: Vec<&str> = data.records.iter().flat_map(|r| r.id.as_deref()).collect();

    let model = LabelSet::new(["contradiction", "entailment", "neutral"]).unwrap();
    let predictions = Predictions::Classes(&[2], &model);
    let folder = tempfile::tempdir().unwrap();
    let submit = |overwrite| {
        let task = GlueTask::MnliMismatched;
        write_glue_submission(folder.path(), overwrite, task, Some(&ids), predictions)
    };
    let path = submit(Overwrite::Refuse).unwrap();
    assert_eq!(path.file_name().unwrap(), "MNLI-mm.tsv");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "index\tprediction\n0\tneutral\n");
    assert!(submit(Overwrite::Refuse).is_err());
    assert!(submit(Overwrite::Replace).is_ok());

    let mut names = GlueTask::ALL.map(GlueTask::submission_file);
    names.sort_unstable();
    #[rustfmt::skip]
    assert_eq!(names, [
        "CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "MRPC.tsv", "QNLI.tsv", "QQP.tsv", "RTE.tsv",
        "SST-2.tsv", "STS-B.tsv", "WNLI.tsv",
    ]);
}
