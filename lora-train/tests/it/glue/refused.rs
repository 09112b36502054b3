//! Files of GLUE that are refused.

use super::*;
use test_support::random::Random;

#[test]
fn a_file_of_another_task_is_refused_with_what_was_expected() {
    let rte = fixture("glue/rte/train.tsv");
    for (task, path, reasons) in [
        (
            GlueTask::Cola,
            &rte,
            [
                "not a file of CoLA",
                "`sentence` and, but for a test set, `label`",
            ],
        ),
        (
            GlueTask::Mnli,
            &rte,
            ["GLUE does not publish", "`gold_label`"],
        ),
        (
            GlueTask::Qqp,
            &rte,
            ["`index`, `sentence1`", "`is_duplicate`"],
        ),
        // It has the columns `sentence` and `label` as well.
        (
            GlueTask::Sst2,
            &fixture("glue/qnli/train.tsv"),
            ["`question` belongs to another task", "without a header"],
        ),
        (
            GlueTask::Mrpc,
            &fixture("authors/cola/in_domain_train.tsv"),
            ["not a file of MRPC", "`Quality`"],
        ),
        (
            GlueTask::Cola,
            &fixture("authors/sst2/train.tsv"),
            ["not a file of CoLA", "star and sentence"],
        ),
    ] {
        let layout = LabelledLayout::Glue(task);
        refused(read_labelled(path, &LabelledSource::new(&layout)), &reasons);
    }
}

#[test]
fn hostile_and_broken_files_of_glue_are_refused() {
    for (task, name, text, reasons) in [
        // No column of labels: a test set.
        (
            GlueTask::Rte,
            "a.tsv",
            "index\tsentence1\tsentence2\n0\ta\tb\n",
            vec!["no column `label`", "predicted on only"],
        ),
        (
            GlueTask::Rte,
            "a.tsv",
            "sentence1\tsentence2\tlabel\na\tb\tmaybe\n",
            vec![
                "a.tsv, line 2: unknown label `maybe`",
                "`entailment`, `not_entailment`",
            ],
        ),
        (
            GlueTask::Rte,
            "a.tsv",
            "sentence1\tsentence2\tlabel\na\tb\t2\n",
            vec!["line 2: class 2 is out of range"],
        ),
        (
            GlueTask::Rte,
            "a.tsv",
            "sentence1\tsentence2\tlabel\na\tb\t-1\n",
            vec!["line 2: no label"],
        ),
        (
            GlueTask::Rte,
            "a.tsv",
            "sentence1\tsentence2\tlabel\na\tb\t\n",
            vec!["line 2: no label"],
        ),
        (
            GlueTask::Rte,
            "a.tsv",
            "sentence1\tsentence2\tlabel\na\t0\n",
            vec!["line 2: 2 fields, where the first row has 3"],
        ),
        (
            GlueTask::Rte,
            "a.tsv",
            "sentence1\tsentence1\tsentence2\tlabel\na\ta\tb\t0\n",
            vec!["several columns `sentence1`"],
        ),
        (
            GlueTask::Rte,
            "a.csv",
            "sentence1,sentence2,label\n\"a,b,0\n",
            vec!["line 2: a double quote"],
        ),
        (
            GlueTask::Rte,
            "a.tsv",
            "sentence1\tsentence2\tlabel\n",
            vec!["no usable example"],
        ),
        (GlueTask::Rte, "a.tsv", "", vec!["no usable example"]),
        (
            GlueTask::Rte,
            "a.jsonl",
            "[1]\n",
            vec!["line 1: expected a JSON object"],
        ),
        (
            GlueTask::Rte,
            "a.jsonl",
            "{\"sentence1\": \"a\", \"sentence2\": null, \"label\": 0}\n",
            vec!["\"sentence2\" is null"],
        ),
        (
            GlueTask::Rte,
            "a.jsonl",
            "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": 0}\n{\"sentence1\": \"a\", \"label\": 0}\n",
            vec!["line 2: the object has no key \"sentence2\""],
        ),
        (
            GlueTask::Rte,
            "a.jsonl",
            "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": [0]}\n",
            vec!["the label is an array"],
        ),
        (
            GlueTask::Rte,
            "a.jsonl",
            "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": 0.5}\n",
            vec!["unknown label `0.5`"],
        ),
        (
            GlueTask::Rte,
            "a.dat",
            "sentence1 sentence2 label\n",
            vec!["`jsonl`, `csv`, `tsv`"],
        ),
        (
            GlueTask::Cola,
            "a.tsv",
            "xx\t1\t\tfine\nxx\tgood\t\tnot\n",
            vec!["line 2: unknown label `good`"],
        ),
        (
            GlueTask::Cola,
            "a.tsv",
            "xx\t7\t\tfine\n",
            vec!["not a file of CoLA"],
        ),
        (
            GlueTask::Sst2,
            "a.tsv",
            "fine\t1\nfine\t1\t0\n",
            vec!["line 2: more than the 2 fields"],
        ),
        (
            GlueTask::Stsb,
            "a.tsv",
            "sentence1\tsentence2\tscore\na\tb\t5.1\n",
            vec!["line 2: the score 5.1", "0 to 5"],
        ),
        (
            GlueTask::Stsb,
            "a.tsv",
            "sentence1\tsentence2\tscore\na\tb\tnan\n",
            vec!["`nan` is no score"],
        ),
        (
            GlueTask::Stsb,
            "a.tsv",
            "sentence1\tsentence2\tscore\tlabel\na\tb\t1\t2\n",
            vec!["`score` and `label`"],
        ),
        (
            GlueTask::Mnli,
            "a.tsv",
            "sentence1\tsentence2\tgold_label\na\tb\t-\n",
            vec!["of 1 rows, no record is left"],
        ),
        // Only MNLI's own layout has rows without agreement.
        (
            GlueTask::Mnli,
            "a.tsv",
            "premise\thypothesis\tlabel\na\tb\t-\n",
            vec!["unknown label `-`"],
        ),
        // Only QQP, as GLUE distributes it, has broken rows.
        (
            GlueTask::Qqp,
            "a.csv",
            "question1,question2,is_duplicate\na,1\n",
            vec!["line 2: 2 fields"],
        ),
        (
            GlueTask::Qqp,
            "a.tsv",
            "question1\tquestion2\tlabel\na\t1\n",
            vec!["line 2: 2 fields"],
        ),
    ] {
        refused(glue(task, name, text), &reasons);
    }
}

#[test]
fn spoilt_files_are_errors_or_records_but_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let spoilers = b"\"\t\n\r,-*0{}[ \xFF\xC3";
    let mut random = Random::new(1);
    let (mut read, mut refused) = (0, 0);
    for (name, reference) in &expected() {
        let task: GlueTask = reference["task"].as_str().unwrap().parse().unwrap();
        let layout = LabelledLayout::Glue(task);
        let source = LabelledSource::new(&layout).with_unlabelled(Unlabelled::Accept);
        let whole = std::fs::read(fixture(name)).unwrap();
        for _ in 0..20 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] = spoilers[random.below(spoilers.len())],
                    1 => bytes.insert(at, spoilers[random.below(spoilers.len())]),
                    _ => bytes.truncate(at + 1),
                }
            }
            let path = folder.path().join(Path::new(name).file_name().unwrap());
            std::fs::write(&path, &bytes).unwrap();
            match read_labelled(&path, &source) {
                Ok(data) => {
                    read += 1;
                    assert!(!data.records.is_empty());
                    let classes = task.labels().map_or(0, |labels| labels.len());
                    for label in data.records.iter().filter_map(|r| r.label.as_ref()) {
                        match label {
                            Label::Class(class) => assert!(*class < classes),
                            Label::Score(score) => assert!((0.0..=5.0).contains(score)),
                            other => panic!("{other:?}"),
                        }
                    }
                }
                Err(_) => refused += 1,
            }
            let words = LabelledLayout::Words(Columns::default());
            let _ = read_labelled(&path, &LabelledSource::new(&words));
        }
    }
    assert!(
        read > 100 && refused > 100,
        "{read} read, {refused} refused"
    );
}
