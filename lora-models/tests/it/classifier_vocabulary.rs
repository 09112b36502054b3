//! Classifiers with another vocabulary than that of their checkpoint, and the padding token of a decoder.

use crate::common::fixture;
use crate::encoders::{Batch, encoder, logits_on, model, options};
use burn::tensor::{Device, Int, Tensor};
use lora_core::file::AdapterDir;
use lora_core::files::Overwrite;
use lora_core::{LoraConfig, TrainableTokens};
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind};
use lora_models::encoder::{EncoderConfig, Labels};
use lora_models::{
    AdapterLoadOptions, ExportOptions, LoraModel, LoraTargets, ModelConfig, ModelDir,
    NewVocabulary, Pretrained, SaveAdapter,
};
use std::path::Path;
use test_support::tensors::{host, json};

/// Classifiers of each kind of embedding, with the module that has it.
const MODELS: [(&str, &str); 5] = [
    ("bert_seq", "word_embeddings"),
    ("roberta_tok", "word_embeddings"),
    ("v3_seq", "word_embeddings"),
    ("gpt2_seq", "wte"),
    ("llama_seq", "embed_tokens"),
];

/// Three tokens more, with values of their own in every row.
fn extended(name: &str) -> Classifier {
    let model = model(name, &Device::flex());
    let own = model.vocabulary().unwrap();
    let mut values = model.vocabulary_values(true).unwrap();
    values.extend((0..3 * own.d).map(|at| (at as f32 * 0.7).sin()));
    values.iter_mut().for_each(|value| *value *= 1.25);
    let new = NewVocabulary {
        rows: own.rows + 3,
        input: Some(values),
        output: None,
    };
    model.with_vocabulary(new).unwrap()
}

/// The logits of a text with the last token of a vocabulary.
fn of_last_token(model: &Classifier) -> Vec<f32> {
    let last = model.vocabulary().unwrap().rows as i32 - 1;
    let ids = Tensor::<2, Int>::from_ints([[5, 9, last, 7]], &Device::flex());
    let mask = ids.clone().greater_equal_elem(0);
    host(model.forward(ids, &mask, None))
}

/// `config.json` had the number of rows from before.
#[test]
fn a_classifier_with_more_tokens_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for (name, _) in MODELS {
        let model = extended(name);
        let (rows, path) = (model.vocabulary().unwrap().rows, dir.path().join(name));
        let export = ExportOptions::default();
        model.export(&path, &export, Overwrite::Refuse).unwrap();
        assert_eq!(json(&path.join("config.json"))["vocab_size"], rows);
        let (read, _) = Classifier::load(&path, &options(name), &Device::flex()).unwrap();
        assert_eq!(logits_on(&read, name), logits_on(&model, name), "{name}");
        assert_eq!(of_last_token(&read), of_last_token(&model), "{name}");
    }
}

/// Saves an adapter of a classifier with more tokens, of which rows or the whole embedding are trained.
fn save(name: &str, embedding: &str, whole: bool, path: &Path) -> Classifier {
    let model = extended(name);
    let rows = model.vocabulary().unwrap().rows;
    let mut lora = LoraConfig::new(2).with_targets(model.default_targets());
    if whole {
        lora = lora.with_modules_to_save([embedding]);
    } else {
        lora.token_indices = vec![TrainableTokens::of_input(0..rows)];
    }
    let adapted = model.attach(&lora).unwrap();
    adapted.save_adapter(path, None, Overwrite::Refuse).unwrap();
    adapted.into_module()
}

/// The new head was put on a model without the adapter's tokens, whose texts were encoded with them.
#[test]
fn a_new_head_keeps_the_tokens_of_the_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::flex();
    for (name, embedding) in MODELS {
        for whole in [true, false] {
            let path = dir.path().join(format!("{name}-{whole}"));
            let of_adapter = save(name, embedding, whole, &path);
            let adapter = AdapterDir::open(&path).unwrap();
            let fresh = ClassifierOptions {
                labels: Some(Labels::numbered(7)),
                fresh_head: true,
                ..options(name)
            };
            let (base, _) = Classifier::load(encoder(name), &fresh, &device).unwrap();
            let rows = of_adapter.vocabulary().unwrap().rows;
            assert_eq!(base.tokens_with(&adapter).unwrap(), Some(rows), "{name}");
            let factors = AdapterLoadOptions::default().with_factors_only(true);
            let adapted = base.load_opened_adapter(&adapter, &factors).unwrap();
            let notes = adapted.report().notes.join("\n");
            assert!(
                notes.contains(&format!("to {rows} tokens")),
                "{name}: {notes}"
            );
            let found = adapted.module();
            assert_eq!(found.vocabulary().unwrap().rows, rows, "{name}");
            let embeddings = |model: &Classifier| host(model.trunk.word_embeddings().weight.val());
            assert_eq!(embeddings(found), embeddings(&of_adapter), "{name}");
            assert_eq!(of_last_token(found).len() % 7, 0, "{name}");
            // And again, with the head that was new.
            let again = dir.path().join(format!("{name}-{whole}-again"));
            adapted
                .save_adapter(&again, None, Overwrite::Refuse)
                .unwrap();
            let again = AdapterDir::open(&again).unwrap();
            let base = Classifier::load(encoder(name), &fresh, &device).unwrap().0;
            let read = base
                .load_opened_adapter(&again, &AdapterLoadOptions::default())
                .unwrap();
            assert_eq!(of_last_token(read.module()), of_last_token(found), "{name}");
        }
    }
}

/// The token that a batch is padded with, and the one that the head passes over.
fn padding(config: &EncoderConfig, dir: &Path, fresh_head: bool) -> [Option<u32>; 3] {
    let options = ClassifierOptions {
        head: HeadKind::Sequence,
        fresh_head,
        ..ClassifierOptions::default()
    };
    let device = Device::flex();
    let outline = Classifier::init_meta(config, &options, &device).unwrap();
    let random = Classifier::init_random(config, &options, 3, &device).unwrap();
    let loaded = Classifier::load_weights(config.clone(), dir, &options, &device).unwrap();
    [outline, random, loaded.0].map(|model| {
        let decoder = model.config().decoder.as_ref().unwrap();
        assert_eq!(model.info().pad_id, decoder.pad_token_id());
        decoder.pad_token_id()
    })
}

/// The padding token was chosen while the weights were read: texts were padded with another before, and a model with random weights
/// had none. `GPT2ForSequenceClassification` of transformers takes no batch without one.
#[test]
fn a_decoder_has_its_padding_token_before_its_weights_are_read() {
    let config = |dir: &ModelDir| match dir.config() {
        ModelConfig::Encoder(config) => config.clone(),
        other => panic!("{other:?}"),
    };
    let path = fixture("gpt2_tied");
    let model = ModelDir::open(&path).unwrap().with_head().unwrap();
    assert_eq!(padding(&config(&model), &path, false), [Some(299); 3]);
    let from_dir = EncoderConfig::from_dir(&path).unwrap();
    assert_eq!(from_dir, config(&model));
    assert_eq!(from_dir.to_json()["pad_token_id"], 299);
    let path = fixture("decoders/llama");
    let model = ModelDir::open(&path).unwrap().with_head().unwrap();
    assert_eq!(padding(&config(&model), &path, false), [Some(60); 3]);
    // A token of its own, and a head that was trained without one.
    for (name, token) in [
        ("gpt2_seq", Some(1)),
        ("gpt2_nopad_reg", None),
        ("llama_seq", Some(1)),
        ("phi3_nopad_reg", None),
    ] {
        let path = encoder(name);
        let model = ModelDir::open(&path).unwrap().with_head().unwrap();
        for fresh in [false, true] {
            assert_eq!(padding(&config(&model), &path, fresh), [token; 3], "{name}");
        }
    }
}

/// A head without a class in transformers could not be loaded there.
#[test]
fn heads_are_those_that_transformers_has() {
    let device = Device::flex();
    for (name, head, message) in [
        ("granite", HeadKind::Sequence, "…ForSequenceClassification"),
        ("olmo3", HeadKind::Token, "…ForTokenClassification"),
    ] {
        let options = ClassifierOptions {
            head,
            ..ClassifierOptions::default()
        };
        let path = fixture("decoders").join(name);
        let error = Classifier::load(path, &options, &device).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(name) && error.contains(message), "{error}");
    }
}

/// A head for texts on a GPT-2 is another module than one for tokens.
#[test]
fn a_head_of_the_other_kind_is_left_out_for_a_new_one() {
    let device = Device::flex();
    for (name, head) in [
        ("gpt2_seq", HeadKind::Token),
        ("gpt2_tok", HeadKind::Sequence),
    ] {
        let other = ClassifierOptions {
            head,
            fresh_head: true,
            ..ClassifierOptions::default()
        };
        let (model, report) = Classifier::load(encoder(name), &other, &device).unwrap();
        assert_eq!(model.random_modules(), model.modules_to_save(), "{name}");
        let reasons: Vec<&str> = report.ignored.iter().map(|t| t.reason.as_str()).collect();
        assert!(
            reasons.contains(&"head of another task"),
            "{name}: {reasons:?}"
        );
        let batch = Batch::of_model(name, &device);
        assert!(
            host(batch.logits(&model))
                .iter()
                .all(|value| value.is_finite())
        );
    }
}
