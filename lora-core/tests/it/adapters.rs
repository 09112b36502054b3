//! Adapters on modules: both paths, dropout, slices, switching, merging, counting.

use crate::common::assert_close;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use lora_core::file::{AdapterDir, PeftOptions};
use lora_core::files::Overwrite;
use lora_core::{
    Adapted, AdapterPath, Architecture, FusedLayout, FusedProjection, LoraConfig, LoraEmbedding,
    LoraEmbeddingConfig, LoraError, LoraLinear, LoraLinearConfig, TargetModules, attach, detach,
    merge, trainable_summary, weight_errors,
};
use test_support::fill::Fill;
use test_support::tensors::host;

#[derive(Module, Debug)]
struct Foreign {
    embedding: Embedding,
    hidden: Linear,
    output: Linear,
}

#[derive(Module, Debug)]
struct Ours {
    embedding: LoraEmbedding,
    hidden: LoraLinear,
    output: LoraLinear,
}

fn pair(device: &Device) -> (Foreign, Ours) {
    let foreign = Foreign {
        embedding: EmbeddingConfig::new(9, 6).init(device),
        hidden: LinearConfig::new(6, 12).init(device),
        output: LinearConfig::new(12, 5).with_bias(false).init(device),
    };
    let ours = Ours {
        embedding: foreign.embedding.clone().into(),
        hidden: foreign.hidden.clone().into(),
        output: foreign.output.clone().into(),
    };
    (foreign, ours)
}

fn ids(device: &Device) -> Tensor<2, Int> {
    Tensor::from_ints([[0, 3, 8, 1], [5, 5, 2, 7]], device)
}

fn run_foreign(m: &Foreign) -> Tensor<3> {
    let device = m.hidden.weight.device();
    m.output
        .forward(m.hidden.forward(m.embedding.forward(ids(&device))).tanh())
}

fn run_ours(m: &Ours) -> Tensor<3> {
    let device = m.hidden.weight.device();
    m.output
        .forward(m.hidden.forward(m.embedding.forward(ids(&device))).tanh())
}

/// Gives every factor of a module values that are not zero.
fn filled<M: Module>(module: M, salt: f32) -> M {
    Fill::trained().with_salt(salt).map(module)
}

fn config() -> LoraConfig {
    LoraConfig::new(3)
        .with_alpha(5.0)
        .with_targets(TargetModules::names(["embedding", "hidden", "output"]))
        .with_rank_for("hidden", 2)
}

#[test]
fn both_paths_compute_the_same_values_and_gradients() {
    let device = Device::flex().autodiff();
    let (foreign, ours) = pair(&device);
    let (foreign, report_foreign) = attach(foreign, &config()).unwrap().into_parts();
    let (ours, report_ours) = attach(ours, &config()).unwrap().into_parts();
    assert!(
        report_foreign
            .modules
            .iter()
            .all(|m| m.path == AdapterPath::Composed)
    );
    assert!(
        report_ours
            .modules
            .iter()
            .all(|m| m.path == AdapterPath::Activation)
    );
    let (foreign, ours) = (filled(foreign, 0.0), filled(ours, 0.0));

    let (y_foreign, y_ours) = (run_foreign(&foreign), run_ours(&ours));
    assert_close(y_ours.clone(), &host(y_foreign.clone()), 1e-5, "y");
    let (g_foreign, g_ours) = (
        y_foreign.square().sum().backward(),
        y_ours.square().sum().backward(),
    );
    let hidden = foreign
        .hidden
        .weight
        .reparameterization::<lora_core::LowRankAdapter>()
        .unwrap();
    let factors = [
        (&hidden.a, &ours.hidden.adapter().unwrap().a),
        (&hidden.b, &ours.hidden.adapter().unwrap().b),
    ];
    for (theirs, mine) in factors {
        let expected = host(theirs.val().grad(&g_foreign).unwrap());
        assert_close(
            mine.val().grad(&g_ours).unwrap(),
            &expected,
            1e-4,
            "gradient",
        );
    }
    let embedding = ours.embedding.adapter().unwrap();
    let expected = foreign
        .embedding
        .weight
        .reparameterization::<lora_core::LowRankAdapter>()
        .unwrap();
    assert_close(
        embedding.a.val().grad(&g_ours).unwrap(),
        &host(expected.a.val().grad(&g_foreign).unwrap()),
        1e-4,
        "embedding A",
    );
    assert!(ours.hidden.weight.base().grad(&g_ours).is_none());
}

#[test]
fn an_adapter_starts_as_the_base_model() {
    let device = Device::flex();
    let (_, ours) = pair(&device);
    let before = host(run_ours(&ours));
    let ours = attach(ours, &config()).unwrap().into_module();
    assert_close(run_ours(&ours), &before, 0.0, "y");
}

#[test]
fn the_report_and_the_summary_count_exactly() {
    let device = Device::flex().autodiff();
    let (foreign, ours) = pair(&device);
    let all = 9 * 6 + (6 * 12 + 12) + 12 * 5;
    assert_eq!(trainable_summary(&foreign).trainable, all);
    let (ours, report) = attach(ours, &config()).unwrap().into_parts();
    let adapters = (9 * 3 + 3 * 6) + (6 * 2 + 2 * 12) + (12 * 3 + 3 * 5);
    assert_eq!(report.parameters(), adapters);
    let summary = trainable_summary(&ours);
    assert_eq!((summary.trainable, summary.frozen), (adapters, all));
    assert_eq!(summary.trainable_bytes, 4 * adapters);
    assert_eq!(trainable_summary(&ours.valid()), summary);
    let hidden = &report.modules[1];
    assert_eq!(
        (hidden.module.as_str(), hidden.rank, hidden.scale),
        ("hidden", 2, 2.5)
    );
}

#[test]
fn dropout_acts_on_the_adapters_input_only_and_only_in_training() {
    let device = Device::flex().autodiff();
    let linear = LoraLinearConfig::new(64, 32).init(&device);
    let linear = attach(
        linear,
        &LoraConfig::new(4).with_alpha(8.0).with_dropout(0.5),
    )
    .unwrap()
    .into_module();
    let x = Tensor::<2>::random([16, 64], Distribution::Default, &device);
    // B is zero: the base is not touched by dropout.
    let base = host(linear.forward(x.clone()));
    assert_close(linear.forward(x.clone()), &base, 0.0, "base");

    let linear = filled(linear, 0.0);
    let (first, second) = (
        host(linear.forward(x.clone())),
        host(linear.forward(x.clone())),
    );
    assert_ne!(first, second);
    // Its mean over many draws is the value without dropout.
    let exact = host(linear.valid().forward(x.clone().inner()));
    let mut mean = vec![0.0f32; exact.len()];
    const DRAWS: usize = 400;
    for _ in 0..DRAWS {
        let draw = host(linear.forward(x.clone()));
        mean.iter_mut()
            .zip(&draw)
            .for_each(|(m, d)| *m += d / DRAWS as f32);
    }
    let error = mean
        .iter()
        .zip(&exact)
        .map(|(m, e)| (m - e).abs())
        .sum::<f32>()
        / mean.len() as f32;
    let spread = first
        .iter()
        .zip(&exact)
        .map(|(m, e)| (m - e).abs())
        .sum::<f32>()
        / mean.len() as f32;
    // 400 draws shrink the mean error by √400 = 20; half of that is asked for.
    assert!(error < spread / 10.0, "{error} {spread}");
}

#[test]
fn dropout_on_the_composed_path_is_refused_where_it_would_act() {
    let device = Device::flex();
    let (foreign, _) = pair(&device);
    let on = |name: &str, dropout| {
        let targets = TargetModules::names([name]);
        LoraConfig::new(2)
            .with_targets(targets)
            .with_dropout(dropout)
    };
    let is_refused = |result: Result<Adapted<Foreign>, LoraError>| matches!(result, Err(LoraError::UnsupportedTarget { module, .. }) if module == "hidden");
    assert!(is_refused(attach(foreign.clone(), &on("hidden", 0.1))));
    // As in PEFT, an embedding has no dropout.
    assert!(attach(foreign.clone(), &on("embedding", 0.1)).is_ok());

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    let adapted = attach(foreign.clone(), &on("hidden", 0.0)).unwrap();
    adapted
        .save(&path, &PeftOptions::default(), Overwrite::Refuse)
        .unwrap();
    let adapter = AdapterDir::open(&path).unwrap();
    let load = |module: &Foreign, dropout| {
        let plain = Architecture::default();
        adapter.load_with(module.clone(), &on("hidden", dropout), &plain)
    };
    // Nothing trains on a device without gradients.
    assert!(load(&foreign, 0.1).is_ok());
    let (trained, _) = pair(&device.autodiff());
    assert!(is_refused(load(&trained, 0.1)));
    assert!(load(&trained, 0.0).is_ok());
}

#[test]
fn attaching_twice_is_refused_and_detaching_gives_the_base_bit_for_bit() {
    let device = Device::flex();
    let (_, ours) = pair(&device);
    let base = ours.hidden.weight.val().into_data();
    let adapted = attach(ours, &config()).unwrap().into_module();
    let adapted = filled(adapted.train(), 1.0).valid();
    let twice = attach(adapted.clone(), &config());
    assert!(matches!(twice, Err(LoraError::AlreadyAttached { .. })));
    let detached = detach(adapted.clone());
    assert!(detached.hidden.adapter().is_none());
    assert_eq!(detached.hidden.weight.val().into_data(), base);
    // The clone keeps its adapter, and another can be put on the base.
    assert!(adapted.hidden.adapter().is_some());
    assert!(attach(detached, &config()).is_ok());
}

#[test]
fn the_switch_turns_adapters_off_and_on_in_every_clone() {
    let device = Device::flex();
    let (foreign, ours) = pair(&device);
    let base = host(run_ours(&ours));
    let (ours, report) = attach(ours, &config()).unwrap().into_parts();
    let ours = filled(ours.train(), 1.0).valid();
    let clone = ours.clone();
    let adapted = host(run_ours(&ours));
    assert_ne!(adapted, base);
    report.switch.set_enabled(false);
    assert_close(run_ours(&clone), &base, 0.0, "off");
    report.switch.set_enabled(true);
    assert_close(run_ours(&clone), &adapted, 0.0, "on");
    // The composed path follows its switch too.
    let (foreign, report) = attach(foreign, &config()).unwrap().into_parts();
    let foreign = filled(foreign.train(), 1.0).valid();
    report.switch.set_enabled(false);
    assert_close(run_foreign(&foreign), &base, 1e-6, "composed off");
}

#[test]
fn merging_keeps_the_outputs_and_unmerging_restores_the_base_bit_for_bit() {
    let device = Device::flex();
    let (_, ours) = pair(&device);
    let ours = attach(ours, &config()).unwrap().into_module();
    let ours = filled(ours.train(), 2.0).valid();
    let base = ours.hidden.weight.base().into_data();
    let expected = host(run_ours(&ours));
    let merged = merge(ours);
    assert!(merged.module().hidden.adapter().is_none());
    assert_ne!(merged.module().hidden.weight.val().into_data(), base);
    assert_close(run_ours(merged.module()), &expected, 1e-5, "merged");
    let ours = merged.unmerge();
    assert_eq!(ours.hidden.weight.base().into_data(), base);
    assert_close(run_ours(&ours), &expected, 0.0, "unmerged");
}

#[test]
fn slices_adapt_only_their_columns() {
    let device = Device::flex().autodiff();
    let architecture = Architecture {
        fused: vec![FusedProjection {
            module: "hidden".into(),
            parts: ["q", "k", "v"].map(String::from).to_vec(),
            layout: FusedLayout::PartByPart,
        }],
        ..Architecture::default()
    };
    let config = LoraConfig::new(2)
        .with_alpha(5.0)
        .with_targets(TargetModules::names(["hidden[q,v]"]));
    let (_, ours) = pair(&device);
    let (ours, report) = attach(ours, config.for_architecture(&architecture))
        .unwrap()
        .into_parts();
    // loralib's count: A [6, 2·2] and B [2·2, 12/3].
    assert_eq!(report.parameters(), 6 * 4 + 4 * 4);
    let ours = filled(ours, 3.0);
    let adapter = ours.hidden.adapter().unwrap();
    let delta = host(adapter.delta());
    for (i, value) in delta.iter().enumerate() {
        let in_k = (4..8).contains(&(i % 12));
        assert_eq!(*value == 0.0, in_k, "element {i}");
    }
    // Each slice is its own A_g B_g.
    let (a, b) = (adapter.a.val(), adapter.b.val());
    let q = a
        .clone()
        .slice([0..6, 0..2])
        .matmul(b.clone().slice([0..2, 0..4]))
        * 2.5;
    let v = a.slice([0..6, 2..4]).matmul(b.slice([2..4, 0..4])) * 2.5;
    let dense = adapter.delta();
    assert_close(dense.clone().slice([0..6, 0..4]), &host(q), 1e-6, "q");
    assert_close(dense.slice([0..6, 8..12]), &host(v), 1e-6, "v");
    let grads = run_ours(&ours).square().sum().backward();
    assert_eq!(adapter.b.val().grad(&grads).unwrap().dims(), [4, 4]);
}

#[test]
fn an_embedding_starts_with_a_zero_a_as_in_peft() {
    let embedding = LoraEmbeddingConfig::new(9, 6).init(&Device::flex());
    let config = LoraConfig::new(3).with_targets(TargetModules::regex(".*"));
    #[derive(Module, Debug)]
    struct Net {
        emb: LoraEmbedding,
    }
    let net = attach(Net { emb: embedding }, &config)
        .unwrap()
        .into_module();
    let adapter = net.emb.adapter().unwrap();
    assert!(host(adapter.a.val()).iter().all(|v| *v == 0.0));
    assert!(host(adapter.b.val()).iter().any(|v| *v != 0.0));
}

#[test]
fn a_bare_matrix_is_adapted_by_name_but_is_no_linear_layer() {
    #[derive(Module, Debug)]
    struct Net {
        layer: Linear,
        mixing: Param<Tensor<2>>,
    }
    let device = Device::flex();
    let net = Net {
        layer: LinearConfig::new(6, 4).init(&device),
        mixing: Param::from_tensor(Tensor::ones([5, 5], &device)),
    };
    let (_, report) = attach(net.clone(), &LoraConfig::new(2))
        .unwrap()
        .into_parts();
    assert_eq!(report.modules.len(), 1);
    assert_eq!(report.modules[0].module, "layer");
    let config = LoraConfig::new(2).with_targets(TargetModules::names(["mixing"]));
    let (net, report) = attach(net, &config).unwrap().into_parts();
    assert_eq!(report.modules[0].path, AdapterPath::Composed);
    assert_eq!(host(net.mixing.val()), vec![1.0; 25]);
}

#[derive(Module, Debug)]
struct One {
    layer: Linear,
}

/// A linear layer whose weight and bias are in half precision, with every kind of adapter.
fn in_half(
    dtype: DType,
    factors: DType,
    dora: bool,
    device: &Device,
) -> (One, lora_core::AttachReport) {
    struct Cast(DType, DType);
    impl burn::module::ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            // The adapters' own parameters train, those of the base do not.
            let trains = param.is_require_grad();
            let dtype = if trains { self.1 } else { self.0 };
            param.map(|tensor| tensor.cast(dtype).detach().set_require_grad(trains))
        }
    }
    let config = LoraConfig::new(3)
        .with_alpha(5.0)
        .with_dora(dora)
        .with_lora_bias(!dora)
        .with_targets(TargetModules::AllLinear);
    let one = One {
        layer: LinearConfig::new(37, 29).init(&device.clone().autodiff()),
    };
    let (one, report) = attach(one, &config).unwrap().into_parts();
    let one = filled(one, 3.0).map(&mut Cast(dtype, factors));
    (one.valid(), report)
}

#[test]
fn a_base_in_half_precision_is_added_to_in_f32_and_rounded_once() {
    let device = Device::flex();
    // Half the distance of f16's smallest values.
    let least = 2f64.powi(-25);
    for (dtype, unit) in [(DType::F16, 2f64.powi(-11)), (DType::BF16, 2f64.powi(-8))] {
        for (factors, dora) in [
            (DType::F32, false),
            (dtype, false),
            (DType::F32, true),
            (dtype, true),
        ] {
            let (one, report) = in_half(dtype, factors, dora, &device);
            let adapter = one
                .layer
                .weight
                .reparameterization::<lora_core::LowRankAdapter>()
                .unwrap();
            // What it would be in the base's own arithmetic: rounded, added and rounded again.
            let base = one.layer.weight.base();
            let twice = host(base.clone() + adapter.delta().cast(dtype));

            let merged = merge(one.clone()).into_module();
            assert_eq!(merged.layer.weight.val().dtype(), dtype);
            let error = weight_errors(&one, &report, &merged).unwrap().remove(0);
            // Values just below a power of two are rounded by nearly the unit roundoff of it.
            let what = format!("{dtype:?}, factors {factors:?}, dora {dora}: {error}");
            assert!(
                error.relative > 0.1 * unit && error.relative < 1.001 * unit,
                "{what}"
            );
            if !dora {
                let values = |tensor: Tensor<2>| host(tensor);
                let (a, b) = adapter.factors();
                let (a, b) = (values(a), values(b));
                let exact = |at: usize| {
                    let (row, column) = (at / 29, at % 29);
                    let product =
                        (0..3).map(|r| f64::from(a[row * 3 + r]) * f64::from(b[r * 29 + column]));
                    product.sum::<f64>() * adapter.scale()
                };
                let bases = values(base);
                let off = |found: &[f32]| {
                    let each = found.iter().enumerate().filter(|(at, found)| {
                        let sum = f64::from(bases[*at]) + exact(*at);
                        (f64::from(**found) - sum).abs() > 1.001 * unit * sum.abs() + least
                    });
                    each.count()
                };
                assert_eq!(off(&values(merged.layer.weight.val())), 0, "{what}");
                assert!(off(&twice) > 50, "{what}");
            }
        }
    }
}
