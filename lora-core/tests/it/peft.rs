//! PEFT directories: files of PEFT are read, files of ours read back, and wrong ones are refused.

use crate::common::{self, assert_close, fixture, fixtures};
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, Tensor};
use lora_core::file::{
    self as peft, AdapterDir, AdapterKind, CONFIG_FILE, PeftOptions, WEIGHTS_FILE,
};
use lora_core::files::{Overwrite, record_reads};
use lora_core::{
    Architecture, FusedLayout, FusedProjection, LoraConfig, LoraError, LoraLinear, LoraScaling,
    TargetModules, attach,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::path::Path;
use test_support::tensors::host;

#[derive(Module, Debug)]
pub(crate) struct Net {
    pub(crate) q: LoraLinear,
    pub(crate) v: LoraLinear,
    emb: Embedding,
}

/// The module of the fixture; PyTorch's weights are `[out, in]`.
pub(crate) fn net(device: &Device) -> Net {
    let fixture = fixture("peft_linear.safetensors");
    let linear = |name: &str| LoraLinear {
        weight: Param::from_tensor(
            fixture
                .tensor::<2>(&format!("{name}.weight"), device)
                .transpose(),
        ),
        bias: Some(Param::from_tensor(
            fixture.tensor::<1>(&format!("{name}.bias"), device),
        )),
    };
    Net {
        q: linear("q"),
        v: linear("v"),
        emb: EmbeddingConfig::new(13, 7).init(device),
    }
}

pub(crate) fn load(dir: &Path) -> Result<(Net, lora_core::AttachReport), LoraError> {
    Ok(peft::load(net(&Device::flex()), dir, &Architecture::default())?.into_parts())
}

/// A copy of the fixture's adapter, to be broken.
pub(crate) fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in [CONFIG_FILE, WEIGHTS_FILE] {
        std::fs::copy(
            fixtures().join("peft_linear").join(name),
            dir.path().join(name),
        )
        .unwrap();
    }
    dir
}

pub(crate) fn edit_config(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join(CONFIG_FILE);
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
}

pub(crate) type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;

pub(crate) fn edit_weights(dir: &Path, edit: impl FnOnce(&mut Tensors)) {
    let path = dir.join(WEIGHTS_FILE);
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Tensors = tensors
        .iter()
        .map(|(name, view)| {
            (
                name.to_string(),
                view.shape().to_vec(),
                view.data().to_vec(),
            )
        })
        .collect();
    edit(&mut all);
    let views = all.iter().map(|(name, shape, data)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data);
        (name.as_str(), view.unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn an_adapter_of_pefts_computes_what_peft_computes() {
    let fixture = fixture("peft_linear.safetensors");
    for device in common::devices() {
        let dir = fixtures().join("peft_linear");
        let (net, report) = peft::load(net(&device), &dir, &Architecture::default())
            .unwrap()
            .into_parts();
        assert_eq!(report.modules[0].scale, 5.0 / 3.0);
        assert_eq!((report.modules[1].rank, report.modules[1].scale), (2, 3.5));
        let q = net.q.forward(fixture.tensor::<2>("x", &device));
        // Float32 sums of a dozen products of values around one.
        assert_close(q.clone(), &fixture.values("q_output"), 1e-5, "q");
        assert_close(net.v.forward(q), &fixture.values("output"), 1e-5, "v");
    }
}

#[test]
fn an_opened_directory_is_parsed_once_however_often_it_is_used() {
    let dir = fixtures().join("peft_linear");
    let (loaded, reads) = record_reads(|| {
        let adapter = AdapterDir::open(&dir)?;
        assert_eq!(*adapter.kind(), AdapterKind::Lora);
        assert_eq!(adapter.read()?.parameters(), 3 * (7 + 11) + 2 * (11 + 5));
        adapter.load(net(&Device::flex()), &Architecture::default())
    });
    loaded.unwrap();
    assert_eq!(reads, [dir.join(CONFIG_FILE)]);
}

#[test]
fn what_is_written_reads_back_bit_for_bit_and_as_peft_names_it() {
    let (net, report) = load(&fixtures().join("peft_linear")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    let options = PeftOptions::default();
    peft::save(&net, &report, &path, &options, Overwrite::Refuse).unwrap();
    let read = |dir: &Path| {
        let bytes = std::fs::read(dir.join(WEIGHTS_FILE)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut all: Vec<_> = tensors
            .iter()
            .map(|(name, view)| {
                (
                    name.to_string(),
                    view.shape().to_vec(),
                    view.data().to_vec(),
                )
            })
            .collect();
        all.sort();
        all
    };
    assert_eq!(read(&path), read(&fixtures().join("peft_linear")));
    let config: Value =
        serde_json::from_slice(&std::fs::read(path.join(CONFIG_FILE)).unwrap()).unwrap();
    assert_eq!(
        (&config["r"], &config["lora_alpha"]),
        (&json!(3), &json!(5))
    );
    assert_eq!(config["rank_pattern"], json!({"v": 2}));
    assert_eq!(config["alpha_pattern"], json!({"v": 7}));
    let (_, again) = load(&path).unwrap();
    assert_eq!(again.parameters(), report.parameters());

    let refused = peft::save(&net, &report, &path, &options, Overwrite::Refuse);
    assert!(matches!(refused, Err(LoraError::AlreadyExists { .. })));
    peft::save(&net, &report, &path, &options, Overwrite::Replace).unwrap();
}

#[test]
fn switching_to_another_adapter_leaves_nothing_of_the_first() {
    let (first, report) = load(&fixtures().join("peft_linear")).unwrap();
    let base = first.q.weight.base().into_data();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    // Another rank and other modules: the one on `v` only.
    let config = LoraConfig::new(4).with_targets(TargetModules::names(["v"]));
    let (other, other_report) = lora_core::attach(lora_core::detach(first.clone()), &config)
        .unwrap()
        .into_parts();
    peft::save(
        &other,
        &other_report,
        &path,
        &PeftOptions::default(),
        Overwrite::Refuse,
    )
    .unwrap();

    let second = peft::switch(first, &path, &Architecture::default())
        .unwrap()
        .into_module();
    assert!(second.q.adapter().is_none());
    assert_eq!(second.q.weight.val().into_data(), base);
    assert_eq!(second.v.adapter().unwrap().a.val().dims(), [11, 4]);
    let (back, again) = peft::switch(
        second,
        fixtures().join("peft_linear"),
        &Architecture::default(),
    )
    .unwrap()
    .into_parts();
    assert_eq!(again.parameters(), report.parameters());
    let fixture = fixture("peft_linear.safetensors");
    let x = fixture.tensor::<2>("x", &Device::flex());
    assert_close(back.q.forward(x), &fixture.values("q_output"), 1e-5, "q");
}

#[test]
fn keys_that_change_the_arithmetic_are_refused_by_name() {
    let cases = [
        ("use_qalora", json!(true)),
        ("alora_invocation_tokens", json!([3])),
        ("target_parameters", json!(["experts"])),
        ("layer_replication", json!([[0, 2]])),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("peft_type", json!("IA3")),
        ("something_of_a_later_version", json!(3)),
    ];
    for (key, value) in cases {
        let dir = copy();
        edit_config(dir.path(), |config| config[key] = value.clone());
        match load(dir.path()) {
            Err(LoraError::UnsupportedKey { key: found, .. }) => assert_eq!(found, key),
            other => panic!("{key}: {other:?}"),
        }
    }
    let dir = copy();
    edit_config(dir.path(), |config| {
        config["something_of_a_later_version"] = json!(false)
    });
    assert!(load(dir.path()).is_ok());
}

#[test]
fn malformed_configurations_are_refused() {
    for (key, value) in [
        ("r", json!("three")),
        ("r", json!(-1)),
        ("r", json!(0)),
        ("lora_dropout", json!(1.5)),
        ("target_modules", json!(null)),
        ("target_modules", json!(7)),
        ("rank_pattern", json!({"v": "two"})),
        ("target_modules", json!(["absent"])),
        ("r", json!(1_000_000)),
    ] {
        let dir = copy();
        edit_config(dir.path(), |config| config[key] = value.clone());
        assert!(load(dir.path()).is_err(), "{key} = {value}");
    }
    for text in ["", "[]", "{", "\u{0}", "{\"peft_type\": \"LORA\""] {
        let dir = copy();
        std::fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
        assert!(
            matches!(load(dir.path()), Err(LoraError::Malformed { .. })),
            "{text:?}"
        );
    }
    let deep = format!("{{\"peft_type\": {}", "[".repeat(100_000));
    let dir = copy();
    std::fs::write(dir.path().join(CONFIG_FILE), deep).unwrap();
    assert!(load(dir.path()).is_err());
}

#[test]
fn tensors_must_be_exactly_those_called_for() {
    let dir = copy();
    edit_weights(dir.path(), |tensors| {
        tensors.retain(|(name, ..)| !name.contains("v.lora_B"));
    });
    match load(dir.path()) {
        Err(LoraError::MissingTensors { names, .. }) => {
            assert_eq!(names, ["base_model.model.v.lora_B.weight"]);
        }
        other => panic!("{other:?}"),
    }

    let dir = copy();
    edit_weights(dir.path(), |tensors| {
        tensors.push((
            "base_model.model.k.lora_A.weight".into(),
            vec![1],
            vec![0; 4],
        ));
    });
    assert!(matches!(
        load(dir.path()),
        Err(LoraError::UnexpectedTensors { .. })
    ));

    let dir = copy();
    edit_weights(dir.path(), |tensors| {
        let (_, shape, _) = tensors
            .iter_mut()
            .find(|t| t.0.ends_with("q.lora_A.weight"))
            .unwrap();
        shape.reverse();
    });
    match load(dir.path()) {
        Err(LoraError::TensorShape {
            expected, found, ..
        }) => {
            assert_eq!((expected, found), (vec![3, 7], vec![7, 3]));
        }
        other => panic!("{other:?}"),
    }

    let dir = copy();
    edit_weights(dir.path(), |tensors| {
        tensors[0].2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(matches!(load(dir.path()), Err(LoraError::Malformed { .. })));
}

#[test]
fn hostile_weight_files_are_refused() {
    let good = std::fs::read(fixtures().join("peft_linear").join(WEIGHTS_FILE)).unwrap();
    let mut lying = good.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let huge = vec![0u8; 20 << 20];
    for bytes in [
        &good[..good.len() - 3],
        &good[..7],
        &[],
        &lying[..],
        &huge[..],
    ] {
        let dir = copy();
        std::fs::write(dir.path().join(WEIGHTS_FILE), bytes).unwrap();
        assert!(
            matches!(load(dir.path()), Err(LoraError::Malformed { .. })),
            "{}",
            bytes.len()
        );
    }
    let dir = copy();
    std::fs::remove_file(dir.path().join(WEIGHTS_FILE)).unwrap();
    assert!(matches!(load(dir.path()), Err(LoraError::Io { .. })));
}

#[test]
fn a_sliced_adapter_is_a_standard_one_for_others_and_sliced_again_here() {
    #[derive(Module, Debug)]
    struct Fused {
        c_attn: LoraLinear,
    }
    let device = Device::flex();
    let architecture = Architecture {
        fused: vec![FusedProjection {
            module: "c_attn".into(),
            parts: ["q", "k", "v"].map(String::from).to_vec(),
            layout: FusedLayout::PartByPart,
        }],
        ..Architecture::default()
    };
    let base = Fused {
        c_attn: lora_core::LoraLinearConfig::new(6, 12).init(&device),
    };
    for scaling in [LoraScaling::Standard, LoraScaling::RankStabilized] {
        let config = LoraConfig::new(2)
            .with_alpha(5.0)
            .with_scaling(scaling)
            .with_targets(TargetModules::names(["c_attn[q,v]"]));
        let (net, report) = attach(base.clone(), config.for_architecture(&architecture))
            .unwrap()
            .into_parts();
        // B is zero at the start: give it values, so that there is something to compare.
        let net = net.train().map(&mut Ones).valid();
        let x = Tensor::<2>::ones([1, 6], &device);
        let expected = host(net.c_attn.forward(x.clone()));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        peft::save(
            &net,
            &report,
            &path,
            &PeftOptions::default(),
            Overwrite::Refuse,
        )
        .unwrap();
        let config = peft::read_config(&path).unwrap();
        assert_eq!(config.rank, 4);
        let (again, report) = peft::load(base.clone(), &path, &architecture)
            .unwrap()
            .into_parts();
        assert_eq!(report.modules[0].slices.as_ref().unwrap().adapted, [0, 2]);
        assert_eq!(
            (report.modules[0].rank, report.parameters()),
            (2, 6 * 4 + 4 * 4)
        );
        assert!((report.modules[0].alpha - 5.0).abs() < 1e-12);
        assert_close(again.c_attn.forward(x.clone()), &expected, 0.0, "sliced");

        // Without our metadata, as another program would write it: a whole adapter of rank 4.
        edit_weights(&path, |_| {});
        let (whole, report) = peft::load(base.clone(), &path, &architecture)
            .unwrap()
            .into_parts();
        assert!(report.modules[0].slices.is_none());
        assert_close(whole.c_attn.forward(x), &expected, 1e-6, "whole");
    }
}

struct Ones;

impl burn::module::ModuleMapper for Ones {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if param.is_require_grad() {
            param.map(|t| (t.ones_like() * 0.3).detach().require_grad())
        } else {
            param
        }
    }
}

#[test]
fn a_module_to_save_trains_whole_and_comes_back_from_the_file() {
    #[derive(Module, Debug)]
    struct Classifier {
        hidden: LoraLinear,
        norm: burn::nn::LayerNorm,
        classifier: LoraLinear,
    }
    let device = Device::flex().autodiff();
    let base = Classifier {
        hidden: lora_core::LoraLinearConfig::new(6, 12).init(&device),
        norm: burn::nn::LayerNormConfig::new(12).init(&device),
        classifier: lora_core::LoraLinearConfig::new(12, 3).init(&device),
    };
    let config = LoraConfig::new(2).with_modules_to_save(["classifier", "norm"]);
    let (module, report) = attach(base.clone(), &config).unwrap().into_parts();
    // `all-linear` would take the classifier as well, if it were not trained whole.
    assert_eq!(report.modules.len(), 1);
    assert_eq!(report.parameters(), 6 * 2 + 2 * 12);
    assert_eq!(report.saved_parameters(), 12 * 3 + 3 + 12 + 12);
    let trainable = lora_core::trainable_summary(&module).trainable;
    assert_eq!(trainable, report.parameters() + report.saved_parameters());

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("adapter");
    let (architecture, options) = (Architecture::default(), PeftOptions::default());
    peft::save(&module, &report, &dir, &options, Overwrite::Refuse).unwrap();
    let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| file.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("base_model.model.classifier.weight"), [3, 12]);
    assert_eq!(shape("base_model.model.norm.weight"), [12]);

    let other = Classifier {
        classifier: lora_core::LoraLinearConfig::new(12, 3).init(&device),
        ..base
    };
    let (again, again_report) = peft::load(other, &dir, &architecture).unwrap().into_parts();
    assert_eq!(again_report.saved, report.saved);
    let weight = |module: &Classifier| module.classifier.weight.val().into_data();
    assert_eq!(weight(&again), weight(&module));
    assert!(again.classifier.weight.val().is_require_grad());
    assert!(!again.hidden.weight.base().is_require_grad());
}

#[test]
fn the_documentation_tells_of_every_field_that_peft_writes() {
    let text = std::fs::read(fixtures().join("peft_linear/adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let documentation = include_str!("../../src/file/mod.rs");
    let fields = config.as_object().unwrap().keys();
    let missing: Vec<&String> = fields
        .filter(|field| !documentation.contains(&format!("`{field}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
