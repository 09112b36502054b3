//! The model computes what transformers computes, from every form of its files, and refuses files
//! that are not its own.

use crate::common::{Batch, TOLERANCE, fixture, load, model_tensors};
use burn::tensor::{Device, Int, Tensor};
use lora_models::checkpoint::{Checkpoint, SafetensorsExport};
use lora_models::generate::KvCache;
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::{FamilyConfig, LoadOptions, ModelError, Pretrained};
use std::path::Path;
use test_support::compare::assert_near;
use test_support::tensors::host;

#[test]
fn logits_and_loss_are_those_of_transformers() {
    let device = Device::flex();
    for name in ["gpt2_tied", "gpt2_untied", "gpt2_relu"] {
        let (model, config) = load(name, &device);
        assert_eq!(model.lm_head.is_none(), config.tie_word_embeddings);
        let expected = model_tensors(name);
        for side in ["right", "left"] {
            let what = format!("{name}, {side}");
            let batch = Batch::of(&expected, side, &device);
            let logits = batch.logits(&model);
            let (values, _) = expected.floats(&format!("{side}.logits"));
            batch.assert_logits(&logits, &values, TOLERANCE, &what);
            let (loss, _) = expected.floats(&format!("{side}.loss"));
            assert_near(&host(batch.loss(logits)), &loss, TOLERANCE, &what);
        }
    }
}

#[test]
fn every_form_of_the_files_gives_the_same_model() {
    let device = Device::flex();
    let expected = model_tensors("gpt2_tied");
    let batch = Batch::of(&expected, "right", &device);
    let reference = host(batch.logits(&load("gpt2_tied", &device).0));
    for (name, buffers) in [
        ("gpt2_tied_sharded", 0),
        ("gpt2_tied_bin", 0),
        ("gpt2_tied_bare", 4),
    ] {
        let (model, report) =
            Gpt2LmHead::load(fixture(name), &LoadOptions::default(), &device).unwrap();
        assert_eq!(host(batch.logits(&model)), reference, "{name}");
        assert_eq!(report.tensors, 28, "{name}");
        let of_mask = |tensor: &&lora_models::checkpoint::IgnoredTensor| {
            tensor.reason.contains("causal mask")
        };
        assert_eq!(
            report.ignored.iter().filter(of_mask).count(),
            buffers,
            "{name}"
        );
    }
}

#[test]
fn half_precision_weights_are_computed_with_in_f32() {
    let device = Device::flex();
    let batch = Batch::of(&model_tensors("gpt2_tied"), "right", &device);
    for name in ["gpt2_tied_f16", "gpt2_tied_bf16"] {
        let (values, _) = model_tensors(name).floats("right.logits");
        let logits = batch.logits(&load(name, &device).0);
        batch.assert_logits(&logits, &values, TOLERANCE, name);
    }
}

#[test]
fn padding_changes_nothing_but_a_row_of_nothing_else_is_finite() {
    let device = Device::flex();
    let (model, _) = load("gpt2_tied", &device);
    let ids = Tensor::<2, Int>::from_ints([[7, 8, 9]], &device);
    let bare = host(model.forward(ids.clone(), None));
    let padded = Tensor::<2, Int>::from_ints([[1, 2, 7, 8, 9], [3, 3, 3, 3, 3]], &device);
    let real = [[false, false, true, true, true], [false; 5]];
    let mask = Tensor::from_data(real, &device);
    let positions = Tensor::<2, Int>::from_ints([[0, 0, 0, 1, 2]], &device);
    let hidden = model
        .transformer
        .forward(padded, Some(mask), Some(positions), None);
    let logits = host(model.logits(hidden));
    assert!(logits.iter().all(|value| value.is_finite()));
    assert_near(&logits[2 * 300..5 * 300], &bare, 1e-5, "padded on the left");
}

#[test]
fn steps_with_a_cache_give_the_logits_of_the_whole() {
    let device = Device::flex();
    let (model, config) = load("gpt2_untied", &device);
    let ids = Tensor::<2, Int>::from_ints([[5, 17, 200, 3, 42, 9], [1, 2, 3, 4, 5, 6]], &device);
    let whole = model.transformer.forward(ids.clone(), None, None, None);
    // Room for two tokens only: the cache must grow.
    let mut cache = KvCache::new(config.n_layer, 2);
    let mut pieces = Vec::new();
    for (start, length) in [(0, 3), (3, 1), (4, 2)] {
        let piece = ids.clone().narrow(1, start, length);
        pieces.push(
            model
                .transformer
                .forward(piece, None, None, Some(&mut cache)),
        );
    }
    assert_eq!(cache.len(), 6);
    let pieces = Tensor::cat(pieces, 1);
    assert_near(&host(pieces), &host(whole), 1e-5, "hidden states");
}

#[test]
fn a_projection_of_some_rows_is_theirs_of_all() {
    let device = Device::flex();
    for name in ["gpt2_tied", "gpt2_untied"] {
        let (model, config) = load(name, &device);
        let ids = Tensor::<2, Int>::from_ints([[5, 17, 200]], &device);
        let all = host(model.forward(ids.clone(), None));
        let hidden = model.transformer.forward(ids, None, None, None);
        let last = hidden.reshape([3, config.n_embd]).narrow(0, 2, 1);
        let last = host(model.logits(last));
        assert_near(&last, &all[2 * 300..], 1e-6, name);
    }
}

/// A copy of a fixture whose weights went through `change`.
fn changed(
    name: &str,
    change: impl Fn(&mut Vec<(String, Vec<usize>)>, &mut serde_json::Value),
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(fixture(name)).unwrap();
    let shape = |name: &str| source.shape(name).unwrap().to_vec();
    let mut plan: Vec<_> = source.names().map(|n| (n.to_string(), shape(n))).collect();
    let text = std::fs::read(fixture(name).join("config.json")).unwrap();
    let mut config = serde_json::from_slice(&text).unwrap();
    change(&mut plan, &mut config);
    let values = |name: &str| {
        let (_, shape) = plan.iter().find(|(n, _)| n == name).unwrap();
        Ok(vec![0.5; shape.iter().product()])
    };
    SafetensorsExport::new(dir.path())
        .write(&plan, values)
        .unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

fn load_error(dir: &Path) -> ModelError {
    match Gpt2LmHead::load(dir, &LoadOptions::default(), &Device::flex()) {
        Err(error) => error,
        Ok(_) => panic!("{} loads", dir.display()),
    }
}

const C_FC: &str = "transformer.h.1.mlp.c_fc.weight";

#[test]
fn missing_extra_and_misshapen_tensors_are_refused_by_name() {
    let missing = changed("gpt2_tied", |plan, _| plan.retain(|(name, _)| name != C_FC));
    match load_error(missing.path()) {
        ModelError::TensorMissing { names, .. } => assert_eq!(names, [C_FC]),
        other => panic!("{other}"),
    }
    let extra = changed("gpt2_tied", |plan, _| {
        plan.push(("score.weight".into(), vec![2, 24]))
    });
    match load_error(extra.path()) {
        ModelError::TensorUnexpected { names, .. } => assert_eq!(names, ["score.weight"]),
        other => panic!("{other}"),
    }
    let misshapen = changed("gpt2_tied", |plan, _| {
        let (_, shape) = plan.iter_mut().find(|(name, _)| name == C_FC).unwrap();
        shape.reverse();
    });
    match load_error(misshapen.path()) {
        ModelError::TensorShape {
            name,
            expected,
            found,
            ..
        } => assert_eq!(
            (name.as_str(), expected, found),
            (C_FC, vec![24, 96], vec![96, 24])
        ),
        other => panic!("{other}"),
    }
}

#[test]
fn a_head_is_needed_where_it_is_not_tied_and_passed_over_where_it_is() {
    let headless = changed("gpt2_untied", |plan, _| {
        plan.retain(|(name, _)| name != "lm_head.weight");
    });
    match load_error(headless.path()) {
        ModelError::TensorMissing { names, .. } => assert_eq!(names, ["lm_head.weight"]),
        other => panic!("{other}"),
    }
    let both = changed("gpt2_untied", |_, config| {
        config["tie_word_embeddings"] = true.into();
    });
    let (model, report) =
        Gpt2LmHead::load(both.path(), &LoadOptions::default(), &Device::flex()).unwrap();
    assert!(model.lm_head.is_none());
    assert_eq!(report.ignored[0].name, "lm_head.weight");
    let misshapen = changed("gpt2_tied", |plan, _| {
        plan.push(("lm_head.weight".into(), vec![24, 300]));
    });
    assert!(matches!(
        load_error(misshapen.path()),
        ModelError::TensorShape { .. }
    ));
}

#[test]
fn a_configuration_of_another_model_is_refused() {
    let other = changed("gpt2_tied", |_, config| {
        config["model_type"] = "llama".into()
    });
    match load_error(other.path()) {
        ModelError::UnsupportedConfig { key, value, .. } => {
            assert_eq!((key.as_str(), value.as_str()), ("model_type", "llama"));
        }
        other => panic!("{other}"),
    }
    let layers = changed("gpt2_tied", |_, config| config["n_layer"] = 3.into());
    match load_error(layers.path()) {
        ModelError::TensorMissing { names, .. } => assert_eq!(names.len(), 12),
        other => panic!("{other}"),
    }
    let heads = changed("gpt2_tied", |_, config| config["n_head"] = 5.into());
    assert!(matches!(
        load_error(heads.path()),
        ModelError::UnsupportedConfig { .. }
    ));
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(
        load_error(nothing.path()),
        ModelError::NotAModel { .. }
    ));
}

#[test]
fn a_model_that_was_loaded_for_training_trains() {
    use burn::module::Module;
    let device = Device::flex();
    let (model, _) = load("gpt2_relu", &device);
    let training = device.clone().autodiff();
    let model = model.train();
    let batch = Batch::of(&model_tensors("gpt2_relu"), "right", &training);
    let grads = batch.loss(batch.logits(&model)).backward();
    let gradient = model.transformer.h[0].mlp.c_fc.weight.val().grad(&grads);
    assert!(gradient.is_some());
    // Its dropout is on: two passes differ. Without autodiff they do not.
    assert_ne!(host(batch.logits(&model)), host(batch.logits(&model)));
    let model = model.valid();
    let batch = Batch::of(&model_tensors("gpt2_relu"), "right", &device);
    assert_eq!(host(batch.logits(&model)), host(batch.logits(&model)));
}

#[test]
fn configurations_come_back_as_they_were() {
    for name in ["gpt2_tied", "gpt2_untied", "gpt2_relu"] {
        let config = Gpt2Config::from_dir(fixture(name)).unwrap();
        let text = std::fs::read(fixture(name).join("config.json")).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(serde_json::Value::Object(config.to_json()), file, "{name}");
    }
}
