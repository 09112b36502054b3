//! Adapters of loralib and mlx-lm are read as what they compute, and come back as they were.

mod common;

use common::{Tensors, assert_near, fixture};
use lora_core::files::Overwrite;
use lora_core::peft::PeftOptions;
use lora_core::stored::{StoredAdapter, StoredFactors, StoredTensor};
use lora_core::{BiasTraining, FusedLayout, Slices};
use lora_models::formats::loralib::{self, LoralibOptions};
use lora_models::formats::{AdapterFormat, mlx};
use std::path::PathBuf;

fn file(name: &str) -> PathBuf {
    fixture("formats").join(name)
}

fn options() -> LoralibOptions {
    LoralibOptions {
        alpha: 6.0,
        slices: None,
        rename: Vec::new(),
        peft: PeftOptions::default(),
    }
}

fn q_and_v() -> Slices {
    Slices {
        parts: 3,
        adapted: vec![0, 2],
        layout: FusedLayout::PartByPart,
    }
}

/// `scale · x Aᵀ Bᵀ`.
fn added(factors: &StoredFactors, x: &(Vec<f32>, Vec<usize>)) -> Vec<f32> {
    let ([d_out, d_in], rank) = (factors.shape(), factors.rank());
    let mut y = Vec::new();
    for row in x.0.chunks_exact(d_in) {
        let low: Vec<f32> = factors
            .a
            .values
            .chunks_exact(d_in)
            .map(|a| dot(a, row))
            .collect();
        let b = factors.b.values.chunks_exact(rank);
        y.extend(b.map(|b| dot(b, &low) * factors.scale as f32));
    }
    assert_eq!(y.len(), x.1[0] * d_out);
    y
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn loralib_s_layers_add_what_they_do_in_python() {
    let expected = Tensors::open(file("expected.safetensors"));
    let linear = loralib::read(&file("linear.bin"), &options()).unwrap();
    let sliced = LoralibOptions {
        slices: Some(q_and_v()),
        ..options()
    };
    let merged = loralib::read(&file("merged.bin"), &sliced).unwrap();
    for (adapter, module, name, rank) in [
        (&linear, "roberta.encoder.layer.0.query", "query", 3),
        (&merged, "transformer.h.0.attn.c_attn", "c_attn", 4),
    ] {
        let factors = &adapter.modules[module];
        assert_eq!((factors.rank(), adapter.modules.len()), (rank, 1));
        let found = added(factors, &expected.floats(&format!("x.{name}")));
        assert_near(&found, &expected.floats(&format!("y.{name}")).0, 1e-5, name);
    }
    assert_eq!(linear.config.modules_to_save, ["classifier"]);
    assert_eq!(linear.saved["classifier.dense.weight"].shape, [2, 7]);
    assert_eq!(
        merged.slices().unwrap()["transformer.h.0.attn.c_attn"],
        q_and_v()
    );
}

#[test]
fn loralib_s_biases_are_those_of_peft() {
    let adapter = loralib::read(&file("biases.bin"), &options()).unwrap();
    assert_eq!(adapter.config.bias, BiasTraining::LoraOnly);
    assert!(adapter.config.modules_to_save.is_empty());
    let expected = Tensors::open(file("expected.safetensors"))
        .floats("bias.value")
        .0;
    assert_eq!(
        adapter.saved["bert.layer.0.value.base_layer.bias"].values,
        expected
    );
}

#[test]
fn loralib_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for (name, slices) in [
        ("linear.bin", None),
        ("merged.bin", Some(q_and_v())),
        ("biases.bin", None),
    ] {
        let options = LoralibOptions {
            slices,
            ..options()
        };
        let adapter = loralib::read(&file(name), &options).unwrap();
        // By way of PEFT.
        let peft = dir.path().join(format!("{name}.peft"));
        adapter.save(&peft, Overwrite::Refuse).unwrap();
        let again = StoredAdapter::read(&peft).unwrap();
        assert_eq!(
            (&again.modules, &again.saved),
            (&adapter.modules, &adapter.saved),
            "{name}"
        );
        let path = dir.path().join(format!("{name}.safetensors"));
        loralib::write(&again, &path, &Vec::new(), Overwrite::Refuse).unwrap();
        assert_eq!(AdapterFormat::of(&path), Some(AdapterFormat::Loralib));
        let back = loralib::read(&path, &options).unwrap();
        assert_eq!(
            (back.modules, back.saved),
            (adapter.modules, adapter.saved),
            "{name}"
        );
        assert!(loralib::write(&again, &path, &Vec::new(), Overwrite::Refuse).is_err());
    }
}

#[test]
fn what_a_loralib_file_does_not_say_is_asked_for() {
    let error = loralib::read(&file("merged.bin"), &options())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("c_attn") && error.contains("2 adapted parts"),
        "{error}"
    );
    let three = LoralibOptions {
        slices: Some(Slices {
            adapted: vec![0, 1, 2],
            ..q_and_v()
        }),
        ..options()
    };
    let error = loralib::read(&file("merged.bin"), &three)
        .unwrap_err()
        .to_string();
    assert!(error.contains("not the 3"), "{error}");
    let nothing = fixture("gpt2_tied").join("model.safetensors");
    let error = loralib::read(&nothing, &options()).unwrap_err().to_string();
    assert!(error.contains("not a loralib checkpoint"), "{error}");
}

#[test]
fn an_adapter_on_a_changed_base_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    for (name, init) in [("gpt2_tied.pissa", "pissa"), ("roberta_reg.olora", "olora")] {
        let path = dir.path().join(name);
        of_peft(name).save(&path, Overwrite::Refuse).unwrap();
        let text = std::fs::read_to_string(path.join("adapter_config.json")).unwrap();
        assert!(
            text.contains(&format!("\"init_lora_weights\": \"{init}\"")),
            "{text}"
        );
        assert!(StoredAdapter::read(&path).unwrap().needs_changed_base());
    }
}

fn of_peft(name: &str) -> StoredAdapter {
    StoredAdapter::read(&fixture("kinds").join(name)).unwrap()
}

#[test]
fn mlx_keeps_the_scale_and_turns_the_factors() {
    let dir = tempfile::tempdir().unwrap();
    let rename = vec![("model.".to_string(), "transformer.".to_string())];
    for name in ["gpt2_tied.random", "gpt2_tied.dora"] {
        let adapter = of_peft(name);
        let path = dir.path().join(name);
        mlx::write(&adapter, &path, &rename, Overwrite::Refuse).unwrap();
        assert_eq!(AdapterFormat::of(&path), Some(AdapterFormat::Mlx));
        let tensors = Tensors::open(path.join(mlx::WEIGHTS_FILE));
        let (module, factors) = adapter.modules.iter().next().unwrap();
        let module = module.replace("transformer.", "model.");
        let (values, shape) = tensors.floats(&format!("{module}.lora_a"));
        assert_eq!(shape, [factors.a.shape[1], factors.a.shape[0]]);
        assert_eq!(
            values,
            common::transpose(&factors.a.values, &factors.a.shape)
        );
        let back = mlx::read(&path, &rename, adapter.options.clone()).unwrap();
        assert_eq!(back.modules, adapter.modules, "{name}");
        assert_eq!(back.config.rank, 3);
        assert!((back.config.alpha - 7.0).abs() < 1e-12);
    }
}

#[test]
fn what_a_format_has_no_place_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let to_mlx =
        |adapter: &StoredAdapter| mlx::write(adapter, &path, &Vec::new(), Overwrite::Refuse);
    let to_loralib =
        |adapter: &StoredAdapter| loralib::write(adapter, &path, &Vec::new(), Overwrite::Refuse);
    let text = |result: Result<(), lora_models::ModelError>| result.unwrap_err().to_string();
    assert!(text(to_mlx(&of_peft("bert_seq.random"))).contains("trained whole"));
    assert!(text(to_mlx(&of_peft("gpt2_tied.lora_bias"))).contains("bias on B"));
    assert!(text(to_loralib(&of_peft("gpt2_tied.dora"))).contains("magnitude"));
    assert!(text(to_loralib(&of_peft("bert_seq.pissa"))).contains("base that it changed"));
    assert!(text(to_mlx(&of_peft("gpt2_tied.pissa"))).contains("base that it changed"));
    assert!(text(to_loralib(&of_peft("gpt2_untied.random_words"))).contains("embedding"));
    let mut other = of_peft("gpt2_tied.random");
    let first = other.modules.values_mut().next().unwrap();
    let [d_out, d_in] = first.shape();
    first.a = StoredTensor::new([1, d_in], vec![0.5; d_in]);
    first.b = StoredTensor::new([d_out, 1], vec![0.5; d_out]);
    assert!(text(to_mlx(&other)).contains("another rank"));
    assert!(!path.exists());
}
