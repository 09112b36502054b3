//! Prompts of PEFT give its logits and gradients, and come back as it wrote them; the other kinds of virtual tokens are written and
//! read, for encoders too.

use crate::common::{assert_real_logits, fixture, load, mask_of, weighted};
use crate::encoders;
use burn::tensor::{Device, Gradients};
use lora_core::files::Overwrite;
use lora_models::decoder::DecoderLm;
use lora_models::prefix::{PrefixConfig, PrefixKind};
use lora_models::{AddedModel, LoadOptions, LoraModel, Pretrained, SaveAdapter};
use std::path::PathBuf;
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host};

/// The reference is in f64 and the models run in f32, on values of the order of 1 to 10.
const TOLERANCE: f32 = 1e-4;

const CLASSIFIERS: &[(&str, &str)] = &[
    ("bert", "bert_seq"),
    ("roberta", "roberta_seq"),
    ("v3", "v3_seq"),
    ("deberta", "deberta_seq"),
];

fn prompt(name: &str) -> PathBuf {
    fixture("prompt").join(name)
}

fn expected(name: &str) -> Tensors {
    Tensors::open(fixture("prompt").join(format!("{name}.safetensors")))
}

/// Compares the gradient of the embeddings with PEFT's.
fn assert_gradient(model: &impl AddedModel, grads: &Gradients, expected: &Tensors, what: &str) {
    let embeddings = model.prefix().unwrap().embeddings.val();
    let (values, _) = expected.floats("grad.prompt_embeddings");
    let gradient = embeddings.grad(grads).unwrap();
    assert_near(&host(gradient), &values, TOLERANCE, what);
}

#[test]
fn logits_and_gradients_of_classifiers_are_those_of_peft() {
    let device = Device::flex().autodiff();
    for &(name, base) in CLASSIFIERS {
        let expected = expected(name);
        let adapted = encoders::model(base, &device).load_adapter(prompt(name));
        let model = adapted
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .into_module();
        let (mask, _) = mask_of(&expected, "attention_mask", &device);
        let ids = expected.ids("input_ids", &device);
        let types = expected.ids("token_type_ids", &device);
        let logits = model.forward(ids, &mask, Some(types));
        let (values, _) = expected.floats("logits");
        assert_near(&host(logits.clone()), &values, TOLERANCE, name);
        let grads = weighted(logits, &expected).backward();
        assert_gradient(&model, &grads, &expected, name);
    }
}

#[test]
fn logits_and_gradients_of_gpt2_are_those_of_peft() {
    let device = Device::flex().autodiff();
    let expected = expected("gpt2");
    let model = load("gpt2_tied", &device)
        .0
        .load_adapter(prompt("gpt2"))
        .unwrap()
        .into_module();
    let (mask, real) = mask_of(&expected, "attention_mask", &device);
    let logits = model.forward(expected.ids("input_ids", &device), Some(mask));
    let (values, shape) = expected.floats("logits");
    let logits = logits.narrow(2, 0, shape[2]);
    assert_real_logits(&logits, &real, &values, TOLERANCE, "gpt2");
    let grads = weighted(logits, &expected).backward();
    assert_gradient(&model, &grads, &expected, "prompt_embeddings");
}

#[test]
fn logits_and_gradients_of_decoders_are_those_of_peft() {
    let device = Device::flex().autodiff();
    for (name, base) in [
        ("granite", "decoders/granite"),
        ("gemma2", "decoders/gemma2"),
        ("gemma3", "decoders/gemma3_text"),
    ] {
        let expected = expected(name);
        let options = LoadOptions::default();
        let (base, _) = DecoderLm::load(fixture(base), &options, &device).unwrap();
        let model = base.load_adapter(prompt(name)).unwrap().into_module();
        let (mask, real) = mask_of(&expected, "attention_mask", &device);
        let logits = model.forward(expected.ids("input_ids", &device), Some(mask));
        let (values, shape) = expected.floats("logits");
        let logits = logits.narrow(2, 0, shape[2]);
        assert_real_logits(&logits, &real, &values, TOLERANCE, name);
        let grads = weighted(logits, &expected).backward();
        assert_gradient(&model, &grads, &expected, name);
    }
}

#[test]
fn files_come_back_as_peft_wrote_them() {
    let device = Device::flex();
    for &(name, base) in CLASSIFIERS {
        let adapted = encoders::model(base, &device)
            .load_adapter(prompt(name))
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        let base = format!("encoders/{base}");
        adapted
            .save_adapter(&path, Some(&base), Overwrite::Refuse)
            .unwrap();
        let file = "adapter_model.safetensors";
        let (ours, theirs) = (
            Tensors::open(path.join(file)),
            Tensors::open(prompt(name).join(file)),
        );
        assert_eq!(ours.names(), theirs.names(), "{name}");
        for tensor in theirs.names() {
            assert_eq!(
                ours.floats(&tensor),
                theirs.floats(&tensor),
                "{name}: {tensor}"
            );
        }
    }
}

/// Every kind beside an encoder changes its outputs, and is the same after it was written and read.
#[test]
fn all_kinds_of_virtual_tokens_are_saved_and_loaded_for_encoders() {
    let device = Device::flex();
    for base in ["bert_seq", "roberta_tok", "deberta_seq", "v3_seq"] {
        let batch = encoders::Batch::of_model(base, &device).row(1);
        let bare = host(batch.logits(&encoders::model(base, &device)));
        for kind in PrefixKind::ALL {
            let what = format!("{base}, {kind:?}");
            let config = PrefixConfig::new(3).with_kind(kind).with_seed(5);
            let adapted = encoders::model(base, &device)
                .freeze_all_but_head()
                .unwrap();
            let adapted = adapted.try_map(|model| model.with_prefix(&config)).unwrap();
            let found = host(batch.logits(adapted.module()));
            assert_eq!(found.len(), bare.len(), "{what}");
            assert_ne!(found, bare, "{what}");
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("adapter");
            adapted
                .save_adapter(&path, None, Overwrite::Refuse)
                .unwrap();
            let again = encoders::model(base, &device).load_adapter(&path).unwrap();
            assert_eq!(again.module().prefix().unwrap().kind(), kind);
            assert_eq!(host(batch.logits(again.module())), found, "{what}");
        }
    }
}

/// Activations that equal what a prompt computes give the prompt's logits: keys and values of both come from the layers.
#[test]
fn every_kind_changes_gpt2_and_is_saved_and_loaded() {
    let device = Device::flex();
    let ids = crate::common::model_tensors("gpt2_tied").ids("right.input_ids", &device);
    let bare = host(load("gpt2_tied", &device).0.forward(ids.clone(), None));
    for kind in PrefixKind::ALL {
        let config = PrefixConfig::new(2).with_kind(kind).with_seed(1);
        let adapted = load("gpt2_tied", &device).0.freeze_all_but_head().unwrap();
        let adapted = adapted.try_map(|model| model.with_prefix(&config)).unwrap();
        let found = host(adapted.module().forward(ids.clone(), None));
        assert_ne!(found, bare, "{kind:?}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        adapted
            .save_adapter(&path, None, Overwrite::Refuse)
            .unwrap();
        let again = load("gpt2_tied", &device).0.load_adapter(&path).unwrap();
        assert_eq!(
            host(again.module().forward(ids.clone(), None)),
            found,
            "{kind:?}"
        );
    }
}

#[test]
fn a_prompt_starts_from_the_embeddings_of_a_text_in_turn() {
    let device = Device::flex();
    let config = PrefixConfig::new(3)
        .with_kind(PrefixKind::Embeddings)
        .with_start(vec![4, 7]);
    let model = load("gpt2_tied", &device).0;
    let table = host(model.transformer.wte.weight.val());
    let d = table.len() / model.config().vocab_size;
    let row = |id: usize| &table[id * d..(id + 1) * d];
    let model = model.with_prefix(&config).unwrap();
    let values = host(model.prefix().unwrap().embeddings.val());
    assert_eq!(values, [row(4), row(7), row(4)].concat());
}
