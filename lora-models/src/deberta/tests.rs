//! The variants of the attention against transformers, from `tests/fixtures/deberta`.

use super::DebertaModel;
use crate::ModelError;
use crate::added::LayerAdded;
use crate::encoder::{EncoderConfig, Rows, SelfAttention};
use crate::weights::{LayerBuilder, ParamSpec, Parameters, Weights};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Gradients, Int, Tensor, TensorData};
use fixtures::Fixture;
use lora_core::{Architecture, LoraConfig, TargetModules, attach};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Returns the hidden states of every token after the last layer, as a classifier computes them.
fn hidden_states(
    model: &DebertaModel,
    ids: Tensor<2, Int>,
    mask: &Tensor<2, Bool>,
    type_ids: Option<Tensor<2, Int>>,
) -> Tensor<3> {
    let x = model.embeddings.forward(ids, mask, type_ids);
    let context = model.encoder.context(mask, mask);
    let layers = 0..model.encoder.layer.len();
    layers.fold(x, |x, index| {
        (model.encoder).forward_layer(index, Rows::All, x, &context, mask, LayerAdded::default())
    })
}

/// Expected values are computed in f64 from the same weights; hidden states are of the order of 1.
const TOLERANCE: f32 = 2e-5;
/// Gradients are sums over some thirty tokens, of the order of 1 to 10.
const GRADIENT_TOLERANCE: f32 = 1e-4;

pub(super) mod fixtures {
    use safetensors::SafeTensors;
    use serde_json::{Map, Value};
    use std::path::PathBuf;

    fn path(name: &str) -> PathBuf {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        root.join("tests/fixtures/deberta").join(name)
    }

    pub fn cases() -> Map<String, Value> {
        serde_json::from_slice(&std::fs::read(path("cases.json")).unwrap()).unwrap()
    }

    /// Tensors of a safetensors file.
    pub struct Fixture(Vec<u8>);

    impl Fixture {
        pub fn open(name: &str) -> Self {
            Self(std::fs::read(path(name)).unwrap())
        }

        pub fn names(&self) -> Vec<String> {
            let tensors = SafeTensors::deserialize(&self.0).unwrap();
            tensors.names().into_iter().map(String::from).collect()
        }

        fn read<T, const N: usize>(
            &self,
            name: &str,
            of: fn([u8; N]) -> T,
        ) -> (Vec<T>, Vec<usize>) {
            let tensors = SafeTensors::deserialize(&self.0).unwrap();
            let view = tensors.tensor(name).unwrap_or_else(|_| panic!("{name}"));
            let elements = view.data().chunks_exact(N);
            let values = elements.map(|bytes| of(bytes.try_into().unwrap()));
            (values.collect(), view.shape().to_vec())
        }

        pub fn floats(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
            self.read(name, f32::from_le_bytes)
        }

        pub fn ints(&self, name: &str) -> (Vec<i64>, Vec<usize>) {
            self.read(name, i64::from_le_bytes)
        }
    }
}

/// Returns the architecture of a model with a head, without the head's part.
fn architecture(config: &EncoderConfig) -> Architecture {
    let names = [
        ("self_attn", "self"),
        ("layer_norm", "LayerNorm"),
        ("V1", ""),
        ("V2", ""),
    ];
    Architecture {
        names: names
            .map(|(here, there)| (here.into(), there.into()))
            .to_vec(),
        fused: DebertaModel::fused(config),
        ..Architecture::default()
    }
}

/// Source of the fixture's weights, which records the requests.
struct Stored {
    weights: Fixture,
    asked: Vec<String>,
}

impl Weights for Stored {
    fn values(&mut self, wanted: &ParamSpec) -> Result<Option<Vec<f32>>, ModelError> {
        let name = wanted.name.strip_prefix("deberta.").unwrap();
        let name = stored_name(name, &wanted.file_shape());
        let (values, _) = self.weights.floats(&name);
        self.asked.push(name);
        Ok(Some(match (wanted.transposed, wanted.shape.as_slice()) {
            (true, &[d_in, d_out]) => transposed(&values, d_out, d_in),
            _ => values,
        }))
    }
}

fn stored_name(name: &str, shape: &[usize]) -> String {
    format!("{name}{shape:?}").replace(' ', "")
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let column = |c: usize| (0..rows).map(move |r| values[r * columns + c]);
    (0..columns).flat_map(column).collect()
}

/// Returns the variants by name.
fn variants() -> impl Iterator<Item = (String, Map<String, Value>, Vec<String>)> {
    let cases = fixtures::cases().into_iter();
    cases.filter_map(|(name, case)| {
        let config = case.get("config")?.as_object()?.clone();
        let tensors = case["tensors"].as_array()?.iter();
        let tensors = tensors.map(|name| name.as_str().unwrap().to_string());
        Some((name, config, tensors.collect()))
    })
}

fn config_of(name: &str, changes: &[(&str, Value)]) -> EncoderConfig {
    let (_, mut json, _) = variants().find(|(found, ..)| found == name).unwrap();
    // The reference ran without dropout.
    for key in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
        json.insert(key.into(), 0.0.into());
    }
    json.extend(
        changes
            .iter()
            .map(|(key, value)| (key.to_string(), value.clone())),
    );
    EncoderConfig::from_json(Path::new(name), json).unwrap()
}

fn build(config: &EncoderConfig, device: &Device) -> (DebertaModel, Vec<String>) {
    let mut weights = Stored {
        weights: Fixture::open("weights.safetensors"),
        asked: Vec::new(),
    };
    let mut builder = LayerBuilder {
        architecture: &architecture(config),
        device,
        weights: &mut weights,
    };
    let model = DebertaModel::build(&mut builder, config, "deberta").unwrap();
    weights.asked.sort();
    (model, weights.asked)
}

/// The fixture's batch: three rows, the second and third padded on the right.
struct Batch {
    ids: Tensor<2, Int>,
    types: Tensor<2, Int>,
    mask: Tensor<2, Bool>,
    real: Vec<bool>,
}

impl Batch {
    fn new(expected: &Fixture, device: &Device) -> Self {
        let ints = |name: &str| {
            let (values, shape) = expected.ints(name);
            Tensor::<2, Int>::from_data(TensorData::new(values, shape), device)
        };
        let mask = ints("attention_mask").equal_elem(1);
        Self {
            ids: ints("input_ids"),
            types: ints("token_type_ids"),
            real: mask.to_data().iter::<bool>().collect(),
            mask,
        }
    }

    fn hidden(&self, model: &DebertaModel) -> Tensor<3> {
        let (ids, types) = (self.ids.clone(), self.types.clone());
        hidden_states(model, ids, &self.mask, Some(types))
    }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= tolerance * expected.abs().max(1.0);
        assert!(close, "{what}[{at}]: {found} is not {expected}");
    }
}

#[test]
fn every_variant_has_the_hidden_states_of_transformers() {
    let device = Device::flex();
    let expected = Fixture::open("expected.safetensors");
    let batch = Batch::new(&expected, &device);
    let mut count = 0;
    for (name, ..) in variants() {
        let (model, _) = build(&config_of(&name, &[]), &device);
        let hidden = batch.hidden(&model);
        let [_, _, d] = hidden.dims();
        let (expected, shape) = expected.floats(&format!("{name}.hidden"));
        assert_eq!(hidden.dims(), *shape, "{name}");
        let found = host(hidden);
        let rows = found.chunks_exact(d).zip(expected.chunks_exact(d));
        for (at, (found, expected)) in rows.enumerate().filter(|(at, _)| batch.real[*at]) {
            assert_near(found, expected, TOLERANCE, &format!("{name}, token {at}"));
        }
        assert!(found.iter().all(|value| value.is_finite()), "{name}");
        count += 1;
    }
    assert_eq!(count, 14);
}

/// Compares the requested names and those of the modules, with shapes.
#[test]
fn every_variant_has_the_tensors_of_transformers() {
    let device = Device::flex();
    for (name, _, tensors) in variants() {
        let config = config_of(&name, &[]);
        let (model, asked) = build(&config, &device);
        assert_eq!(asked, tensors, "{name}");
        let architecture = architecture(&config);
        let parameters = Parameters::collect(&model, &architecture, Path::new(&name)).unwrap();
        let plan = parameters.plan().into_iter();
        let mut visited: Vec<String> = plan
            .map(|(name, shape)| stored_name(&name, &shape))
            .collect();
        visited.sort();
        assert_eq!(visited, tensors, "{name}");
    }
}

/// Gradients by their names in a file, in its layout.
struct ByName<'a> {
    architecture: &'a Architecture,
    gradients: &'a Gradients,
    found: BTreeMap<String, Vec<f32>>,
    path: Vec<(String, String)>,
}

impl ModuleVisitor for ByName<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.into(), container.into()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        let Some(gradient) = param.val().grad(self.gradients) else {
            return;
        };
        let dims = gradient.dims();
        let mut values = host(gradient);
        if D == 2 && self.path.last().unwrap().1.ends_with(":LoraLinear") {
            values = transposed(&values, dims[0], dims[1]);
        }
        let name = self.architecture.tensor_name(&path.join("."));
        self.found.insert(name, values);
    }
}

#[test]
fn gradients_are_those_of_torch() {
    let device = Device::flex().autodiff();
    let expected = Fixture::open("expected.safetensors");
    let batch = Batch::new(&expected, &device);
    let mut variants_with = 0;
    for (variant, ..) in variants() {
        let prefix = format!("{variant}.grad.");
        let names = expected.names().into_iter();
        let names: Vec<String> = names.filter(|name| name.starts_with(&prefix)).collect();
        if names.is_empty() {
            continue;
        }
        variants_with += 1;
        let config = config_of(&variant, &[]);
        let (model, _) = build(&config, &device);
        let hidden = batch.hidden(&model);
        let [_, _, d] = hidden.dims();
        let weight = |at: usize| {
            if batch.real[at / d] {
                (0.7 * at as f64).sin() as f32
            } else {
                0.0
            }
        };
        let weights: Vec<f32> = (0..hidden.shape().num_elements()).map(weight).collect();
        let weights = Tensor::<3>::from_data(TensorData::new(weights, hidden.shape()), &device);
        let gradients = (hidden * weights).sum().backward();
        let mut by_name = ByName {
            architecture: &architecture(&config),
            gradients: &gradients,
            found: BTreeMap::new(),
            path: Vec::new(),
        };
        model.visit(&mut by_name);
        for name in &names {
            let (expected, _) = expected.floats(name);
            let found = &by_name.found[name.strip_prefix(&prefix).unwrap()];
            assert_near(found, &expected, GRADIENT_TOLERANCE, name);
        }
    }
    assert_eq!(variants_with, 4);
}

#[test]
fn a_row_is_the_same_alone_and_beside_padding() {
    let device = Device::flex();
    let batch = Batch::new(&Fixture::open("expected.safetensors"), &device);
    for name in ["v1_clamped", "v2_xlarge", "v2_no_buckets"] {
        let (model, _) = build(&config_of(name, &[]), &device);
        let both = host(batch.hidden(&model).narrow(0, 2, 1).narrow(1, 0, 7));
        let cut = |x: &Tensor<2, Int>| x.clone().narrow(0, 2, 1).narrow(1, 0, 7);
        let mask = batch.mask.clone().narrow(0, 2, 1).narrow(1, 0, 7);
        let alone = host(hidden_states(
            &model,
            cut(&batch.ids),
            &mask,
            Some(cut(&batch.types)),
        ));
        assert_near(&both, &alone, TOLERANCE, name);
        // One token has no distance to any other.
        let one = |x: &Tensor<2, Int>| x.clone().narrow(1, 0, 1);
        let mask = batch.mask.clone().narrow(1, 0, 1);
        let one = host(hidden_states(
            &model,
            one(&batch.ids),
            &mask,
            Some(one(&batch.types)),
        ));
        assert!(one.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn each_dropout_is_at_work_in_training_alone() {
    let device = Device::flex();
    let training = device.clone().autodiff();
    let expected = Fixture::open("expected.safetensors");
    for (name, key) in [
        ("v3_base", "hidden_dropout_prob"),
        ("v3_base", "attention_probs_dropout_prob"),
        ("v1_clamped", "hidden_dropout_prob"),
        ("v1_clamped", "attention_probs_dropout_prob"),
    ] {
        let (model, _) = build(&config_of(name, &[(key, 0.5.into())]), &device);
        // The attention alone: `hidden_dropout_prob` is there that of the distances.
        let attend = |model: &DebertaModel, device: &Device| {
            let batch = Batch::new(&expected, device);
            let x = Tensor::<3>::ones([3, 19, 24], device);
            let x = x.clone() * x.clone().cumsum(1) * 0.1 - x.cumsum(2) * 0.05;
            let context = model.encoder.context(&batch.mask, &batch.mask);
            let attention = &model.encoder.layer[0].attention.self_attn;
            host(attention.forward(x, &context, None))
        };
        assert_eq!(attend(&model, &device), attend(&model, &device), "{name}");
        let model = model.train();
        assert_ne!(
            attend(&model, &training),
            attend(&model, &training),
            "{name} {key}"
        );
    }
}

#[test]
fn targets_have_hugging_faces_names() {
    let device = Device::flex();
    for (name, targets, parameters) in [
        // Of both layers queries and values: rank · (d_in + d_out) each.
        ("v1_clamped", "in_proj[q,v]", 2 * 2 * 3 * (24 + 24)),
        (
            "v1_clamped",
            "encoder.layer.1.attention.self.pos_q_proj",
            3 * (24 + 24),
        ),
        ("v3_base", "query_proj", 2 * 3 * (24 + 24)),
        ("v3_base", "encoder.rel_embeddings", 3 * (16 + 24)),
    ] {
        let config = config_of(name, &[]);
        let (model, _) = build(&config, &device);
        let lora = LoraConfig::new(3).with_targets(TargetModules::names([targets]));
        let architecture = architecture(&config);
        let adapted = attach(model, lora.for_architecture(&architecture)).unwrap();
        let report = adapted.report();
        assert_eq!(report.parameters(), parameters, "{name} {targets}");
    }
}

#[test]
fn a_model_of_this_family_needs_the_options_of_its_attention() {
    let mut config = config_of("v3_base", &[]);
    config.disentangled = None;
    let mut weights = Stored {
        weights: Fixture::open("weights.safetensors"),
        asked: Vec::new(),
    };
    let mut builder = LayerBuilder {
        architecture: &Architecture::default(),
        device: &Device::flex(),
        weights: &mut weights,
    };
    let error = DebertaModel::build(&mut builder, &config, "deberta").unwrap_err();
    assert!(
        error.to_string().contains("`disentangled` is None"),
        "{error}"
    );
}
