//! Adapters of loralib and mlx-lm are read as what they compute, and come back as they were.

use crate::common::fixture;
use lora_core::file::PeftOptions;
use lora_core::file::{StoredAdapter, StoredFactors, StoredTensor};
use lora_core::files::Overwrite;
use lora_core::{BiasTraining, FusedLayout, Slices};
use lora_models::checkpoint::{Checkpoint, ExportDType, TensorRef, write_safetensors};
use lora_models::formats::loralib::{self, LoralibOptions};
use lora_models::formats::{AdapterFormat, mlx};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, transpose};

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
        for ending in ["safetensors", "bin", "pt"] {
            let path = dir.path().join(format!("{name}.{ending}"));
            loralib::write(&again, &path, &Vec::new(), Overwrite::Refuse).unwrap();
            assert_eq!(AdapterFormat::detect(&path), Some(AdapterFormat::Loralib));
            let pickled = Checkpoint::open(&path).unwrap().source().is_pickle();
            assert_eq!(pickled, ending != "safetensors");
            let back = loralib::read(&path, &options).unwrap();
            assert_eq!(
                (&back.modules, &back.saved),
                (&adapter.modules, &adapter.saved),
                "{name}.{ending}"
            );
            // The same tensors as in the file of loralib itself.
            let (ours, theirs) = (bits(&path, ""), bits(&file(name), "model_state_dict."));
            assert_eq!(ours, theirs, "{name}.{ending}");
            assert!(loralib::write(&again, &path, &Vec::new(), Overwrite::Refuse).is_err());
        }
        let nameless = dir.path().join(format!("{name}.data"));
        let error = loralib::write(&again, &nameless, &Vec::new(), Overwrite::Refuse);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(".bin, .pt or .pth"), "{error}");
        assert!(!nameless.exists());
    }
}

/// The tensors of a file to the bit, by their names without a prefix.
fn bits(path: &Path, prefix: &str) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    let file = Checkpoint::open(path).unwrap();
    let tensors = file.names().map(|name| {
        let tensor = file.read_f32(name).unwrap();
        let name = name.strip_prefix(prefix).unwrap_or(name);
        let values = tensor.values.iter().map(|value| value.to_bits());
        (name.to_string(), (tensor.shape, values.collect()))
    });
    tensors.collect()
}

/// `adapter_model.safetensors` of a directory, to the bit.
fn peft_bits(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    bits(&dir.join("adapter_model.safetensors"), "")
}

#[test]
fn peft_goes_to_loralib_s_pickle_and_back_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut sliced = of_peft("gpt2_tied.random");
    let modules: Vec<String> = sliced.modules.keys().cloned().collect();
    sliced.note_slices(modules.into_iter().map(|module| (module, q_and_v())));
    // Three rows a slice, in the two blocks of q and v.
    for factors in sliced.modules.values_mut() {
        let ([d_out, d_in], rank) = (factors.shape(), 6);
        let values = |count: usize| (0..count).map(|i| (i as f32 * 0.7).sin());
        let block = |at: usize| (at / rank / (d_out / 3), at % rank / 3);
        let b = values(d_out * rank)
            .enumerate()
            .map(|(at, value)| match block(at) {
                (0, 0) | (2, 1) => value,
                _ => 0.0,
            });
        factors.a = StoredTensor::new([rank, d_in], values(rank * d_in).collect::<Vec<_>>());
        factors.b = StoredTensor::new([d_out, rank], b.collect::<Vec<_>>());
        factors.scale = 2.0;
    }
    sliced.config.rank = 6;
    for (name, adapter, slices) in [
        ("gpt2", of_peft("gpt2_tied.random"), None),
        ("gpt2_qv", sliced, Some(q_and_v())),
        ("bert", of_peft("bert_seq.random"), None),
    ] {
        let path = |suffix: &str| dir.path().join(format!("{name}{suffix}"));
        adapter.save(&path("-0"), Overwrite::Refuse).unwrap();
        let first = StoredAdapter::read(path("-0")).unwrap();
        loralib::write(&first, &path(".bin"), &Vec::new(), Overwrite::Refuse).unwrap();
        let factors = first.modules.values().next().unwrap();
        // Loralib's alpha is by the rank of a slice.
        let groups = slices
            .as_ref()
            .map_or(1, |slices: &Slices| slices.adapted.len());
        let options = LoralibOptions {
            alpha: factors.scale * (factors.rank() / groups) as f64,
            slices,
            rename: Vec::new(),
            peft: first.options.clone(),
        };
        let back = loralib::read(&path(".bin"), &options).unwrap();
        back.save(&path("-1"), Overwrite::Refuse).unwrap();
        assert_eq!(peft_bits(&path("-1")), peft_bits(&path("-0")), "{name}");
        let again = StoredAdapter::read(path("-1")).unwrap();
        assert_eq!(again.modules, first.modules, "{name}");
        assert_eq!(again.slices().unwrap(), first.slices().unwrap(), "{name}");
    }
}

#[test]
fn mlx_goes_to_peft_and_back_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let rename = vec![("model.".to_string(), "transformer.".to_string())];
    for name in ["gpt2_tied.random", "gpt2_tied.dora"] {
        let path = |suffix: &str| dir.path().join(format!("{name}{suffix}"));
        mlx::write(&of_peft(name), &path("-0"), &rename, Overwrite::Refuse).unwrap();
        let adapter = mlx::read(&path("-0"), &rename, PeftOptions::default()).unwrap();
        adapter.save(&path("-peft"), Overwrite::Refuse).unwrap();
        let adapter = StoredAdapter::read(path("-peft")).unwrap();
        mlx::write(&adapter, &path("-1"), &rename, Overwrite::Refuse).unwrap();
        for file in [mlx::WEIGHTS_FILE, "adapter_config.json"] {
            let bytes = |dir: &str| std::fs::read(path(dir).join(file)).unwrap();
            assert_eq!(bytes("-1"), bytes("-0"), "{name}, {file}");
        }
    }
}

/// A PEFT directory whose tensors have other names.
fn with_names(of: &str, dir: &Path, rename: impl Fn(&str) -> String) {
    of_peft(of).save(dir, Overwrite::Refuse).unwrap();
    let path = dir.join("adapter_model.safetensors");
    let file = Checkpoint::open(&path).unwrap();
    let tensors: Vec<_> = file
        .names()
        .map(|name| (rename(name), file.read_f32(name).unwrap()))
        .collect();
    let refs: Vec<TensorRef<'_>> = tensors
        .iter()
        .map(|(name, tensor)| TensorRef {
            name,
            shape: &tensor.shape,
            values: &tensor.values,
        })
        .collect();
    write_safetensors(&path, &refs, ExportDType::F32).unwrap();
}

#[test]
fn peft_files_with_other_prefixes_are_converted() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let rename = |from: &str, to: &str| vec![(from.to_string(), to.to_string())];
    for (of, trunk) in [
        ("gpt2_tied.random", "transformer"),
        ("bert_seq.random", "bert"),
    ] {
        let expected = of_peft(of);
        let read = |dir: &Path, rename: &[(String, String)]| {
            let adapter = StoredAdapter::read_renamed(dir, rename).unwrap();
            assert_eq!(adapter.modules, expected.modules, "{of}");
            assert_eq!(adapter.saved, expected.saved, "{of}");
            let again = dir.join("again");
            adapter.save(&again, Overwrite::Refuse).unwrap();
            let again = StoredAdapter::read(&again).unwrap();
            assert_eq!(again.modules, expected.modules, "{of}");
        };
        // Without the prefix: a state dict that was saved by itself.
        let bare = path(&format!("{of}-bare"));
        with_names(of, &bare, |name| name.replacen("base_model.model.", "", 1));
        read(&bare, &[]);
        std::fs::remove_dir_all(bare.join("again")).unwrap();
        let mut all = rename(&format!("{trunk}."), &format!("{trunk}."));
        all.extend(rename("classifier.", "classifier."));
        read(&bare, &all);

        // Around another module.
        let deep = path(&format!("{of}-deep"));
        with_names(of, &deep, |name| {
            name.replacen("base_model.model.", "base_model.model.model.", 1)
        });
        let as_it_is = StoredAdapter::read(&deep).unwrap();
        assert!(
            as_it_is
                .modules
                .keys()
                .all(|name| name.starts_with("model."))
        );
        as_it_is
            .save(&path(&format!("{of}-copy")), Overwrite::Refuse)
            .unwrap();
        assert_eq!(
            peft_bits(&path(&format!("{of}-copy"))),
            peft_bits(&deep),
            "{of}"
        );
        read(&deep, &rename("model.", ""));
    }
    // Two names that become one are no renaming.
    let deep = path("gpt2_tied.random-deep");
    let error = StoredAdapter::read_renamed(
        &deep,
        &rename("model.transformer.h.1.", "model.transformer.h.0."),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("two of its names become"), "{error}");
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
    StoredAdapter::read(fixture("kinds").join(name)).unwrap()
}

#[test]
fn mlx_keeps_the_scale_and_turns_the_factors() {
    let dir = tempfile::tempdir().unwrap();
    let rename = vec![("model.".to_string(), "transformer.".to_string())];
    for name in ["gpt2_tied.random", "gpt2_tied.dora"] {
        let adapter = of_peft(name);
        let path = dir.path().join(name);
        mlx::write(&adapter, &path, &rename, Overwrite::Refuse).unwrap();
        assert_eq!(AdapterFormat::detect(&path), Some(AdapterFormat::Mlx));
        let tensors = Tensors::open(path.join(mlx::WEIGHTS_FILE));
        let (module, factors) = adapter.modules.iter().next().unwrap();
        let module = module.replace("transformer.", "model.");
        let (values, shape) = tensors.floats(&format!("{module}.lora_a"));
        assert_eq!(shape, [factors.a.shape[1], factors.a.shape[0]]);
        assert_eq!(values, transpose(&factors.a.values, &factors.a.shape));
        let back = mlx::read(&path, &rename, adapter.options.clone()).unwrap();
        assert_eq!(back.modules, adapter.modules, "{name}");
        assert_eq!(back.config.rank, 3);
        assert!((back.config.alpha - 7.0).abs() < 1e-12);
    }
}

#[test]
fn what_a_format_has_no_place_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.bin");
    let to_mlx =
        |adapter: &StoredAdapter| mlx::write(adapter, &path, &Vec::new(), Overwrite::Refuse);
    let to_loralib =
        |adapter: &StoredAdapter| loralib::write(adapter, &path, &Vec::new(), Overwrite::Refuse);
    let text = |result: Result<(), lora_models::ModelError>| result.unwrap_err().to_string();
    assert!(text(to_mlx(&of_peft("bert_seq.random"))).contains("fully trained"));
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
