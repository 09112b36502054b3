//! An adapter's file knows the base that it was trained on.

use crate::common;
use crate::common::fixture;
use crate::encoders;
use burn::tensor::Device;
use lora_core::combine::{CombineOptions, combine};
use lora_core::file::{AdapterDir, StoredAdapter};
use lora_core::files::Overwrite;
use lora_core::{
    Adapted, AttachReport, BaseDifference, LoraConfig, LoraError, LoraInit, TargetModules,
};
use lora_models::classifier::{Classifier, ClassifierOptions};
use lora_models::encoder::Labels;
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::{AdapterLoadOptions, LoraModel, LoraTargets, Pretrained, SaveAdapter};
use std::path::{Path, PathBuf};

fn config() -> LoraConfig {
    LoraConfig::new(2)
        .with_alpha(6.0)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["c_attn"]))
}

fn save(model: Gpt2LmHead, config: &LoraConfig, dir: &Path) -> PathBuf {
    let (model, report) = model.attach(config).unwrap().into_parts();
    assert_eq!(report.base_difference, None);
    Adapted::from_parts(model.clone(), report.clone())
        .save_adapter(dir, None, Overwrite::Refuse)
        .unwrap();
    dir.into()
}

fn on(model: Gpt2LmHead, adapter: &Path) -> AttachReport {
    model.load_adapter(adapter).unwrap().into_parts().1
}

fn gpt2(name: &str) -> Gpt2LmHead {
    common::load(name, &Device::flex()).0
}

fn of_config(change: impl FnOnce(&mut Gpt2Config), seed: u64) -> Gpt2LmHead {
    let mut config = common::load("gpt2_tied", &Device::flex()).1;
    change(&mut config);
    Gpt2LmHead::init(&config, seed, &Device::flex()).unwrap()
}

#[test]
fn a_base_is_the_same_whatever_its_files_are() {
    let dir = tempfile::tempdir().unwrap();
    for (number, targets) in [vec!["c_attn"], vec!["wte", "lm_head"], vec!["mlp.c_proj"]]
        .into_iter()
        .enumerate()
    {
        let config = config().with_targets(TargetModules::names(targets));
        let path = dir.path().join(number.to_string());
        let adapter = save(gpt2("gpt2_tied"), &config, &path);
        assert!(
            StoredAdapter::read(&adapter)
                .unwrap()
                .base()
                .unwrap()
                .is_some()
        );
        for files in [
            "gpt2_tied",
            "gpt2_tied_bare",
            "gpt2_tied_bin",
            "gpt2_tied_sharded",
        ] {
            let report = on(gpt2(files), &adapter);
            assert_eq!(report.base_difference, None, "{files}");
            report.check_base(&adapter).unwrap();
        }
        // Rounded values are others.
        for files in ["gpt2_tied_f16", "gpt2_tied_bf16"] {
            match on(gpt2(files), &adapter).base_difference {
                Some(BaseDifference::Values { tensors }) => {
                    assert!(
                        tensors.contains(&"transformer.wte.weight".into()),
                        "{tensors:?}"
                    );
                }
                other => panic!("{files}: {other:?}"),
            }
        }
    }
}

#[test]
fn what_differs_is_said_and_can_be_refused() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = save(of_config(|_| {}, 1), &config(), &dir.path().join("adapter"));
    assert_eq!(on(of_config(|_| {}, 1), &adapter).base_difference, None);

    let report = on(of_config(|_| {}, 2), &adapter);
    let error = report.check_base(&adapter).unwrap_err();
    assert!(matches!(&error, LoraError::OtherBase { path, .. } if *path == adapter));
    let text = error.to_string();
    for word in [
        "other values",
        "h.0.attn.c_attn",
        "h.1.attn.c_attn",
        "wte",
        "strict-base",
    ] {
        assert!(text.contains(word), "{text}");
    }
    let words = on(of_config(|c| c.vocab_size += 3, 1), &adapter);
    let text = words.base_difference.unwrap().to_string();
    assert!(
        text.contains("[300, 24] there and [303, 24] here"),
        "{text}"
    );
    for change in [
        |c: &mut Gpt2Config| c.n_positions += 1,
        |c: &mut Gpt2Config| c.n_inner = Some(40),
    ] {
        let report = on(of_config(change, 1), &adapter);
        let expected = Some(BaseDifference::Shapes { known: None });
        assert_eq!(report.base_difference, expected);
    }
}

#[test]
fn training_saving_and_another_base_change_what_is_noted_as_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let base = |path: &Path| StoredAdapter::read(path).unwrap().base().unwrap().unwrap();
    let first = save(gpt2("gpt2_tied"), &config(), &dir.path().join("first"));
    // Other factors on the same base.
    let other = config().with_seed(9).with_dora(true);
    let second = save(gpt2("gpt2_tied"), &other, &dir.path().join("second"));
    assert_eq!(base(&first), base(&second));
    // PiSSA trains on a base from which its start is not taken.
    let pissa = config().with_init(LoraInit::Pissa);
    let third = save(gpt2("gpt2_tied"), &pissa, &dir.path().join("third"));
    assert_eq!(base(&first), base(&third));
    // Gone on with on another base, it is of that one.
    let (model, report) = gpt2("gpt2_tied_f16")
        .load_adapter(&first)
        .unwrap()
        .into_parts();
    assert!(report.base_difference.is_some());
    let moved = dir.path().join("moved");
    Adapted::from_parts(model.clone(), report.clone())
        .save_adapter(&moved, None, Overwrite::Refuse)
        .unwrap();
    assert_eq!(on(gpt2("gpt2_tied_f16"), &moved).base_difference, None);
    assert!(on(gpt2("gpt2_tied"), &moved).base_difference.is_some());
    // As files, without a model.
    let copy = dir.path().join("copy");
    let stored = StoredAdapter::read(&first).unwrap();
    stored.save(&copy, Overwrite::Refuse).unwrap();
    assert_eq!(base(&copy), base(&first));
    // Under other names it is of another model.
    let names = [("transformer.".to_string(), "model.".to_string())];
    let renamed = StoredAdapter::read_renamed(&first, &names).unwrap();
    assert_eq!(renamed.base().unwrap(), None);
}

#[test]
fn an_adapter_that_says_nothing_of_its_base_is_taken() {
    let adapter = fixture("kinds").join("gpt2_tied.random");
    assert_eq!(StoredAdapter::read(&adapter).unwrap().base().unwrap(), None);
    assert_eq!(on(gpt2("gpt2_tied"), &adapter).base_difference, None);
    assert_eq!(on(gpt2("gpt2_tied_f16"), &adapter).base_difference, None);
}

#[test]
fn a_malformed_note_is_refused_and_one_of_a_later_version_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let first = save(gpt2("gpt2_tied"), &config(), &dir.path().join("first"));
    let with = |name: &str, note: &str| {
        let mut adapter = StoredAdapter::read(&first).unwrap();
        adapter
            .metadata
            .insert("lora_core.base".into(), note.into());
        let path = dir.path().join(name);
        adapter.save(&path, Overwrite::Refuse).unwrap();
        gpt2("gpt2_tied_f16").load_adapter(&path)
    };
    let later = with("later", r#"{"version": 2, "hash": [1, 2]}"#)
        .unwrap()
        .into_parts()
        .1;
    assert_eq!(later.base_difference, None);
    let many: Vec<String> = (0..17)
        .map(|i| format!(r#""t{i}": {{"shape": [1], "first": "00"}}"#))
        .collect();
    let many = format!(
        r#"{{"version": 1, "shapes": "", "without": [], "values": {{{}}}}}"#,
        many.join(",")
    );
    for (name, note) in [("no", "{"), ("empty", r#"{"version": 1}"#), ("many", &many)] {
        let error = with(name, note).unwrap_err().to_string();
        assert!(error.contains("lora_core.base"), "{error}");
    }
}

/// A classifier whose head starts afresh.
fn classifier(base: &str, labels: usize, seed: u64) -> Classifier {
    let options = ClassifierOptions {
        labels: Some(Labels::numbered(labels)),
        fresh_head: true,
        seed,
        ..encoders::options(base)
    };
    let path = encoders::encoder(base);
    Classifier::load(path, &options, &Device::flex()).unwrap().0
}

#[test]
fn heads_and_what_else_trains_whole_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    for base in [
        "bert_seq",
        "bert_tok",
        "roberta_seq",
        "deberta_seq",
        "v3_seq",
    ] {
        for (number, whole) in [vec![], vec!["word_embeddings"]].into_iter().enumerate() {
            let model = classifier(base, 4, 1);
            let config = LoraConfig::new(2)
                .with_targets(model.default_targets())
                .with_modules_to_save(whole);
            let (model, report) = model.attach(&config).unwrap().into_parts();
            let path = dir.path().join(format!("{base}-{number}"));
            Adapted::from_parts(model.clone(), report.clone())
                .save_adapter(&path, None, Overwrite::Refuse)
                .unwrap();
            assert!(
                StoredAdapter::read(&path)
                    .unwrap()
                    .base()
                    .unwrap()
                    .is_some()
            );

            let (_, report) = classifier(base, 4, 2)
                .load_adapter(&path)
                .unwrap()
                .into_parts();
            assert_eq!(report.base_difference, None, "{base}");
            // For another task, with a head of its own.
            let other = classifier(base, 7, 3);
            let factors = AdapterLoadOptions::default().with_factors_only(true);
            let (_, report) = other
                .load_opened_adapter(&AdapterDir::open(&path).unwrap(), &factors)
                .unwrap()
                .into_parts();
            assert_eq!(report.base_difference, None, "{base}");
        }
    }
    // The same sizes with other values.
    let (_, report) = {
        let config = classifier("bert_seq", 4, 1).config().clone();
        let kind = encoders::options("bert_seq").head;
        let other = Classifier::init(&config, kind, 5, &Device::flex()).unwrap();
        other
            .load_adapter(dir.path().join("bert_seq-0"))
            .unwrap()
            .into_parts()
    };
    assert!(matches!(
        report.base_difference,
        Some(BaseDifference::Values { .. })
    ));
}

#[test]
fn a_combination_is_of_the_base_that_all_share() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = |model: Gpt2LmHead, targets: &str, name: &str| {
        let config = config().with_targets(TargetModules::names([targets]));
        let path = save(model, &config, &dir.path().join(name));
        StoredAdapter::read(&path).unwrap()
    };
    let first = adapter(gpt2("gpt2_tied"), "c_attn", "first");
    let second = adapter(gpt2("gpt2_tied"), "c_fc", "second");
    let other = adapter(gpt2("gpt2_tied_f16"), "c_attn", "other");
    let of_peft = StoredAdapter::read(fixture("kinds").join("gpt2_tied.random")).unwrap();
    let options = CombineOptions::default();

    let both = combine(&[(&first, 1.0), (&second, 0.5)], &options).unwrap();
    assert_eq!(both.base_difference, None);
    let path = dir.path().join("both");
    both.adapter.save(&path, Overwrite::Refuse).unwrap();
    assert_eq!(on(gpt2("gpt2_tied"), &path).base_difference, None);
    assert!(on(gpt2("gpt2_tied_f16"), &path).base_difference.is_some());

    let mixed = combine(&[(&first, 1.0), (&other, 1.0)], &options).unwrap();
    assert!(matches!(
        mixed.base_difference,
        Some(BaseDifference::Values { .. })
    ));
    assert_eq!(mixed.adapter.base().unwrap(), None);
    let strict = CombineOptions {
        strict_base: true,
        ..CombineOptions::default()
    };
    let refused = combine(&[(&first, 1.0), (&other, 1.0)], &strict).unwrap_err();
    assert!(refused.to_string().contains("other values"), "{refused}");
    // Where one says nothing, nothing is known of the whole.
    let unknown = combine(&[(&first, 1.0), (&of_peft, 1.0)], &strict).unwrap();
    assert_eq!(unknown.adapter.base().unwrap(), None);
}
