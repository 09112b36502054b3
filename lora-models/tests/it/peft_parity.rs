//! Adapters of PEFT give PEFT's logits and gradients, and come back as PEFT wrote them.

use crate::common::{Batch, TOLERANCE, fill_adapters, fixture, load, model_tensors};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use lora_core::files::Overwrite;
use lora_core::{Adapted, LoraConfig, LoraError, TargetModules, detach, merge};
use lora_models::ModelError;
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::{LoraModel, SaveAdapter};
use std::collections::BTreeMap;
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host, transpose};

/// Adapters and the models that they are on.
const ADAPTERS: &[(&str, &str)] = &[
    ("c_attn", "gpt2_tied"),
    ("all_linear", "gpt2_tied"),
    ("rslora", "gpt2_tied"),
    ("regex", "gpt2_tied"),
    ("layers", "gpt2_tied"),
    ("head_embed", "gpt2_untied"),
    ("qv_slices", "gpt2_tied"),
];

fn adapter(name: &str) -> std::path::PathBuf {
    fixture("adapters").join(name)
}

fn expected(name: &str) -> Tensors {
    Tensors::open(fixture("adapters").join(format!("{name}.safetensors")))
}

/// PEFT's name of the factor at `{module}.weight.lora.{a,b}`, by whether it is an embedding's.
fn peft_name(path: &str) -> String {
    let (module, factor) = path.split_once(".weight.lora.").unwrap();
    let factor = factor.to_uppercase();
    if module.ends_with("wte") {
        format!("base_model.model.{module}.lora_embedding_{factor}")
    } else {
        format!("base_model.model.{module}.lora_{factor}.weight")
    }
}

/// The gradient of every factor, with its shape, by PEFT's name.
struct FactorGradients<'a> {
    path: Vec<String>,
    grads: &'a Gradients,
    found: BTreeMap<String, (Vec<f32>, Vec<usize>)>,
}

impl ModuleVisitor for FactorGradients<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let gradient = param.base().grad(self.grads);
        if path.contains(".lora.") {
            let gradient = gradient.expect(&path);
            let shape = gradient.dims().to_vec();
            self.found.insert(peft_name(&path), (host(gradient), shape));
        } else {
            assert!(gradient.is_none(), "{path} is frozen");
        }
    }
}

#[test]
fn logits_loss_and_gradients_are_those_of_peft() {
    let device = Device::flex().autodiff();
    for &(name, base) in ADAPTERS {
        let (model, report) = load(base, &device)
            .0
            .load_adapter(adapter(name))
            .unwrap()
            .into_parts();
        let expected = expected(name);
        let batch = Batch::of(&model_tensors(base), "right", &device);
        let logits = batch.logits(&model);
        let (values, _) = expected.floats("logits");
        batch.assert_logits(&logits, &values, TOLERANCE, name);
        let loss = batch.loss(logits);
        assert_near(
            &host(loss.clone()),
            &expected.floats("loss").0,
            TOLERANCE,
            name,
        );

        let mut found = FactorGradients {
            path: Vec::new(),
            grads: &loss.backward(),
            found: BTreeMap::new(),
        };
        model.visit(&mut found);
        assert_eq!(found.found.len(), 2 * report.modules.len(), "{name}");
        for (tensor, (found, shape)) in found.found {
            let (values, file_shape) = expected.floats(&format!("grad.{tensor}"));
            assert_eq!(file_shape, [shape[1], shape[0]], "{tensor}");
            let found = transpose(&found, &shape);
            assert_near(
                &found,
                &values,
                TOLERANCE,
                &format!("{name}, gradient of {tensor}"),
            );
        }
    }
}

#[test]
fn the_keyword_all_linear_is_the_list_it_stands_for() {
    let device = Device::flex();
    let read = |name: &str| {
        let model = load("gpt2_tied", &device).0;
        let (model, report) = model.load_adapter(adapter(name)).unwrap().into_parts();
        let batch = Batch::of(&model_tensors("gpt2_tied"), "right", &device);
        (host(batch.logits(&model)), report.to_string())
    };
    assert_eq!(read("all_linear"), read("all_linear_keyword"));
}

/// PEFT writes the base weight of an embedding or head beside its adapter, unless told not to.
#[test]
fn copies_of_the_base_in_the_file_are_compared_with_the_model() {
    let device = Device::flex();
    let with_base = adapter("head_embed_with_base");
    let base = load("gpt2_untied", &device).0;
    let batch = Batch::of(&model_tensors("gpt2_untied"), "right", &device);
    let (model, _) = base.clone().load_adapter(&with_base).unwrap().into_parts();
    let (bare, _) = base
        .clone()
        .load_adapter(adapter("head_embed"))
        .unwrap()
        .into_parts();
    assert_eq!(host(batch.logits(&model)), host(batch.logits(&bare)));

    let mut other = base;
    let wte = &mut other.transformer.wte;
    wte.weight = wte.weight.clone().map(|weight| weight + 0.5);
    // As in PEFT, those of the file replace others, and a note says so.
    let (model, report) = other.load_adapter(&with_base).unwrap().into_parts();
    assert_eq!(host(batch.logits(&model)), host(batch.logits(&bare)));
    assert!(report.notes[0].contains("replaced"), "{:?}", report.notes);
}

#[test]
fn adapters_are_saved_as_peft_wrote_them() {
    let device = Device::flex();
    for &(name, base) in ADAPTERS {
        let (model, report) = load(base, &device)
            .0
            .load_adapter(adapter(name))
            .unwrap()
            .into_parts();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&path, Some("base"), Overwrite::Refuse)
            .unwrap();
        assert_same_files(&path, name);
        let config = std::fs::read(path.join("adapter_config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["task_type"], "CAUSAL_LM");
        assert_eq!(config["fan_in_fan_out"], name != "head_embed", "{name}");
        assert_eq!(config["base_model_name_or_path"], "base");
    }
}

fn assert_same_files(found: &std::path::Path, name: &str) {
    let file = "adapter_model.safetensors";
    let found = Tensors::open(found.join(file));
    let expected = Tensors::open(adapter(name).join(file));
    assert_eq!(found.names(), expected.names(), "{name}");
    for tensor in expected.names() {
        assert_eq!(
            found.floats(&tensor),
            expected.floats(&tensor),
            "{name}: {tensor}"
        );
    }
}

/// Sets the factors of an adapter on the q and v slices from the dense one of the fixture.
struct ToSlices {
    path: Vec<String>,
    file: Tensors,
}

impl ModuleMapper for ToSlices {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        if !path.contains(".lora.") {
            return param;
        }
        let (values, shape) = self.file.floats(&peft_name(&path));
        let mut values = transpose(&values, &shape);
        if path.ends_with(".b") {
            // [4, 72]: rows 0 and 1 are q's, columns 0 to 24; rows 2 and 3 are v's, 48 to 72.
            let start = |row: usize| row * 72 + if row < 2 { 0 } else { 48 };
            let block = |row: usize| values[start(row)..start(row) + 24].to_vec();
            values = (0..4).flat_map(block).collect();
        }
        param.map(|old| {
            let data = TensorData::new(values, old.shape());
            Tensor::from_data(data, &old.device())
        })
    }
}

#[test]
fn slices_of_c_attn_are_the_standard_adapter_of_their_ranks_together() {
    let device = Device::flex();
    // The fixture's rank 4 and alpha 10 are two slices of rank 2 and alpha 5: scale 2.5.
    let config = LoraConfig::new(2)
        .with_alpha(5.0)
        .with_targets(TargetModules::names(["c_attn[q,v]"]));
    let (model, report) = load("gpt2_tied", &device)
        .0
        .attach(&config)
        .unwrap()
        .into_parts();
    let mut to_slices = ToSlices {
        path: Vec::new(),
        file: Tensors::open(adapter("qv_slices").join("adapter_model.safetensors")),
    };
    let model = model.map(&mut to_slices);
    let batch = Batch::of(&model_tensors("gpt2_tied"), "right", &device);
    let (values, _) = expected("qv_slices").floats("logits");
    batch.assert_logits(&batch.logits(&model), &values, TOLERANCE, "attached");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    Adapted::from_parts(model.clone(), report.clone())
        .save_adapter(&path, None, Overwrite::Refuse)
        .unwrap();
    assert_same_files(&path, "qv_slices");

    let (again, again_report) = load("gpt2_tied", &device)
        .0
        .load_adapter(&path)
        .unwrap()
        .into_parts();
    assert_eq!(again_report.parameters(), report.parameters());
    assert_eq!(again_report.modules[0].slices, report.modules[0].slices);
    assert_eq!(host(batch.logits(&again)), host(batch.logits(&model)));
}

#[test]
fn a_merge_is_the_one_of_peft_and_a_detach_the_base() {
    let device = Device::flex();
    let base = load("gpt2_tied", &device).0;
    let (model, _) = base
        .clone()
        .load_adapter(adapter("c_attn"))
        .unwrap()
        .into_parts();
    let merged = merge(model.clone()).into_module();
    let expected = Tensors::open(fixture("merged_cattn.safetensors"));
    for (layer, block) in merged.transformer.h.iter().enumerate() {
        let (values, _) = expected.floats(&format!("transformer.h.{layer}.attn.c_attn.weight"));
        // PEFT merges in f32 too; the order of the sum of three products may differ.
        assert_near(
            &host(block.attn.c_attn.weight.val()),
            &values,
            1e-6,
            "merged weight",
        );
    }
    let batch = Batch::of(&model_tensors("gpt2_tied"), "right", &device);
    let detached = detach(model);
    assert_eq!(host(batch.logits(&detached)), host(batch.logits(&base)));
}

#[test]
fn a_tied_head_keeps_the_base_when_the_embedding_is_adapted() {
    let device = Device::flex();
    let base = load("gpt2_tied", &device).0;
    let config = LoraConfig::new(2).with_targets(TargetModules::names(["wte"]));
    let (model, _) = base.clone().attach(&config).unwrap().into_parts();
    let model = fill_adapters(model);
    let batch = Batch::of(&model_tensors("gpt2_tied"), "right", &device);
    let adapted = host(batch.logits(&model));
    assert_ne!(adapted, host(batch.logits(&base)));
    // A merge changes the embedding and leaves the head as it was.
    let merged = merge(model).into_module();
    assert_near(&host(batch.logits(&merged)), &adapted, TOLERANCE, "merged");
}

#[test]
fn what_is_not_of_this_model_is_refused_by_name() {
    let device = Device::flex();
    let load_error =
        |base: &str, name: &str| match load(base, &device).0.load_adapter(adapter(name)) {
            Err(ModelError::Lora(error)) => error,
            other => panic!("{other:?}"),
        };
    // The model has three layers: the list names two, but all of them are there.
    match load_error("gpt2_untied", "c_attn") {
        LoraError::MissingTensors { names, .. } => assert_eq!(names.len(), 2),
        other => panic!("{other}"),
    }
    assert!(matches!(
        load_error("gpt2_relu", "layers"),
        LoraError::TensorShape { .. }
    ));
}

#[test]
fn counts_are_those_of_the_paper() {
    // The widths and layers of the published models; neither the vocabulary nor the positions have
    // a part in the count, and layers are alike.
    for (full, layers, expected) in [
        (Gpt2Config::medium(), 24, 393_216),
        (Gpt2Config::large(), 36, 737_280),
    ] {
        assert_eq!(full.n_layer, layers);
        let config = Gpt2Config {
            vocab_size: 8,
            n_positions: 8,
            n_layer: 1,
            ..full
        };
        let model = Gpt2LmHead::init(&config, 0, &Device::flex()).unwrap();
        let lora = LoraConfig::new(4).with_targets(TargetModules::names(["c_attn[q,v]"]));
        let (_, report) = model.attach(&lora).unwrap().into_parts();
        assert_eq!(report.parameters() * layers, expected);
    }
}
