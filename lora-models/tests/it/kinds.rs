//! Every kind of adapter that PEFT makes computes here what it computes there, on every family, and
//! goes back to PEFT.

use crate::common::{self, fixture, model_tensors};
use crate::encoders;
use crate::encoders::gradients::file_gradients;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use lora_core::files::Overwrite;
use lora_core::{Adapted, BiasTraining, LoraConfig, LoraInit, TargetModules, detach, merge};
use lora_models::classifier::Classifier;
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{LoraModel, LoraTargets, SaveAdapter};
use std::path::PathBuf;
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host, json};

/// The reference is in f64, and PiSSA's and OLoRA's start was taken out of the base in f32.
const TOLERANCE: f32 = 5e-5;

/// A model of a fixture, and its logits on the fixture's batch.
trait Fixture: LoraModel + Module {
    fn open(base: &str, device: &Device) -> Self;

    /// `[rows, outputs]`, and which rows are no padding.
    fn rows(&self, base: &str) -> (Tensor<2>, Vec<bool>);
}

impl Fixture for Gpt2LmHead {
    fn open(base: &str, device: &Device) -> Self {
        common::load(base, device).0
    }

    fn rows(&self, base: &str) -> (Tensor<2>, Vec<bool>) {
        let device = self.device();
        let batch = common::Batch::of(&model_tensors(base), "right", &device);
        let logits = batch.logits(self);
        let [examples, tokens, vocabulary] = logits.dims();
        (logits.reshape([examples * tokens, vocabulary]), batch.real)
    }
}

impl Fixture for Classifier {
    fn open(base: &str, device: &Device) -> Self {
        encoders::model(base, device)
    }

    fn rows(&self, base: &str) -> (Tensor<2>, Vec<bool>) {
        let batch = encoders::Batch::of_model(base, &self.device());
        let logits = batch.logits(self);
        let of_tokens = logits.dims()[0] == batch.real.len();
        let rows = logits.dims()[0];
        (
            logits,
            if of_tokens {
                batch.real
            } else {
                vec![true; rows]
            },
        )
    }
}

fn adapter(name: &str) -> PathBuf {
    fixture("kinds").join(name)
}

fn expected(name: &str) -> Tensors {
    Tensors::open(fixture("kinds").join(format!("{name}.safetensors")))
}

/// All that PEFT wrote, as `(base, kind)`.
fn cases() -> Vec<(String, String)> {
    let files = std::fs::read_dir(fixture("kinds")).unwrap();
    let mut names: Vec<String> = files
        .filter_map(|file| file.unwrap().file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".safetensors")?.to_string()))
        .collect();
    names.sort();
    assert!(names.len() > 40, "{names:?}");
    let split = |name: String| {
        let (base, kind) = name.split_once('.').unwrap();
        (base.to_string(), kind.to_string())
    };
    names.into_iter().map(split).collect()
}

/// Runs a check on the model of each case.
macro_rules! for_every_case {
    ($check:ident) => {
        for (base, kind) in cases() {
            if base.starts_with("gpt2") {
                $check::<Gpt2LmHead>(&base, &kind)
            } else {
                $check::<Classifier>(&base, &kind)
            }
        }
    };
}

fn assert_rows(found: &(Tensor<2>, Vec<bool>), expected: &[f32], tolerance: f32, what: &str) {
    let (logits, real) = found;
    let width = logits.dims()[1];
    let found = host(logits.clone());
    assert_eq!(found.len(), expected.len(), "{what}");
    let rows = found.chunks_exact(width).zip(expected.chunks_exact(width));
    for (at, (found, expected)) in rows.enumerate().filter(|(at, _)| real[*at]) {
        assert_near(found, expected, tolerance, &format!("{what}, row {at}"));
    }
}

fn changes_base(kind: &str) -> bool {
    kind.starts_with("pissa") || kind.starts_with("olora")
}

#[test]
fn logits_and_gradients_are_those_of_peft() {
    fn check<M: Fixture>(base: &str, kind: &str) {
        let name = format!("{base}.{kind}");
        let device = Device::flex().autodiff();
        let loaded = M::open(base, &device).load_adapter(adapter(&name));
        let loaded = loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (model, report) = loaded.into_parts();
        let expected = expected(&name);
        let rows = model.rows(base);
        assert_rows(&rows, &expected.floats("logits").0, TOLERANCE, &name);

        let weights = TensorData::new(expected.floats("weights").0, rows.0.dims());
        let sum = (rows.0 * Tensor::from_data(weights, &device)).sum();
        let found = file_gradients(&model, &report, &sum.backward());
        let names = expected.names().into_iter();
        let of_peft: Vec<String> = names
            .filter_map(|name| Some(name.strip_prefix("grad.")?.to_string()))
            .collect();
        assert_eq!(found.keys().cloned().collect::<Vec<_>>(), of_peft, "{name}");
        for (tensor, (found, shape)) in found {
            let (values, file_shape) = expected.floats(&format!("grad.{tensor}"));
            assert_eq!(file_shape, shape, "{name}: {tensor}");
            let largest = values
                .iter()
                .fold(1.0f32, |max, value| max.max(value.abs()));
            let what = format!("{name}, gradient of {tensor}");
            // A gradient is a sum over all tokens, of terms as large as its largest.
            let (found, values) = (scaled(&found, largest), scaled(&values, largest));
            assert_near(&found, &values, TOLERANCE, &what);
        }
    }
    for_every_case!(check);
}

fn scaled(values: &[f32], by: f32) -> Vec<f32> {
    values.iter().map(|value| value / by).collect()
}

#[test]
fn adapters_are_saved_as_peft_wrote_them_and_loaded_again() {
    fn check<M: Fixture>(base: &str, kind: &str) {
        let name = format!("{base}.{kind}");
        let device = Device::flex();
        let (model, report) = M::open(base, &device)
            .load_adapter(adapter(&name))
            .unwrap()
            .into_parts();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&path, Some(base), Overwrite::Refuse)
            .unwrap();
        let (again, again_report) = M::open(base, &device)
            .load_adapter(&path)
            .unwrap()
            .into_parts();
        assert_eq!(again_report.parameters(), report.parameters(), "{name}");
        let before = host(model.rows(base).0);
        assert_eq!(host(again.rows(base).0), before, "{name}");

        let theirs = if changes_base(kind) {
            adapter(&format!("{name}.converted"))
        } else {
            adapter(&name)
        };
        if !theirs.exists() {
            return; // PEFT loses the head when it converts a classifier's adapter.
        }
        let file = "adapter_model.safetensors";
        let (ours, peft) = (
            Tensors::open(path.join(file)),
            Tensors::open(theirs.join(file)),
        );
        let names = peft.names().into_iter();
        // Copies that PEFT writes with `bias="all"`.
        let is_copy = |n: &String| n.contains("original_module") || n.contains("modules_to_save");
        let names: Vec<String> = names.filter(|name| !is_copy(name)).collect();
        assert_eq!(ours.names(), names, "{name}");
        for tensor in &names {
            let (ours, peft) = (ours.floats(tensor), peft.floats(tensor));
            assert_eq!(ours.1, peft.1, "{name}: {tensor}");
            if !changes_base(kind) {
                assert_eq!(ours, peft, "{name}: {tensor}");
            }
        }
        let json = |dir: &PathBuf| json(&dir.join("adapter_config.json"));
        let (ours, peft) = (json(&path), json(&theirs));
        for key in [
            "r",
            "lora_alpha",
            "use_dora",
            "lora_bias",
            "bias",
            "use_rslora",
            "init_lora_weights",
        ] {
            assert_eq!(ours[key], peft[key], "{name}: {key}");
        }
    }
    for_every_case!(check);
}

#[test]
fn what_peft_converted_to_the_original_base_is_the_same_adapter() {
    fn check<M: Fixture>(base: &str, kind: &str) {
        let name = format!("{base}.{kind}");
        let converted = adapter(&format!("{name}.converted"));
        if !converted.exists() {
            return;
        }
        let (model, _) = M::open(base, &Device::flex())
            .load_adapter(converted)
            .unwrap()
            .into_parts();
        let (expected, _) = expected(&name).floats("logits");
        assert_rows(&model.rows(base), &expected, TOLERANCE, &name);
    }
    for_every_case!(check);
}

#[test]
fn a_merge_computes_the_same_and_a_detach_leaves_the_base() {
    fn check<M: Fixture>(base: &str, kind: &str) {
        let name = format!("{base}.{kind}");
        let device = Device::flex();
        let bare = M::open(base, &device);
        let (model, report) = bare
            .clone()
            .load_adapter(adapter(&name))
            .unwrap()
            .into_parts();
        let (adapted, real) = model.rows(base);
        let merged = merge(model.clone()).into_module();
        // Sums of weights instead of sums of products.
        assert_rows(&merged.rows(base), &host(adapted), TOLERANCE, &name);
        report.switch.set_enabled(false);
        let off = host(model.rows(base).0);
        let detached = host(detach(model).rows(base).0);
        assert_eq!(off, detached, "{name}");
        // What trains whole stays.
        if report.saved.is_empty() {
            assert_eq!(off, host(bare.rows(base).0), "{name}: {}", real.len());
        }
    }
    for_every_case!(check);
}

/// Training begins at the base model, whatever the factors start at; but for those that PEFT has for
/// its tests.
#[test]
fn a_fresh_adapter_changes_nothing_but_the_random_one() {
    fn check<M: Fixture>(base: &str, targets: &[&str]) {
        let device = Device::flex();
        let bare = M::open(base, &device);
        let before = host(bare.rows(base).0);
        for init in [
            LoraInit::KaimingUniform,
            LoraInit::Gaussian,
            LoraInit::Orthogonal,
            LoraInit::Pissa,
            LoraInit::FastPissa { iterations: 2 },
            LoraInit::Olora,
            LoraInit::Random,
        ] {
            for dora in [false, true] {
                let config = LoraConfig::new(2)
                    .with_init(init)
                    .with_dora(dora)
                    .with_targets(TargetModules::names(targets.to_vec()));
                let what = format!("{base}, {init}, DoRA {dora}");
                let (model, _) = bare.clone().attach(&config).unwrap().into_parts();
                let rows = model.rows(base);
                match init {
                    LoraInit::Random => assert_ne!(host(rows.0), before, "{what}"),
                    _ => assert_rows(&rows, &before, 1e-5, &what),
                }
            }
        }
    }
    check::<Gpt2LmHead>("gpt2_tied", &["c_attn"]);
    check::<Gpt2LmHead>("gpt2_tied", &["c_attn[q,v]"]);
    check::<Classifier>("deberta_seq", &["in_proj[q,v]"]);
    check::<Classifier>("roberta_reg", &["query", "dense"]);
}

/// A sliced adapter that starts at the weight is one file like any other, and comes back in its slices.
#[test]
fn slices_that_start_at_the_weight_are_saved_as_their_difference() {
    let device = Device::flex();
    for (base, target) in [("gpt2_tied", "c_attn[q,v]"), ("gpt2_tied", "c_attn[k]")] {
        let config = LoraConfig::new(2)
            .with_alpha(5.0)
            .with_init(LoraInit::Pissa)
            .with_dora(true)
            .with_targets(TargetModules::names([target]));
        let (model, report) = Gpt2LmHead::open(base, &device)
            .attach(&config)
            .unwrap()
            .into_parts();
        let model = common::fill_adapters(model);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&path, None, Overwrite::Refuse)
            .unwrap();
        let (again, again_report) = Gpt2LmHead::open(base, &device)
            .load_adapter(&path)
            .unwrap()
            .into_parts();
        let (module, again_module) = (&report.modules[0], &again_report.modules[0]);
        assert_eq!(again_module.slices, module.slices);
        assert_eq!((again_module.rank, again_module.alpha), (2, 5.0));
        assert_eq!(again_report.config.init, LoraInit::Pissa);
        assert_eq!(
            host(again.rows(base).0),
            host(model.rows(base).0),
            "{target}"
        );
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let device = Device::flex();
    let refused = |base: &str, config: LoraConfig| {
        let error = if base.starts_with("gpt2") {
            Gpt2LmHead::open(base, &device).attach(&config).err()
        } else {
            Classifier::open(base, &device).attach(&config).err()
        };
        error.expect("refused").to_string()
    };
    let names =
        |targets: &[&str]| LoraConfig::new(2).with_targets(TargetModules::names(targets.to_vec()));
    let error = refused("deberta_seq", names(&["in_proj"]).with_lora_bias(true));
    assert!(
        error.contains("in_proj") && error.contains("has no bias"),
        "{error}"
    );
    let error = refused("gpt2_untied", names(&["wte"]).with_init(LoraInit::Olora));
    assert!(
        error.contains("wte") && error.contains("embedding"),
        "{error}"
    );
    let error = refused(
        "gpt2_tied",
        names(&["c_attn"]).with_lora_bias(true).with_dora(true),
    );
    assert!(error.contains("lora_bias"), "{error}");
}

#[test]
fn biases_train_as_asked() {
    let device = Device::flex();
    let saved = |bias: BiasTraining| {
        let config = LoraConfig::new(2)
            .with_bias(bias)
            .with_targets(TargetModules::names(["c_attn"]));
        let (_, report) = Gpt2LmHead::open("gpt2_tied", &device)
            .attach(&config)
            .unwrap()
            .into_parts();
        report
            .saved
            .into_iter()
            .map(|saved| saved.name)
            .collect::<Vec<_>>()
    };
    assert!(saved(BiasTraining::None).is_empty());
    let adapted = "transformer.h.0.attn.c_attn.base_layer.bias";
    let lora_only = saved(BiasTraining::LoraOnly);
    assert_eq!(lora_only[0], adapted);
    assert!(
        lora_only
            .iter()
            .all(|name| name.ends_with("c_attn.base_layer.bias"))
    );
    let all = saved(BiasTraining::All);
    assert!(all.contains(&adapted.to_string()));
    assert!(all.contains(&"transformer.ln_f.bias".to_string()));
    assert!(all.iter().all(|name| name.ends_with("bias")));
}
