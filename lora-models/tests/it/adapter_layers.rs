//! Adapter layers of the library `adapters` give its logits and gradients, and come back as it wrote them; files that are not a
//! model's own are refused.

use crate::common::{assert_real_logits, fixture, load, mask_of, weighted};
use crate::encoders;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use lora_core::file::AdapterDir;
use lora_core::files::Overwrite;
use lora_core::trainable_summary;
use lora_models::adapter_layers::AdapterLayersConfig;
use lora_models::{AddedModel, LoraModel, SaveAdapter};
use std::collections::BTreeMap;
use std::path::PathBuf;
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host, transpose};

/// Adapters of encoders and of a decoder with a head, and their models.
const CLASSIFIERS: &[(&str, &str)] = &[
    ("bert_h", "bert_seq"),
    ("bert_post_add", "bert_seq"),
    ("roberta_p", "roberta_seq"),
    ("roberta_inside", "roberta_seq"),
    ("v3_l", "v3_seq"),
    ("deberta_h", "deberta_seq"),
    ("gpt2_seq_p", "gpt2_seq"),
];
/// The reference is in f64 and the models run in f32, on values of the order of 1.
const TOLERANCE: f32 = 1e-4;

fn adapter(name: &str) -> PathBuf {
    fixture("adapter_layers").join(name)
}

fn expected(name: &str) -> Tensors {
    Tensors::open(fixture("adapter_layers").join(format!("{name}.safetensors")))
}

/// Gradients by the end of the name in a file, such as `0.attention.adapter_up.weight`.
struct LayerGradients<'a> {
    path: Vec<String>,
    grads: &'a Gradients,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for LayerGradients<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let gradient = param.val().grad(self.grads).expect(&path);
        let shape = gradient.dims().to_vec();
        let mut values = host(gradient);
        if D == 2 {
            values = transpose(&values, &shape);
        }
        let path = path.strip_prefix("layers.").unwrap_or(&path).to_string();
        self.found.insert(path, values);
    }
}

/// Compares the gradients of adapter layers with those of a file, whose names begin with those of the layers.
fn assert_gradients<M: AddedModel>(model: &M, grads: &Gradients, expected: &Tensors, what: &str) {
    let layers = model.added().adapters.as_ref().unwrap();
    let own_norm = layers.config().own_norm;
    let mut visitor = LayerGradients {
        path: Vec::new(),
        grads,
        found: BTreeMap::new(),
    };
    layers.visit(&mut visitor);
    let names = model.layer_names();
    let of_file = expected.names();
    let recorded = of_file
        .iter()
        .filter(|name| name.contains(".adapters.test."));
    assert_eq!(visitor.found.len(), recorded.count(), "{what}");
    for (path, found) in visitor.found {
        let mut parts = path.splitn(3, '.');
        let index: usize = parts.next().unwrap().parse().unwrap();
        let place = names.places[usize::from(parts.next().unwrap() == "output")];
        let down = if own_norm {
            "adapter_down.1"
        } else {
            "adapter_down.0"
        };
        let tensor = parts.next().unwrap();
        let tensor = tensor
            .replace("norm.gamma", "adapter_norm_before.weight")
            .replace("norm.beta", "adapter_norm_before.bias")
            .replace("down.", &format!("{down}."))
            .replace("up.", "adapter_up.");
        let name = format!(
            "grad.{}.{place}.adapters.test.{tensor}",
            names.layers[index]
        );
        let (values, _) = expected.floats(&name);
        assert_near(&found, &values, TOLERANCE, &format!("{what}: {name}"));
    }
}

#[test]
fn logits_and_gradients_of_classifiers_are_those_of_the_library() {
    let device = Device::flex().autodiff();
    for &(name, base) in CLASSIFIERS {
        let expected = expected(name);
        let adapted = encoders::model(base, &device).load_adapter(adapter(name));
        let (model, report) = adapted
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .into_parts();
        let batch = encoders::Batch::of_model(base, &device);
        let logits = batch.logits(&model);
        let (values, _) = expected.floats("logits");
        assert_near(&host(logits.clone()), &values, TOLERANCE, name);
        let grads = weighted(logits, &expected).backward();
        assert_gradients(&model, &grads, &expected, name);
        // The head is trained too, and nothing else.
        let count = model.added().adapters.as_ref().unwrap().parameters();
        let trained = trainable_summary(&model).trainable;
        assert_eq!(trained, count + report.saved_parameters(), "{name}");
    }
}

#[test]
fn logits_and_gradients_of_gpt2_are_those_of_the_library() {
    let device = Device::flex().autodiff();
    for name in ["gpt2_h", "gpt2_l_drop"] {
        let expected = expected(name);
        let adapted = load("gpt2_tied", &device).0.load_adapter(adapter(name));
        let (model, report) = adapted
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .into_parts();
        assert!(report.is_empty());
        let inputs = crate::common::model_tensors("gpt2_tied");
        let ids = inputs.ids("right.input_ids", &device);
        let (mask, real) = mask_of(&inputs, "right.attention_mask", &device);
        let logits = model.forward(ids, Some(mask));
        let (values, shape) = expected.floats("logits");
        let logits = logits.narrow(2, 0, shape[2]);
        assert_real_logits(&logits, &real, &values, TOLERANCE, name);
        let grads = weighted(logits, &expected).backward();
        assert_gradients(&model, &grads, &expected, name);
    }
}

#[test]
fn files_come_back_as_the_library_wrote_them() {
    let device = Device::flex();
    for &(name, base) in CLASSIFIERS {
        let adapted = encoders::model(base, &device)
            .load_adapter(adapter(name))
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        adapted
            .save_adapter(&path, None, Overwrite::Refuse)
            .unwrap();
        let json = |path: PathBuf| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
        };
        for file in ["adapter_config.json", "head_config.json"] {
            let (mut ours, mut theirs) = (json(path.join(file)), json(adapter(name).join(file)));
            if file == "adapter_config.json" {
                // Another factor may give the same size.
                for config in [&mut ours, &mut theirs] {
                    config["config"]["reduction_factor"] = 0.into();
                }
            }
            assert_eq!(ours, theirs, "{name}: {file}");
        }
        let again = encoders::model(base, &device).load_adapter(&path).unwrap();
        let batch = encoders::Batch::of_model(base, &device);
        let logits = |model| host(batch.logits(model));
        assert_eq!(logits(again.module()), logits(adapted.module()), "{name}");
    }
}

#[test]
fn adapter_layers_beside_lora_are_a_subdirectory() {
    let device = Device::flex();
    let config = AdapterLayersConfig::houlsby().with_size(2).with_seed(3);
    let model = encoders::model("bert_seq", &device);
    let lora = lora_core::LoraConfig::new(2)
        .with_targets(lora_models::LoraTargets::default_targets(&model));
    let adapted = model.attach(&lora).unwrap();
    let adapted = adapted
        .try_map(|model| model.with_adapter_layers(&config))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    adapted
        .save_adapter(&path, None, Overwrite::Refuse)
        .unwrap();
    assert!(path.join("adapter_model.safetensors").exists());
    assert!(path.join("adapter-layers/pytorch_adapter.bin").exists());
    let again = encoders::model("bert_seq", &device)
        .load_adapter(&path)
        .unwrap();
    let batch = encoders::Batch::of_model("bert_seq", &device);
    let logits = |model| host(batch.logits(model));
    assert_eq!(logits(again.module()), logits(adapted.module()));
    assert_eq!(
        trainable_summary(again.module()),
        trainable_summary(adapted.module())
    );
}

#[test]
fn another_models_layers_and_unknown_options_are_refused() {
    let device = Device::flex();
    let load = |dir: &PathBuf| {
        let model = encoders::model("bert_seq", &device);
        model.load_adapter(dir).map(|_| ()).unwrap_err().to_string()
    };
    let message = load(&adapter("roberta_p"));
    assert!(
        message.contains("roberta") && message.contains("bert"),
        "{message}"
    );
    let dir = tempfile::tempdir().unwrap();
    for (key, value, word) in [
        ("use_gating", serde_json::json!(true), "use_gating"),
        ("is_parallel", serde_json::json!(true), "is_parallel"),
        ("ln_after", serde_json::json!(true), "ln_after"),
        ("phm_layer", serde_json::json!(true), "phm_layer"),
        ("inv_adapter", serde_json::json!("nice"), "inv_adapter"),
        ("scaling", serde_json::json!("learned"), "scaling"),
        (
            "non_linearity",
            serde_json::json!("leakyrelu"),
            "non_linearity",
        ),
        (
            "reduction_factor",
            serde_json::json!({"default": 2}),
            "reduction_factor",
        ),
        ("reduction_factor", serde_json::json!(0), "reduction_factor"),
        ("reduction_factor", serde_json::json!(2), "adapter_down"),
        ("mh_adapter", serde_json::json!(false), "adapter_down"),
    ] {
        let path = dir.path().join("adapter");
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        for file in std::fs::read_dir(adapter("bert_h")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), path.join(file.file_name())).unwrap();
        }
        let config = path.join("adapter_config.json");
        let text = std::fs::read(&config).unwrap();
        let mut object: serde_json::Value = serde_json::from_slice(&text).unwrap();
        object["config"][key] = value;
        std::fs::write(&config, object.to_string()).unwrap();
        let message = load(&path);
        assert!(message.contains(word), "{key}: {message}");
    }
    assert!(
        AdapterDir::open(adapter("bert_h"))
            .unwrap()
            .config()
            .is_err()
    );
}
