//! Adapters on the ends of a tied model: PEFT's logits, merged and not, on bases of the same and of a smaller vocabulary.

use crate::common::{TOLERANCE, fixture};
use burn::tensor::{Device, Int, Tensor};
use lora_core::file::{AdapterDir, StoredAdapter, StoredTensor};
use lora_core::files::Overwrite;
use lora_core::{Adapted, LoraConfig, LoraError, TargetModules, merge, weight_errors};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{
    ExportOptions, LoadOptions, LoraModel, LoraTargets, ModelAdapters, ModelError, Pretrained,
    SaveAdapter,
};
use std::path::PathBuf;
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host};

/// Adapters of the fixture on a base of the same size.
const ON_BASE: [&str; 7] = [
    "wte",
    "head",
    "both",
    "tied",
    "wpe_dropout",
    "rows",
    "rows_of_each",
];
/// Adapters whose base PEFT resized first.
const RESIZED: [&str; 6] = [
    "new_plain",
    "new_rows",
    "new_wte",
    "new_head",
    "new_tied",
    "new_on_wte",
];

fn path(name: &str) -> PathBuf {
    fixture("vocabulary").join(name)
}

fn expected() -> Tensors {
    Tensors::open(path("expected.safetensors"))
}

fn base(name: &str, device: &Device) -> Gpt2LmHead {
    Gpt2LmHead::load(path(name), &LoadOptions::default(), device)
        .unwrap()
        .0
}

fn ids(name: &str, device: &Device) -> Tensor<2, Int> {
    let of = if name.starts_with("new_") {
        "new_ids"
    } else {
        "ids"
    };
    expected().ids(of, device)
}

fn logits(model: &Gpt2LmHead, name: &str) -> Vec<f32> {
    host(model.forward(ids(name, &Device::flex()), None))
}

fn adapted(name: &str) -> Adapted<Gpt2LmHead> {
    base("base", &Device::flex())
        .load_adapter(path(name))
        .unwrap()
}

#[test]
fn each_adapter_gives_pefts_logits_and_again_after_it_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    for name in ON_BASE.iter().chain(&RESIZED) {
        let model = adapted(name);
        let reference = expected().values(name);
        assert_near(&logits(model.module(), name), &reference, TOLERANCE, name);
        let saved = dir.path().join(name);
        model.save_adapter(&saved, None, Overwrite::Refuse).unwrap();
        let again = base("base", &Device::flex()).load_adapter(&saved).unwrap();
        assert_eq!(logits(again.module(), name), logits(model.module(), name));
    }
}

#[test]
fn a_resized_base_is_told_and_a_base_of_the_same_size_is_not() {
    for name in RESIZED {
        let notes = adapted(name).report().notes.join("\n");
        assert!(notes.contains("from 19 to 22 tokens"), "{name}: {notes}");
    }
    for name in ON_BASE.into_iter().filter(|name| *name != "tied") {
        assert!(adapted(name).report().notes.is_empty(), "{name}");
    }
}

#[test]
fn merged_and_exported_models_have_the_adapters_logits() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::flex();
    for name in ON_BASE.iter().chain(&RESIZED) {
        let (model, report) = adapted(name).into_parts();
        let merged = merge(model.clone()).into_module();
        let written = dir.path().join(name);
        let options = ExportOptions::default();
        merged
            .export(&written, &options, Overwrite::Refuse)
            .unwrap();
        let (read, _) = Gpt2LmHead::load(&written, &LoadOptions::default(), &device).unwrap();
        let reference = expected().values(name);
        assert_near(&logits(&read, name), &reference, TOLERANCE, name);
        let read = read.untie_head().unwrap();
        for error in weight_errors(&model, &report, &read).unwrap() {
            assert!(error.relative < 1e-6, "{name}: {error}");
        }
    }
}

#[test]
fn a_merge_that_loses_a_row_shows_among_the_weights() {
    for (name, other) in [("rows", "base"), ("wte", "base"), ("head", "base")] {
        let (model, report) = adapted(name).into_parts();
        let wrong = base(other, &Device::flex()).untie_head().unwrap();
        let errors = weight_errors(&model, &report, &wrong).unwrap();
        let ends = errors
            .iter()
            .filter(|error| !error.module.contains("c_attn"));
        let worst = ends.map(|error| error.relative);
        assert!(worst.fold(0.0, f64::max) > 0.01, "{name}");
    }
}

#[test]
fn the_head_of_a_model_with_a_trained_embedding_stays_that_of_the_base() {
    let model = base("base", &Device::flex());
    let config = LoraConfig::new(2).with_targets(TargetModules::names(["c_attn"]));
    let config = config.with_modules_to_save(["wte"]);
    let apart = model.clone().attach(&config).unwrap();
    let trained = |adapted: &Adapted<Gpt2LmHead>| -> Vec<String> {
        let saved = adapted.report().saved.iter();
        saved.map(|saved| saved.name.clone()).collect()
    };
    assert_eq!(trained(&apart), ["transformer.wte.weight"]);
    assert!(apart.module().lm_head.is_some());
    let both = config.clone().with_modules_to_save(["wte", "lm_head"]);
    let apart = model.clone().attach(&both).unwrap();
    assert_eq!(
        trained(&apart),
        ["transformer.wte.weight", "lm_head.weight"]
    );
    let tied = model.attach(&both.with_ensure_weight_tying(true)).unwrap();
    assert!(tied.module().lm_head.is_none());
    let stored = tied.extract(&Default::default()).unwrap();
    assert_eq!(
        stored.saved["lm_head.weight"],
        stored.saved["transformer.wte.weight"]
    );
}

#[test]
fn a_checkpoint_whose_ends_differ_is_not_tied() {
    let device = Device::flex();
    let options = LoadOptions::default();
    let (model, report) = Gpt2LmHead::load(path("untied"), &options, &device).unwrap();
    assert_near(
        &logits(&model, "untied"),
        &expected().values("untied"),
        TOLERANCE,
        "untied",
    );
    assert_eq!(report.notes.len(), 1, "{report}");
    assert!(report.notes[0].contains("tie_word_embeddings"), "{report}");
    assert_eq!(report.ignored.len(), 1, "{report}");
}

/// Rows of the width of the model were allocated for a file with values for one column.
#[test]
fn rows_are_counted_in_the_width_of_the_model_alone() {
    let dir = tempfile::tempdir().unwrap();
    let hostile = |name: &str, tensor: &str, shape: [usize; 2]| {
        let mut stored = StoredAdapter::read(path(name)).unwrap();
        let values = vec![0.5; shape[0] * shape[1]];
        let own = stored.saved.get_mut(tensor).unwrap();
        *own = StoredTensor::new(shape.to_vec(), values);
        let written = dir.path().join(format!("{name}-{}-{}", shape[0], shape[1]));
        stored.save(&written, Overwrite::Refuse).unwrap();
        let base = base("base", &Device::flex());
        let adapter = AdapterDir::open(&written).unwrap();
        let counted = base.tokens_with(&adapter).unwrap_err();
        let loaded = base.load_adapter(&written).unwrap_err();
        assert_eq!(counted.to_string(), loaded.to_string());
        match counted {
            ModelError::Lora(LoraError::TensorShape { expected, .. }) => expected,
            other => panic!("{other}"),
        }
    };
    let d = base("base", &Device::flex()).vocabulary().unwrap().d;
    for (name, tensor) in [
        ("new_wte", "transformer.wte.weight"),
        ("new_plain", "transformer.wte.weight"),
    ] {
        for shape in [[4096, 1], [22, d + 1]] {
            let expected = hostile(name, tensor, shape);
            assert!(expected == [19, d] || expected == [22, d], "{expected:?}");
        }
    }
}

#[test]
fn trained_rows_are_refused_among_named_adapters() {
    let mut adapters = base("base", &Device::flex()).named_adapters().unwrap();
    adapters.load("apart", path("wte")).unwrap();
    for name in ["rows", "tied"] {
        let error = adapters.load(name, path(name)).unwrap_err().to_string();
        assert!(error.contains("named"), "{error}");
    }
    let error = adapters.load("new", path("new_plain")).unwrap_err();
    assert!(error.to_string().contains("new embeddings"), "{error}");
}
