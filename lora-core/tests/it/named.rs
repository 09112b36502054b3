//! Several adapters on one base: the active one, merges, trees, and adapters for each example of a batch.

mod per_example;

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use lora_core::file::PeftOptions;
use lora_core::file::StoredTensor;
use lora_core::files::Overwrite;
use lora_core::named::{BatchAdapters, NamedAdapters, adapters_in, in_rows};
use lora_core::{
    Adapted, Architecture, BiasTraining, FusedLayout, FusedProjection, LoraConfig, LoraEmbedding,
    LoraEmbeddingConfig, LoraError, LoraInit, LoraLinear, LoraLinearConfig, LoraScaling,
    TargetModules, attach, file, merge,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use test_support::compare;
use test_support::fill::Fill;
use test_support::tensors::host;

/// Sums of some ten products of the order of 1, in another order.
const TOLERANCE: f32 = 2e-5;

#[derive(Module, Debug)]
struct Net {
    words: LoraEmbedding,
    fused: LoraLinear,
    norm: LayerNorm,
    plain: Linear,
    head: LoraLinear,
}

const VOCABULARY: usize = 11;

impl Net {
    fn new(device: &Device) -> Self {
        device.seed(3);
        Self {
            words: LoraEmbeddingConfig::new(VOCABULARY, 8).init(device),
            fused: LoraLinearConfig::new(8, 18).init(device),
            norm: LayerNormConfig::new(18).init(device),
            plain: LinearConfig::new(18, 10).init(device),
            head: LoraLinearConfig::new(10, 5).init(device),
        }
    }

    /// `[batch, seq, 10]`.
    fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let x = self.fused.forward(self.words.forward(ids));
        self.plain.forward(self.norm.forward(x)).tanh()
    }

    /// `[batch · seq, 5]`.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        let [batch, seq] = ids.dims();
        self.head
            .forward(self.hidden(ids).reshape([batch * seq, 10]))
    }
}

fn architecture() -> Architecture {
    Architecture {
        fused: vec![FusedProjection {
            module: "fused".into(),
            parts: ["q", "k", "v"].map(String::from).to_vec(),
            layout: FusedLayout::PartByPart,
        }],
        ..Architecture::default()
    }
}

fn ids(batch: usize, seq: usize, device: &Device) -> Tensor<2, Int> {
    let values: Vec<i64> = (0..batch * seq)
        .map(|i| ((i * 7 + i / 3) % VOCABULARY) as i64)
        .collect();
    Tensor::from_data(TensorData::new(values, [batch, seq]), device)
}

fn trained(base: &Net, config: &LoraConfig, salt: f32) -> Adapted<Net> {
    let adapted = attach(base.clone(), config.for_architecture(&architecture())).unwrap();
    let saved = adapted.report().saved.iter();
    let saved = saved.map(|saved| saved.parameter.clone());
    // Nothing that an adapter has stays as it started.
    let fill = Fill::adapters().and(saved).with_salt(salt).added();
    adapted.map(|net| fill.map(net))
}

fn names<const N: usize>(names: [&str; N]) -> TargetModules {
    TargetModules::names(names)
}

/// One of every kind, with unequal ranks, that our layers read.
fn mixable() -> Vec<(&'static str, LoraConfig)> {
    let config = |rank: usize, alpha: f64| LoraConfig::new(rank).with_alpha(alpha);
    vec![
        (
            "plain",
            config(2, 5.0).with_targets(names(["fused", "words"])),
        ),
        (
            "slices",
            config(3, 4.0).with_targets(names(["fused[q,v]", "head"])),
        ),
        (
            "dora",
            config(2, 7.0)
                .with_dora(true)
                .with_targets(names(["fused", "words", "head"])),
        ),
        (
            "pissa",
            config(2, 3.0)
                .with_init(LoraInit::Pissa)
                .with_targets(names(["fused"])),
        ),
        (
            "biased",
            config(4, 6.0)
                .with_scaling(LoraScaling::RankStabilized)
                .with_lora_bias(true)
                .with_targets(names(["fused", "head"])),
        ),
        (
            "headed",
            config(2, 5.0)
                .with_targets(names(["fused"]))
                .with_modules_to_save(["head"]),
        ),
        (
            "headed_too",
            config(3, 5.0)
                .with_targets(names(["words"]))
                .with_modules_to_save(["head"]),
        ),
        (
            "lora_only",
            config(2, 9.0)
                .with_bias(BiasTraining::LoraOnly)
                .with_targets(names(["fused"])),
        ),
    ]
}

fn set(device: &Device) -> (Net, NamedAdapters<Net>, Vec<(&'static str, Net)>) {
    let base = Net::new(device);
    let mut adapters = NamedAdapters::new(base.clone(), architecture()).unwrap();
    let mut alone = Vec::new();
    for (at, (name, config)) in mixable().into_iter().enumerate() {
        let adapted = trained(&base, &config, 3.0 * at as f32);
        adapters
            .add_attached(name, &adapted, &PeftOptions::default())
            .unwrap();
        alone.push((name, adapted.into_module()));
    }
    (base, adapters, alone)
}

fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs
        .map(|(f, e)| (f - e).abs() / e.abs().max(1.0))
        .fold(0.0, f32::max)
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    compare::assert_near(found, expected, TOLERANCE, what);
}

#[test]
fn the_active_adapter_acts_as_it_does_alone() {
    let device = Device::flex();
    let (base, adapters, alone) = set(&device);
    let x = ids(3, 4, &device);
    let bare = host(base.forward(x.clone()));
    assert_eq!(adapters.active(), None);
    assert_eq!(host(adapters.model().forward(x.clone())), bare);
    for (name, net) in &alone {
        adapters.activate(name).unwrap();
        assert_eq!(adapters.active(), Some(*name));
        let found = host(adapters.model().forward(x.clone()));
        assert_near(&found, &host(net.forward(x.clone())), name);
        assert!(distance(&found, &bare) > 0.01, "{name}");
    }
    adapters.disable();
    assert_eq!(host(adapters.model().forward(x)), bare);
}

#[test]
fn adapters_come_and_go_by_name() {
    let device = Device::flex();
    let (base, mut adapters, alone) = set(&device);
    let x = ids(2, 3, &device);
    let bare = host(base.forward(x.clone()));
    let expected: Vec<&str> = mixable().iter().map(|(name, _)| *name).collect();
    assert_eq!(adapters.names().collect::<Vec<_>>(), expected);
    assert_eq!(adapters.list().next().unwrap().1.modules.len(), 2);

    // What is active stays so while others go and come.
    adapters.activate("dora").unwrap();
    let removed = adapters.remove("plain").unwrap();
    assert_eq!(removed.config.rank, 2);
    assert_eq!(adapters.active(), Some("dora"));
    let dora = host(alone[2].1.forward(x.clone()));
    assert_near(&host(adapters.model().forward(x.clone())), &dora, "dora");
    adapters.remove("dora").unwrap();
    assert_eq!(adapters.active(), None);
    assert_eq!(host(adapters.model().forward(x.clone())), bare);

    match adapters.activate("slice") {
        Err(LoraError::UnknownAdapter { name, candidates }) => {
            assert_eq!((name.as_str(), candidates[0].as_str()), ("slice", "slices"));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        adapters.remove("dora"),
        Err(LoraError::UnknownAdapter { .. })
    ));
    let adapted = trained(&base, &mixable()[0].1, 1.0);
    let mut add = |name: &str| {
        adapters
            .add_attached(name, &adapted, &PeftOptions::default())
            .map(|_| ())
    };
    assert!(matches!(
        add("slices"),
        Err(LoraError::DuplicateAdapter { .. })
    ));
    assert!(matches!(add("../out"), Err(LoraError::AdapterName { .. })));
    add("again").unwrap();
    // A number that was given away is not used again.
    adapters.activate("again").unwrap();
    assert_near(
        &host(adapters.model().forward(x.clone())),
        &host(adapted.module().forward(x)),
        "again",
    );
}

#[test]
fn an_adapter_that_does_not_fit_leaves_the_set_as_it_was() {
    let device = Device::flex();
    let (_, mut adapters, _) = set(&device);
    let mut stored = adapters.extract("plain").unwrap();
    let factors = stored.modules.remove("words").unwrap();
    stored.modules.insert("elsewhere".into(), factors);
    let error = adapters.add_stored("bad", &stored).unwrap_err();
    assert!(error.to_string().contains("elsewhere"), "{error:?}");
    let mut wider = adapters.extract("plain").unwrap();
    let a = &mut wider.modules.get_mut("fused").unwrap().a;
    *a = StoredTensor::new([2, 9], vec![0.5; 18]);
    let error = adapters.add_stored("bad", &wider).unwrap_err();
    assert!(matches!(error, LoraError::TensorShape { .. }), "{error:?}");
    assert_eq!(adapters.names().count(), mixable().len());
    let attached = adapters.alone("plain").unwrap().into_module();
    assert!(matches!(
        NamedAdapters::new(attached, architecture()),
        Err(LoraError::AlreadyAttached { .. })
    ));
    let with_set = adapters.model().clone();
    assert!(matches!(
        NamedAdapters::new(with_set, architecture()),
        Err(LoraError::AlreadyAttached { .. })
    ));
}

#[test]
fn a_merged_adapter_is_switched_without_drift() {
    let device = Device::flex();
    let (base, adapters, alone) = set(&device);
    let x = ids(3, 4, &device);
    let weights = |net: &Net| {
        [
            net.fused.weight.base(),
            net.head.weight.base(),
            net.words.weight.base(),
        ]
        .map(host)
    };
    let (before, bare) = (weights(&base), host(base.forward(x.clone())));
    let mut merged = adapters.merge("plain").unwrap();
    assert_eq!(merged.name(), "plain");
    for _ in 0..5 {
        for (name, net) in &alone {
            merged.switch(name).unwrap();
            assert!(merged.module().fused.adapter().is_none());
            // The same bits as those of a merge of this one alone.
            let expected = merge(net.clone()).into_module();
            assert_eq!(weights(merged.module()), weights(&expected), "{name}");
            let found = host(merged.module().forward(x.clone()));
            assert_near(&found, &host(net.forward(x.clone())), name);
        }
    }
    assert!(matches!(
        merged.switch("none"),
        Err(LoraError::UnknownAdapter { .. })
    ));
    assert_eq!(merged.name(), "lora_only");
    assert_eq!(weights(adapters.base()), before);
    assert_eq!(host(adapters.model().forward(x)), bare);
}

#[test]
fn a_tree_holds_all_adapters_and_comes_back() {
    let device = Device::flex();
    let (base, mut adapters, _) = set(&device);
    let adapted = trained(&base, &mixable()[0].1, 8.0);
    let options = PeftOptions {
        task_type: Some("SEQ_CLS".into()),
        companions: vec![("config.json".into(), b"{}\n".to_vec())],
        ..PeftOptions::default()
    };
    adapters
        .add_attached("default", &adapted, &options)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    adapters.save_tree(&tree, Overwrite::Refuse).unwrap();
    assert!(matches!(
        adapters.save_tree(&tree, Overwrite::Refuse),
        Err(LoraError::AlreadyExists { .. })
    ));
    assert!(tree.join("adapter_config.json").is_file());
    assert!(tree.join("config.json").is_file());
    assert!(tree.join("dora/adapter_model.safetensors").is_file());

    let mut again = NamedAdapters::new(base.clone(), architecture()).unwrap();
    let found = again.add_tree(&tree).unwrap();
    let mut expected: Vec<&str> = mixable().iter().map(|(name, _)| *name).collect();
    expected.sort();
    expected.insert(0, "default");
    assert_eq!(found, expected);
    let x = ids(3, 4, &device);
    for name in &expected {
        adapters.activate(name).unwrap();
        again.activate(name).unwrap();
        let (one, other) = (adapters.model(), again.model());
        assert_near(
            &host(other.forward(x.clone())),
            &host(one.forward(x.clone())),
            name,
        );
        assert_eq!(
            again.extract(name).unwrap().modules,
            adapters.extract(name).unwrap().modules,
            "{name}"
        );
    }
    assert_eq!(
        again.extract("default").unwrap().options.companions,
        options.companions
    );
    // The one at the top is an adapter like any other.
    let top = file::load(base, &tree, &architecture())
        .unwrap()
        .into_module();
    again.activate("default").unwrap();
    assert_near(
        &host(again.model().forward(x.clone())),
        &host(top.forward(x)),
        "top",
    );

    // Nothing is added of a tree of which not all can be.
    let before = again.names().count();
    assert!(matches!(
        again.add_tree(&tree),
        Err(LoraError::DuplicateAdapter { .. })
    ));
    assert_eq!(again.names().count(), before);
}

#[test]
fn a_directory_that_is_no_tree_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        adapters_in(folder.path()),
        Err(LoraError::Malformed { .. })
    ));
    let missing = folder.path().join("missing");
    assert!(matches!(adapters_in(&missing), Err(LoraError::Io { .. })));
    for name in ["", "default", "logs"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for name in ["", "default"] {
        std::fs::write(folder.path().join(name).join("adapter_config.json"), "{}").unwrap();
    }
    match adapters_in(folder.path()) {
        Err(error @ LoraError::Malformed { .. }) => {
            assert!(error.to_string().contains("default"), "{error}")
        }
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(folder.path().join("adapter_config.json")).unwrap();
    let found = adapters_in(folder.path()).unwrap();
    assert_eq!(
        found,
        [("default".to_string(), folder.path().join("default"))]
    );
}
