//! Adapters of PEFT on encoders give PEFT's logits and gradients, the heads that trained with them
//! included, and come back as PEFT wrote them.

use crate::common::fill_adapters;
use crate::encoders::gradients::{file_gradients, trainable};
use crate::encoders::{
    self, ADAPTERS, Batch, TOLERANCE, adapter, encoder, expected_of_adapter, load, logits_on, loss,
    model, options,
};
use burn::tensor::{Device, Tensor, TensorData};
use lora_core::file::AdapterDir;
use lora_core::files::Overwrite;
use lora_core::{Adapted, AttachReport, LoraConfig, LoraError, TargetModules, detach, file, merge};
use lora_models::classifier::{
    AdapterLabels, Classifier, ClassifierOptions, HeadKind, adapter_labels,
};
use lora_models::encoder::Labels;
use lora_models::{ExportOptions, LoraModel, LoraTargets, ModelError, Pretrained, SaveAdapter};
use std::collections::BTreeSet;
use std::path::Path;
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host, json};

const WEIGHTS: &str = "adapter_model.safetensors";

fn with_adapter(name: &str, base: &str, device: &Device) -> (Classifier, AttachReport) {
    let loaded = model(base, device).load_adapter(adapter(name));
    loaded
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .into_parts()
}

#[test]
fn logits_loss_and_gradients_are_those_of_peft() {
    let device = Device::flex().autodiff();
    for &(name, base) in ADAPTERS {
        let (model, report) = with_adapter(name, base, &device);
        let expected = expected_of_adapter(name);
        let inputs = encoders::expected(base);
        let batch = Batch::of(&inputs, &device);
        let logits = batch.logits(&model);
        let found = host(logits.clone());
        batch.assert_rows(&found, &expected.floats("logits"), TOLERANCE, name);
        let is_score = model.config().labels == Labels::Score;
        let found = host(loss(logits.clone(), &inputs, is_score));
        assert_near(
            &found,
            &expected.floats("loss").0,
            TOLERANCE,
            &format!("{name}, loss"),
        );

        // A weighted sum of all logits: every parameter of the model has a part in it.
        let (weights, _) = inputs.floats("weights");
        let weights = TensorData::new(weights, logits.dims());
        let sum = (logits * Tensor::from_data(weights, &device)).sum();
        let found = file_gradients(&model, &report, &sum.backward());
        let of_file = Tensors::open(adapter(name).join(WEIGHTS)).names();
        assert_eq!(found.keys().cloned().collect::<Vec<_>>(), of_file, "{name}");
        for (tensor, (found, shape)) in found {
            let (values, file_shape) = expected.floats(&format!("grad.{tensor}"));
            assert_eq!(file_shape, shape, "{name}: {tensor}");
            let what = format!("{name}, gradient of {tensor}");
            assert_near(&found, &values, TOLERANCE, &what);
        }
    }
}

#[test]
fn adapters_are_saved_as_peft_wrote_them_and_loaded_again() {
    let device = Device::flex();
    for &(name, base) in ADAPTERS {
        let (model, report) = with_adapter(name, base, &device);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&path, Some(base), Overwrite::Refuse)
            .unwrap();
        assert_same_tensors(&path, name);
        let written = json(&path.join("adapter_config.json"));
        let peft = json(&adapter(name).join("adapter_config.json"));
        for key in [
            "task_type",
            "peft_type",
            "base_model_name_or_path",
            "target_modules",
            "modules_to_save",
            "fan_in_fan_out",
            "use_rslora",
            "bias",
        ] {
            assert_eq!(written[key], peft[key], "{name}: {key}");
        }
        let labels = AdapterLabels::from_dir(&AdapterDir::open(&path).unwrap()).unwrap();
        assert_eq!(
            adapter_labels(&path).unwrap(),
            model.config().labels,
            "{name}"
        );
        assert_eq!(labels.kind, Some(model.kind()), "{name}");
        assert_eq!(
            labels.labels.as_ref(),
            Some(&model.config().labels),
            "{name}"
        );

        let (again, again_report) = encoders::model(base, &device)
            .load_adapter(&path)
            .unwrap()
            .into_parts();
        assert_eq!(again_report.parameters(), report.parameters(), "{name}");
        assert_eq!(again_report.saved, report.saved, "{name}");
        assert_eq!(logits_on(&again, base), logits_on(&model, base), "{name}");
    }
}

fn assert_same_tensors(found: &Path, name: &str) {
    let found = Tensors::open(found.join(WEIGHTS));
    let expected = Tensors::open(adapter(name).join(WEIGHTS));
    assert_eq!(found.names(), expected.names(), "{name}");
    for tensor in expected.names() {
        let what = format!("{name}: {tensor}");
        assert_eq!(found.floats(&tensor), expected.floats(&tensor), "{what}");
    }
}

#[test]
fn labels_of_peft_s_own_adapters_are_counted() {
    for (name, kind, labels) in [
        ("roberta_default", HeadKind::Sequence, Labels::numbered(3)),
        ("v3_reg", HeadKind::Sequence, Labels::Score),
        ("deberta_tags", HeadKind::Token, Labels::numbered(5)),
    ] {
        let opened = AdapterDir::open(adapter(name)).unwrap();
        let found = AdapterLabels::from_dir(&opened).unwrap();
        let expected = (Some(kind), Some(labels));
        assert_eq!((found.kind, found.labels), expected, "{name}");
    }
}

#[test]
fn a_merge_computes_the_same_and_a_detach_keeps_the_head() {
    let device = Device::flex();
    for &(name, base) in ADAPTERS {
        let (model, _) = with_adapter(name, base, &device);
        let batch = Batch::of_model(base, &device);
        let adapted = host(batch.logits(&model));
        let merged = merge(model.clone()).into_module();
        let shape = batch.logits(&merged).dims().to_vec();
        let shape = match model.kind() {
            HeadKind::Sequence => shape,
            HeadKind::Token => [batch.ids.dims().to_vec(), vec![shape[1]]].concat(),
        };
        // Sums of weights instead of sums of products.
        batch.assert_rows(&host(batch.logits(&merged)), &(adapted, shape), 1e-5, name);

        let base = encoders::model(base, &device);
        let detached = detach(model);
        assert_eq!(
            host(batch.hidden(&detached)),
            host(batch.hidden(&base)),
            "{name}"
        );
        assert_ne!(
            host(batch.logits(&detached)),
            host(batch.logits(&base)),
            "{name}"
        );
    }
}

/// Names of the modules with an adapter in a file.
fn adapted_in_file(name: &str) -> BTreeSet<String> {
    let names = Tensors::open(adapter(name).join(WEIGHTS)).names();
    let adapted = names.iter().filter_map(|name| {
        let module = name.strip_suffix(".lora_A.weight")?;
        Some(module.strip_prefix("base_model.model.")?.to_string())
    });
    adapted.collect()
}

fn adapted(report: &AttachReport) -> BTreeSet<String> {
    report.modules.iter().map(|m| m.module.clone()).collect()
}

#[test]
fn what_the_defaults_adapt_and_save_is_what_peft_s_do() {
    let device = Device::flex();
    for (name, base) in [
        ("bert_default", "bert_seq"),
        ("bert_tags", "bert_tok"),
        ("roberta_default", "roberta_seq"),
        ("roberta_tags", "roberta_tok"),
        ("xlmr_default", "xlmr_seq"),
        ("deberta_default", "deberta_seq"),
        ("deberta_tags", "deberta_tok"),
        ("deberta_c2p_default", "deberta_c2p_seq"),
        ("v3_default", "v3_seq"),
        ("v3_tags", "v3_tok"),
        ("xl_default", "xl_seq"),
        ("llama_default", "llama_seq"),
        ("llama_tags", "llama_tok"),
    ] {
        let model = model(base, &device);
        let mut config = LoraConfig::new(3).with_targets(model.default_targets());
        // What a pretrained DeBERTa lacks; these have it.
        if json(&adapter(name).join("adapter_config.json"))["modules_to_save"][0] == "pooler" {
            config.modules_to_save.push("pooler".into());
        }
        let (_, report) = model.attach(&config).unwrap().into_parts();
        assert_eq!(adapted(&report), adapted_in_file(name), "{name}");
        let names: BTreeSet<String> = trainable(&report).into_values().map(|(n, _)| n).collect();
        let of_file = Tensors::open(adapter(name).join(WEIGHTS)).names();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), of_file, "{name}");
    }
}

#[test]
fn the_keyword_all_linear_means_what_it_means_to_peft() {
    let device = Device::flex();
    for (name, base) in [
        ("bert_all_linear", "bert_reg"),
        ("roberta_all_linear", "roberta_reg"),
        ("deberta_all_linear", "deberta_seq"),
        ("xl_all_linear", "xl_seq"),
        ("llama_all_linear", "llama_seq"),
        ("phi3_all_linear", "phi3_nopad_reg"),
    ] {
        let mut config = LoraConfig::new(3).with_targets(TargetModules::AllLinear);
        config.modules_to_save = file::read_config(adapter(name)).unwrap().modules_to_save;
        let (_, report) = model(base, &device).attach(&config).unwrap().into_parts();
        assert_eq!(adapted(&report), adapted_in_file(name), "{name}");
    }
}

/// DeBERTa's `in_proj` has queries, keys and values of one head after the other.
#[test]
fn slices_of_in_proj_are_those_of_every_head() {
    let device = Device::flex();
    let base = "deberta_seq";
    let targets = TargetModules::names(["in_proj[q,v]"]);
    let config = LoraConfig::new(2).with_alpha(5.0).with_targets(targets);
    let (model, report) = model(base, &device).attach(&config).unwrap().into_parts();
    // A [9, 4] for both slices and B [4, 9] for the columns of each, in two layers.
    assert_eq!(report.parameters(), 2 * (9 * 4 + 4 * 9));
    let model = fill_adapters(model);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    Adapted::from_parts(model.clone(), report.clone())
        .save_adapter(&path, None, Overwrite::Refuse)
        .unwrap();
    let (again, _) = encoders::model(base, &device)
        .load_adapter(&path)
        .unwrap()
        .into_parts();
    assert_eq!(logits_on(&again, base), logits_on(&model, base));

    let path = dir.path().join("merged");
    let merged = merge(model).into_module();
    merged
        .export(&path, &ExportOptions::default(), Overwrite::Refuse)
        .unwrap();
    let (found, base) = [path, encoder(base)]
        .map(|dir| Tensors::open(dir.join("model.safetensors")))
        .into();
    let (heads, d_head, d) = (3, 3, 9);
    for layer in 0..2 {
        let name = format!("deberta.encoder.layer.{layer}.attention.self.in_proj.weight");
        let ((found, shape), (base, _)) = (found.floats(&name), base.floats(&name));
        assert_eq!(shape, [heads * 3 * d_head, d]);
        let rows = found.chunks_exact(d).zip(base.chunks_exact(d));
        for (row, (found, base)) in rows.enumerate() {
            let is_key = (row / d_head) % 3 == 1;
            assert_eq!(found == base, is_key, "layer {layer}, row {row}");
        }
    }
}

/// A head and a pooler that the checkpoint lacks are random, and another seed's until the adapter
/// brings its own.
#[test]
fn what_started_afresh_comes_back_with_the_adapter() {
    let device = Device::flex();
    for base in [
        "bert_mlm",
        "roberta_mlm",
        "xlmr_mlm",
        "deberta_published",
        "v3_mlm",
    ] {
        let start = |seed| {
            let options = ClassifierOptions {
                labels: Some(Labels::numbered(4)),
                seed,
                ..options(base)
            };
            let (model, _) = Classifier::load(encoder(base), &options, &device).unwrap();
            model
        };
        let (first, second) = (start(1), start(2));
        let fresh = first.random_modules().to_vec();
        let config = LoraConfig::new(2).with_targets(first.default_targets());
        let (model, report) = first.attach(&config).unwrap().into_parts();
        assert_eq!(report.config.modules_to_save, fresh, "{base}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&path, Some(base), Overwrite::Refuse)
            .unwrap();

        assert_ne!(logits_on(&second, base), logits_on(&model, base), "{base}");
        let (again, _) = second.load_adapter(&path).unwrap().into_parts();
        assert_eq!(logits_on(&again, base), logits_on(&model, base), "{base}");
    }
}

/// PEFT saves the head alone, unless told to save the pooler too.
#[test]
fn an_adapter_that_leaves_a_pooler_at_random_is_refused() {
    let device = Device::flex();
    // Encoders of the same sizes, with a pooler and without.
    let (with_pooler, without) = ("bert_bare", "bert_mlm");
    let (model, _) = load(with_pooler, &device);
    assert_eq!(model.random_modules(), ["classifier"]);
    let config = LoraConfig::new(2).with_targets(model.default_targets());
    let (model, report) = model.attach(&config).unwrap().into_parts();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    Adapted::from_parts(model.clone(), report.clone())
        .save_adapter(&path, None, Overwrite::Refuse)
        .unwrap();
    load(with_pooler, &device).0.load_adapter(&path).unwrap();
    match load(without, &device).0.load_adapter(&path) {
        Err(ModelError::StillRandom { modules }) => assert_eq!(modules, ["pooler"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_adapter_of_another_model_is_refused_by_name() {
    let device = Device::flex();
    let refuse = |base: &str, name: &str| match model(base, &device).load_adapter(adapter(name)) {
        Err(ModelError::Lora(error)) => error,
        other => panic!("{other:?}"),
    };
    match refuse("v3_seq", "roberta_default") {
        LoraError::NoMatch { what, entry, .. } => {
            assert_eq!((what, entry.as_str()), ("target module", "query"));
        }
        other => panic!("{other}"),
    }
    // The same targets behind another encoder's name.
    match refuse("roberta_seq", "bert_default") {
        LoraError::UnexpectedTensors { names, .. } => {
            let classifier = "base_model.model.classifier.weight".to_string();
            assert!(names.contains(&classifier), "{names:?}");
        }
        other => panic!("{other}"),
    }
    // A head with three outputs on a model with one.
    let one = ClassifierOptions {
        labels: Some(Labels::Score),
        fresh_head: true,
        ..options("v3_seq")
    };
    let (model, _) = Classifier::load(encoder("v3_seq"), &one, &device).unwrap();
    match model.load_adapter(adapter("v3_default")) {
        Err(ModelError::Lora(LoraError::TensorShape {
            name,
            expected,
            found,
            ..
        })) => {
            assert!(name.starts_with("base_model.model.classifier."), "{name}");
            assert_eq!((expected[0], found[0]), (1, 3));
        }
        other => panic!("{other:?}"),
    }
    let poolerless = load("roberta_seq", &device)
        .0
        .load_adapter(adapter("bert_pooler"));
    match poolerless {
        Err(ModelError::Lora(LoraError::NoMatch { what, entry, .. })) => {
            assert_eq!((what, entry.as_str()), ("module to save", "pooler"));
        }
        other => panic!("{other:?}"),
    }
}
