//! Decoders of the Llama kind compute what transformers and PEFT compute, family by family.

use crate::common::{
    TOLERANCE, assert_real_logits, fill_adapters, fixture, mask_of, model_tensors,
};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Gradients, Int, Tensor, TensorData};
use lora_core::file::StoredAdapter;
use lora_core::files::Overwrite;
use lora_core::ops::{CrossEntropy, Segments};
use lora_core::{Adapted, FusedLayout, LoraConfig, LoraInit, Slices, TargetModules, merge};
use lora_models::decoder::{DecoderConfig, DecoderLm};
use lora_models::generate::{
    BeamSearch, EarlyStopping, GenerationConfig, Generator, KvCache, Strategy,
};
use lora_models::{
    CausalInput, CausalLm, ExportOptions, FamilyConfig, LoadOptions, LoraModel, LoraTargets,
    ModelConfig, Pretrained, SaveAdapter,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host, transpose};

/// All models of the fixtures.
const MODELS: [&str; 15] = [
    "llama",
    "llama3_old",
    "llama_linear_old",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "phi3",
    "granite",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma3_text_old",
    "olmo2",
    "olmo3",
];

fn dir(name: &str) -> std::path::PathBuf {
    fixture("decoders").join(name)
}

fn load(name: &str, device: &Device) -> DecoderLm {
    let loaded = DecoderLm::load(dir(name), &LoadOptions::default(), device);
    loaded.unwrap_or_else(|error| panic!("{name}: {error}")).0
}

fn expected(name: &str) -> Tensors {
    model_tensors(&format!("decoders/{name}"))
}

/// A batch of a fixture.
struct Texts {
    ids: Tensor<2, Int>,
    mask: Tensor<2, Bool>,
    positions: Tensor<2, Int>,
    real: Vec<bool>,
}

impl Texts {
    fn of(tensors: &Tensors, batch: &str, device: &Device) -> Self {
        let (mask, real) = mask_of(tensors, &format!("{batch}.mask"), device);
        Self {
            ids: tensors.ids(&format!("{batch}.ids"), device),
            mask,
            positions: tensors.ids(&format!("{batch}.positions"), device),
            real,
        }
    }

    fn hidden(&self, model: &DecoderLm) -> Tensor<3> {
        let positions = Some(self.positions.clone());
        let mask = Some(self.mask.clone());
        (model.model).forward(self.ids.clone(), mask, positions, None)
    }

    /// Rows of the tokens that another of their text follows, and those that follow.
    fn targets(&self) -> (Vec<i64>, Vec<i64>) {
        let [_, seq] = self.ids.dims();
        let ids: Vec<i64> = self.ids.clone().into_data().iter::<i64>().collect();
        let follows = |at: &usize| at % seq + 1 < seq && self.real[*at] && self.real[at + 1];
        let rows: Vec<usize> = (0..ids.len()).filter(follows).collect();
        let targets = rows.iter().map(|row| ids[row + 1]).collect();
        (rows.iter().map(|&row| row as i64).collect(), targets)
    }

    /// Mean cross entropy, through the loss of the model.
    fn loss(&self, model: &DecoderLm, hidden: Tensor<3>) -> Tensor<1> {
        let [batch, seq, d] = hidden.dims();
        let device = hidden.device();
        let (rows, targets) = self.targets();
        let count = rows.len();
        let ints = |values: Vec<i64>| {
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let hidden = hidden.reshape([batch * seq, d]).select(0, ints(rows));
        let loss = model.loss(hidden, ints(targets), &CrossEntropy::default());
        loss.loss / count as f64
    }
}

#[test]
fn hidden_states_logits_and_losses_are_those_of_transformers() {
    let device = Device::flex();
    for name in MODELS {
        let model = load(name, &device);
        let expected = expected(name);
        for batch in ["right", "left", "short"] {
            let what = format!("{name}, {batch}");
            let texts = Texts::of(&expected, batch, &device);
            let hidden = texts.hidden(&model);
            let values = |part: &str| expected.values(&format!("{batch}.{part}"));
            assert_real_logits(&hidden, &texts.real, &values("hidden"), TOLERANCE, &what);
            let logits = model.logits(hidden.clone());
            assert_real_logits(&logits, &texts.real, &values("logits"), TOLERANCE, &what);
            let loss = host(texts.loss(&model, hidden));
            assert_near(&loss, &values("loss"), TOLERANCE, &what);
        }
    }
}

/// A batch is read again where its longest text grows beyond the short frequencies, and where the last of the longer texts ends.
#[test]
fn texts_in_a_batch_have_the_frequencies_of_the_longest() {
    let device = Device::flex();
    let model = load("phi3", &device);
    let prompts: [Vec<u32>; 2] = [vec![5, 17, 20], vec![3, 42, 9, 33, 8]];
    let config = GenerationConfig::new(6).with_pad_id(60);
    let mut found = Generator::new(&model, config, &device);
    let found = found.generate(&prompts).unwrap();
    // Without a cache.
    let mut rows = prompts.to_vec();
    for _ in 0..6 {
        let longest = rows.iter().map(Vec::len).max().unwrap();
        let padded = rows.iter().flat_map(|row| {
            let padding = std::iter::repeat_n(60, longest - row.len());
            padding.chain(row.iter().map(|&token| i64::from(token)))
        });
        let ids = TensorData::new(padded.collect::<Vec<_>>(), [2, longest]);
        let ids = Tensor::<2, Int>::from_data(ids, &device);
        let padding = rows.iter().map(|row| longest - row.len());
        let [real, positions]: [Vec<i64>; 2] = padding
            .flat_map(|padding| (0..longest).map(move |at| (at, padding)))
            .map(|(at, padding)| [i64::from(at >= padding), at.saturating_sub(padding) as i64])
            .fold([vec![], vec![]], |[mut real, mut positions], [r, p]| {
                real.push(r);
                positions.push(p);
                [real, positions]
            });
        let ints =
            |values| Tensor::<2, Int>::from_data(TensorData::new(values, [2, longest]), &device);
        let (mask, positions) = (Some(ints(real).equal_elem(1)), Some(ints(positions)));
        let hidden = model.model.forward(ids, mask, positions, None);
        let last = model.logits(hidden.narrow(1, longest - 1, 1));
        let best = last.argmax(2).into_data();
        for (row, token) in rows.iter_mut().zip(best.iter::<i64>()) {
            row.push(token as u32);
        }
    }
    for ((found, row), prompt) in found.iter().zip(&rows).zip(&prompts) {
        assert_eq!(found.tokens, row[prompt.len()..]);
    }
}

#[test]
fn a_checkpoint_in_shards_is_read() {
    let (_, report) =
        DecoderLm::load(dir("smollm3"), &LoadOptions::default(), &Device::flex()).unwrap();
    assert!(report.files.len() > 1, "{:?}", report.files);
}

#[test]
fn steps_with_a_cache_and_packed_texts_give_the_states_of_the_whole() {
    let device = Device::flex();
    let ids = [[5, 17, 20, 3, 42, 9, 33, 8, 1, 11]];
    for name in MODELS {
        let model = load(name, &device);
        let ids = Tensor::<2, Int>::from_ints(ids, &device);
        let whole = host(model.model.forward(ids.clone(), None, None, None));
        if name != "phi3" {
            // The frequencies of LongRoPE depend on the length: earlier keys keep those of a shorter text.
            let mut cache = KvCache::new(model.config().num_hidden_layers(), 2);
            let pieces = [(0, 6), (6, 1), (7, 3)].map(|(start, length)| {
                let piece = ids.clone().narrow(1, start, length);
                (model.model).forward(piece, None, None, Some(&mut cache))
            });
            let pieces = host(Tensor::cat(pieces.to_vec(), 1));
            assert_near(&pieces, &whole, 1e-5, &format!("{name}, with a cache"));
        }
        // Two texts in one row, of which the second is the whole.
        let before = Tensor::<2, Int>::from_ints([[7, 2, 9]], &device);
        let row = Tensor::cat(vec![before, ids], 1);
        let segments = Segments::new(vec![3, 10]);
        let packed = model.hidden_states(&CausalInput::new(row).with_segments(Some(segments)));
        let [_, tokens, d] = packed.dims();
        let packed = host(packed);
        assert_near(
            &packed[(tokens - 10) * d..],
            &whole,
            1e-5,
            &format!("{name}, packed"),
        );
    }
}

#[derive(Deserialize)]
struct Written {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    beams: usize,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
}

#[test]
fn greedy_and_beam_searched_texts_are_those_of_transformers() {
    let device = Device::flex();
    for name in MODELS {
        let model = load(name, &device);
        let text = std::fs::read(dir(name).join("texts.json")).unwrap();
        let written: Written = serde_json::from_slice(&text).unwrap();
        assert_eq!(written.cases.len(), 6);
        for beams in [1, 3] {
            let cases: Vec<&Case> = written
                .cases
                .iter()
                .filter(|case| case.beams == beams)
                .collect();
            let mut config = GenerationConfig::new(10)
                .with_stop_tokens([60])
                .with_pad_id(60);
            if beams > 1 {
                config = config.with_strategy(Strategy::Beam(BeamSearch {
                    beams,
                    length_penalty: 1.0,
                    early_stopping: EarlyStopping::WhenUnlikely,
                }));
            }
            // In one batch, with padding on the left. A text of Phi 3 has the frequencies of the longest one beside it.
            let prompts: Vec<Vec<u32>> = cases.iter().map(|case| case.prompt.clone()).collect();
            let batches: Vec<&[Vec<u32>]> = match name {
                "phi3" => prompts.chunks(1).collect(),
                _ => vec![&prompts],
            };
            let found = batches.into_iter().flat_map(|prompts| {
                let mut generator = Generator::new(&model, config.clone(), &device);
                generator.generate(prompts).unwrap()
            });
            let found: Vec<_> = found.collect();
            for (found, case) in found.iter().zip(cases) {
                assert_eq!(
                    found.tokens, case.tokens,
                    "{name}, {beams} beams, {:?}",
                    case.prompt
                );
            }
        }
    }
}

/// The gradient of every factor, with its shape, by PEFT's name.
struct FactorGradients<'a> {
    path: Vec<String>,
    model: &'a DecoderLm,
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
        let Some((module, factor)) = path.split_once(".weight.lora.") else {
            assert!(gradient.is_none(), "{path} is frozen");
            return;
        };
        let gradient = gradient.expect(&path);
        let shape = gradient.dims().to_vec();
        let module = self.model.lora_architecture().module_name(module);
        let factor = factor.to_uppercase();
        let name = format!("base_model.model.{module}.lora_{factor}.weight");
        self.found.insert(name, (host(gradient), shape));
    }
}

#[test]
fn adapters_of_peft_give_its_logits_and_gradients_and_come_back() {
    let device = Device::flex().autodiff();
    for name in MODELS {
        let expected = expected(name);
        let kinds: &[&str] = if name == "llama" {
            &["all", "qv"]
        } else {
            &["all"]
        };
        for kind in kinds {
            let what = format!("{name}, {kind}");
            let path = dir(name).join(kind);
            let adapted = load(name, &device).load_adapter(&path).unwrap();
            let (model, report) = (adapted.module(), adapted.report());
            let texts = Texts::of(&expected, "right", &device);
            let hidden = texts.hidden(model);
            let values = |part: &str| expected.values(&format!("{kind}.{part}"));
            let logits = model.logits(hidden.clone());
            assert_real_logits(&logits, &texts.real, &values("logits"), TOLERANCE, &what);
            let loss = texts.loss(model, hidden);
            assert_near(&host(loss.clone()), &values("loss"), TOLERANCE, &what);
            let mut found = FactorGradients {
                path: Vec::new(),
                model,
                grads: &loss.backward(),
                found: BTreeMap::new(),
            };
            model.visit(&mut found);
            assert_eq!(found.found.len(), 2 * report.modules.len(), "{what}");
            for (tensor, (found, shape)) in found.found {
                let (values, file_shape) = expected.floats(&format!("{kind}.grad.{tensor}"));
                assert_eq!(file_shape, [shape[1], shape[0]], "{tensor}");
                let found = transpose(&found, &shape);
                assert_near(&found, &values, TOLERANCE, &format!("{what}, {tensor}"));
            }
            let out = tempfile::tempdir().unwrap();
            let saved = out.path().join("saved");
            (adapted.save_adapter(&saved, Some(name), Overwrite::Refuse)).unwrap();
            let read =
                |path: &std::path::Path| Tensors::open(path.join("adapter_model.safetensors"));
            let (ours, theirs) = (read(&saved), read(&path));
            assert_eq!(ours.names(), theirs.names(), "{what}");
            for tensor in theirs.names() {
                assert_eq!(
                    ours.floats(&tensor),
                    theirs.floats(&tensor),
                    "{what}, {tensor}"
                );
            }
            // Merged weights have the adapter's logits, and an export reads back as the same model.
            let merged = merge(model.clone().valid()).into_module();
            let texts = Texts::of(&expected, "right", &Device::flex());
            let exported = out.path().join("exported");
            (merged.export(&exported, &ExportOptions::default(), Overwrite::Refuse)).unwrap();
            let options = LoadOptions::default();
            let (again, _) = DecoderLm::load(&exported, &options, &Device::flex()).unwrap();
            let logits = again.logits(texts.hidden(&again));
            assert_real_logits(&logits, &texts.real, &values("logits"), TOLERANCE, &what);
        }
    }
}

/// Queries are twice as wide as keys and values. The adapter of PEFT has rank 4: two for the queries and two for the values, with zeros
/// elsewhere.
#[test]
fn slices_of_grouped_heads_are_the_standard_adapter_of_their_ranks_together() {
    let device = Device::flex().autodiff();
    let (expected, path) = (expected("phi3"), dir("phi3").join("slices"));
    let out = tempfile::tempdir().unwrap();
    let (noted, saved) = (out.path().join("noted"), out.path().join("saved"));
    let mut adapter = StoredAdapter::read(&path).unwrap();
    let slices = Slices {
        parts: 3,
        adapted: vec![0, 2],
        layout: FusedLayout::Grouped { sharing: 2 },
    };
    let modules: Vec<String> = adapter.modules.keys().cloned().collect();
    adapter.note_slices(
        modules
            .iter()
            .map(|module| (module.clone(), slices.clone())),
    );
    adapter.save(&noted, Overwrite::Refuse).unwrap();

    let adapted = load("phi3", &device).load_adapter(&noted).unwrap();
    let (model, report) = (adapted.module(), adapted.report());
    assert_eq!(report.modules[0].slices.as_ref(), Some(&slices));
    let texts = Texts::of(&expected, "right", &device);
    let hidden = texts.hidden(model);
    let logits = model.logits(hidden.clone());
    let values = expected.values("slices.logits");
    assert_real_logits(&logits, &texts.real, &values, TOLERANCE, "logits");
    let mut found = FactorGradients {
        path: Vec::new(),
        model,
        grads: &texts.loss(model, hidden).backward(),
        found: BTreeMap::new(),
    };
    model.visit(&mut found);
    assert_eq!(found.found.len(), 4);
    for (tensor, (found, shape)) in found.found {
        let (values, file_shape) = expected.floats(&format!("slices.grad.{tensor}"));
        let values = transpose(&values, &file_shape);
        let values = if tensor.contains("lora_A") {
            assert_eq!(file_shape, [shape[1], shape[0]], "{tensor}");
            values
        } else {
            // Blocks [2, 24] of the queries and [2, 12] of the values in [4, 48].
            assert_eq!((&file_shape[..], &shape[..]), (&[48, 4][..], &[2, 36][..]));
            let block = |row: usize| match row {
                0 | 1 => &values[row * 48..][..24],
                _ => &values[row * 48 + 36..][..12],
            };
            [0, 1, 2, 3].map(block).concat()
        };
        assert_near(&found, &values, TOLERANCE, &tensor);
    }
    (adapted.save_adapter(&saved, None, Overwrite::Refuse)).unwrap();
    let read = |path: &std::path::Path| Tensors::open(path.join("adapter_model.safetensors"));
    for tensor in read(&path).names() {
        let [ours, theirs] = [&saved, &path].map(|path| read(path).floats(&tensor));
        assert_eq!(ours, theirs, "{tensor}");
    }
    let texts = Texts::of(&expected, "right", &Device::flex());
    let merged = merge(model.clone().valid()).into_module();
    let logits = merged.logits(texts.hidden(&merged));
    let values = expected.values("slices.logits");
    assert_real_logits(&logits, &texts.real, &values, TOLERANCE, "merged");
}

/// Factors that start at a part of the weight have a block for each slice, and its start.
#[test]
fn slices_of_grouped_heads_start_and_come_back_with_every_option() {
    let device = Device::flex();
    let ids = || Tensor::<2, Int>::from_ints([[5, 17, 20, 3, 42, 9, 33]], &Device::flex());
    let plain = host(load("phi3", &device).forward(ids(), None));
    for (init, dora) in [
        (LoraInit::Pissa, false),
        (LoraInit::Orthogonal, true),
        (LoraInit::Random, true),
    ] {
        let config = LoraConfig::new(2)
            .with_targets(TargetModules::names(["qkv_proj[q,v]", "gate_up_proj[up]"]))
            .with_init(init)
            .with_dora(dora);
        let adapted = load("phi3", &device).attach(&config).unwrap();
        // Queries and values, 24 and 12 of 24 features; up, 28.
        let factors = 2 * ((24 * 4 + 2 * 36) + (24 * 2 + 2 * 28));
        let magnitudes = if dora { 2 * (48 + 56) } else { 0 };
        assert_eq!(adapted.report().parameters(), factors + magnitudes);
        if init != LoraInit::Random {
            let found = host(adapted.module().forward(ids(), None));
            assert_near(&found, &plain, 1e-4, "at the start");
        }
        let (model, report) = adapted.into_parts();
        let adapted = Adapted::from_parts(fill_adapters(model), report);
        let found = host(adapted.module().forward(ids(), None));
        assert_ne!(found, plain);
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("adapter");
        adapted
            .save_adapter(&path, None, Overwrite::Refuse)
            .unwrap();
        let again = load("phi3", &device).load_adapter(&path).unwrap();
        let parameters = adapted.report().parameters();
        assert_eq!(again.report().parameters(), parameters);
        let again = host(again.module().forward(ids(), None));
        assert_near(&again, &found, 1e-5, "read again");
    }
}

/// Activation checkpointing runs the blocks one by one.
#[test]
fn blocks_one_by_one_are_the_model() {
    let device = Device::flex();
    let ids = || Tensor::<2, Int>::from_ints([[5, 17, 20, 3, 42, 9, 33]], &Device::flex());
    for name in MODELS {
        let model = load(name, &device);
        let found = host(model.hidden_states(&CausalInput::new(ids())));
        let whole = host(model.model.forward(ids(), None, None, None));
        assert_eq!(found, whole, "{name}");
    }
}

#[test]
fn configurations_come_back_as_they_were() {
    for name in MODELS {
        let config = DecoderConfig::from_dir(dir(name)).unwrap();
        let text = std::fs::read(dir(name).join("config.json")).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(serde_json::Value::Object(config.to_json()), file, "{name}");
        let any = ModelConfig::from_dir(dir(name)).unwrap();
        assert_eq!(any.model_type(), file["model_type"], "{name}");
        let shapes = DecoderLm::weight_shapes(&config, &LoadOptions::default(), &Device::flex());
        let shapes = shapes.unwrap();
        let count: usize = shapes
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        assert_eq!(config.parameters(), Some(count as u64), "{name}");
    }
}
