//! Several adapters on one model: trees of PEFT, mixed batches as PEFT computes them, and a generation with an adapter for
//! each prompt.

use crate::common::{self, fixture, model_tensors};
use crate::encoders;
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::files::Overwrite;
use lora_core::named::NamedAdapters;
use lora_core::{Adapted, LoraConfig, LoraError, LoraInit, TargetModules};
use lora_models::classifier::{Classifier, ClassifierOptions};
use lora_models::generate::{
    BeamSearch, Generated, GenerationConfig, Generator, Sampling, Strategy,
};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{LoraModel, LoraTargets, ModelAdapters, ModelError, Pretrained, SaveAdapter};
use std::collections::BTreeMap;
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host};

/// The reference is in f64, and logits of GPT-2 are of the order of 10.
const TOLERANCE: f32 = 3e-5;

fn expected(base: &str) -> Tensors {
    Tensors::open(fixture("named").join(format!("{base}.safetensors")))
}

/// The adapters of each example of the mixed batch, by base.
fn cases() -> BTreeMap<String, Vec<Option<String>>> {
    let file = std::fs::read(fixture("named").join("cases.json")).unwrap();
    serde_json::from_slice(&file).unwrap()
}

fn tree<M: LoraModel>(base: M, name: &str) -> (NamedAdapters<M>, Vec<String>) {
    let mut adapters = base.named_adapters().unwrap();
    let names = adapters.load_tree(&fixture("named").join(name)).unwrap();
    (adapters, names)
}

/// A batch twice, and which rows of the logits are no padding.
struct Twice<M> {
    logits: Box<dyn Fn(&M) -> Tensor<2>>,
    real: Vec<bool>,
    /// Only every so many columns are in the fixture.
    stride: usize,
}

fn again(tensor: Tensor<2, Int>) -> Tensor<2, Int> {
    Tensor::cat(vec![tensor.clone(), tensor], 0)
}

fn mask_again(tensor: Tensor<2, Bool>) -> Tensor<2, Bool> {
    Tensor::cat(vec![tensor.clone(), tensor], 0)
}

fn gpt2_batch(base: &str, device: &Device) -> Twice<Gpt2LmHead> {
    let batch = common::Batch::of(&model_tensors(base), "right", device);
    let (ids, mask) = (again(batch.ids), mask_again(batch.mask));
    Twice {
        logits: Box::new(move |model| {
            let logits = model.forward(ids.clone(), Some(mask.clone()));
            let [examples, seq, vocabulary] = logits.dims();
            logits.reshape([examples * seq, vocabulary])
        }),
        real: [batch.real.clone(), batch.real].concat(),
        stride: 10,
    }
}

fn encoder_batch(base: &str, device: &Device) -> Twice<Classifier> {
    let batch = encoders::Batch::of_model(base, device);
    let real = if base.ends_with("_tok") {
        [batch.real.clone(), batch.real].concat()
    } else {
        vec![true; 2 * batch.ids.dims()[0]]
    };
    let (ids, mask, types) = (
        again(batch.ids),
        mask_again(batch.mask),
        again(batch.type_ids),
    );
    Twice {
        logits: Box::new(move |model| model.forward(ids.clone(), &mask, Some(types.clone()))),
        real,
        stride: 1,
    }
}

impl<M> Twice<M> {
    fn assert(&self, found: Tensor<2>, expected: &[f32], what: &str) {
        let [rows, width] = found.dims();
        let found = host(found);
        let kept = width.div_ceil(self.stride);
        assert_eq!(rows * kept, expected.len(), "{what}");
        let expected = expected.chunks_exact(kept);
        for (at, (row, expected)) in found.chunks_exact(width).zip(expected).enumerate() {
            if self.real[at] {
                let row: Vec<f32> = row.iter().step_by(self.stride).copied().collect();
                assert_near(&row, expected, TOLERANCE, &format!("{what}, row {at}"));
            }
        }
    }

    /// Each adapter, and the mixed batch.
    fn check(&self, adapters: &NamedAdapters<M>, base: &str)
    where
        M: LoraModel,
    {
        let expected = expected(base);
        let names: Vec<&str> = adapters.names().collect();
        for name in &names {
            adapters.activate(name).unwrap();
            let what = format!("{base} {name}");
            self.assert(
                (self.logits)(adapters.model()),
                &expected.floats(name).0,
                &what,
            );
        }
        let cases = cases();
        let assigned: Vec<Option<&str>> = cases[base].iter().map(Option::as_deref).collect();
        let mixed = adapters
            .per_example(&assigned, |model| (self.logits)(model))
            .unwrap();
        self.assert(mixed, &expected.floats("mixed").0, &format!("{base} mixed"));
    }
}

#[test]
fn trees_of_peft_compute_what_peft_does_also_mixed() {
    let device = Device::flex();
    let mut checked = 0;
    for base in cases().keys() {
        let folder = tempfile::tempdir().unwrap();
        let ours = folder.path().join("tree");
        if base.starts_with("gpt2") {
            let batch = gpt2_batch(base, &device);
            let (adapters, names) = tree(common::load(base, &device).0, base);
            batch.check(&adapters, base);
            // Written and read again.
            adapters.save_tree(&ours, Overwrite::Refuse).unwrap();
            let mut again = common::load(base, &device).0.named_adapters().unwrap();
            assert_eq!(again.load_tree(&ours).unwrap(), names);
            batch.check(&again, base);
        } else {
            let batch = encoder_batch(base, &device);
            let (adapters, names) = tree(encoders::model(base, &device), base);
            batch.check(&adapters, base);
            adapters.save_tree(&ours, Overwrite::Refuse).unwrap();
            let mut again = encoders::model(base, &device).named_adapters().unwrap();
            assert_eq!(again.load_tree(&ours).unwrap(), names);
            batch.check(&again, base);
        }
        checked += 1;
    }
    assert_eq!(checked, 7);
}

#[test]
fn the_one_at_the_top_is_named_default() {
    let (_, names) = tree(common::load("gpt2_tied", &Device::flex()).0, "gpt2_tied");
    assert_eq!(names, ["default", "wide"]);
    let (_, names) = tree(encoders::model("bert_seq", &Device::flex()), "bert_seq");
    assert_eq!(names, ["first", "second"]);
}

/// Three adapters whose continuations differ.
fn language() -> (NamedAdapters<Gpt2LmHead>, Vec<Vec<u32>>) {
    let device = Device::flex();
    let (mut adapters, _) = tree(common::load("gpt2_tied", &device).0, "gpt2_tied");
    let config = LoraConfig::new(2)
        .with_alpha(9.0)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["c_attn[q,v]", "mlp.c_fc"]));
    let (model, report) = adapters
        .base()
        .clone()
        .attach(&config)
        .unwrap()
        .into_parts();
    let model = common::fill_adapters(model);
    let adapted = Adapted::from_parts(model, report);
    adapters.add_trained("ours", &adapted, None).unwrap();
    let prompt =
        |seed: u32, length: u32| (0..length).map(|i| (seed * 37 + i * 101) % 299).collect();
    let prompts = (0..7).map(|at| prompt(at + 1, 2 + (at * 3) % 5)).collect();
    (adapters, prompts)
}

const EACH: [Option<&str>; 7] = [
    Some("wide"),
    None,
    Some("ours"),
    Some("default"),
    Some("wide"),
    Some("default"),
    None,
];

/// Prompts end at different steps with these.
fn stops(adapters: &NamedAdapters<Gpt2LmHead>, prompts: &[Vec<u32>]) -> Vec<u32> {
    let device = Device::flex();
    let config = GenerationConfig::new(12).with_pad_id(299);
    let texts = {
        let model = adapters.for_prompts(&EACH).unwrap();
        Generator::new(&model, config, &device)
            .generate(prompts)
            .unwrap()
    };
    // What some prompt says third, and some other seventh.
    vec![texts[0].tokens[2], texts[2].tokens[6], texts[5].tokens[4]]
}

#[test]
fn each_prompt_goes_on_as_it_does_alone_with_its_adapter() {
    let device = Device::flex();
    let (adapters, prompts) = language();
    let stops = stops(&adapters, &prompts);
    let strategies = [
        Strategy::Greedy,
        Strategy::Sample(Sampling {
            temperature: 1.3,
            top_k: Some(20),
            top_p: 0.95,
            seed: 5,
            ..Sampling::default()
        }),
        Strategy::Beam(BeamSearch {
            beams: 3,
            ..BeamSearch::default()
        }),
    ];
    for strategy in strategies {
        let config = GenerationConfig::new(12)
            .with_pad_id(299)
            .with_stop_tokens(stops.clone())
            .with_strategy(strategy);
        let mut tokens = vec![Vec::new(); prompts.len()];
        let model = adapters.for_prompts(&EACH).unwrap();
        let mixed = Generator::new(&model, config.clone(), &device)
            .on_token(|prompt, token| tokens[prompt].push(token))
            .generate(&prompts)
            .unwrap();
        let lengths: Vec<usize> = mixed.iter().map(|text| text.tokens.len()).collect();
        assert!(lengths.iter().min() < lengths.iter().max(), "{lengths:?}");
        let mut differs = 0;
        for (at, name) in EACH.iter().enumerate() {
            assert_eq!(tokens[at], mixed[at].tokens);
            // The draws of a prompt depend on its place among the prompts, so all of them go along.
            let under = |name: &Option<&str>| -> Generated {
                match name {
                    Some(name) => adapters.activate(name).unwrap(),
                    None => adapters.disable(),
                }
                Generator::new(adapters.model(), config.clone(), &device)
                    .generate(&prompts)
                    .unwrap()
                    .swap_remove(at)
            };
            let alone = under(name);
            assert_eq!(mixed[at].tokens, alone.tokens, "{strategy:?}, prompt {at}");
            assert_eq!(mixed[at].finished_by_stop, alone.finished_by_stop);
            if let (Some(found), Some(expected)) = (mixed[at].score, alone.score) {
                assert!((found - expected).abs() < 1e-4, "{found} {expected}");
            }
            let other = EACH
                .iter()
                .any(|other| other != name && under(other).tokens != alone.tokens);
            differs += usize::from(other);
        }
        assert_eq!(
            differs,
            prompts.len(),
            "the adapters say the same: nothing is seen of a mix-up"
        );
    }
}

#[test]
fn as_many_adapters_as_prompts_are_needed() {
    let device = Device::flex();
    let (adapters, prompts) = language();
    let config = GenerationConfig::new(2);
    let model = adapters.for_prompts(&EACH[..3]).unwrap();
    let found = Generator::new(&model, config, &device).generate(&prompts);
    assert!(matches!(found, Err(ModelError::Generation { .. })));
}

#[test]
fn an_adapter_that_unties_the_head_leaves_the_others_as_they_were() {
    let device = Device::flex();
    let base = common::load("gpt2_tied", &device).0;
    let batch = gpt2_batch("gpt2_tied", &device);
    let (mut adapters, names) = tree(base.clone(), "gpt2_tied");
    let config = LoraConfig::new(2)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["lm_head", "wte"]));
    let (model, report) = base.attach(&config).unwrap().into_parts();
    let model = common::fill_adapters(model);
    let alone = host((batch.logits)(&model));
    adapters
        .add_trained("ends", &Adapted::from_parts(model, report), None)
        .unwrap();
    assert!(adapters.base().lm_head.is_some());
    adapters.activate("ends").unwrap();
    assert_near(
        &host((batch.logits)(adapters.model())),
        &alone,
        TOLERANCE,
        "ends",
    );
    let expected = expected("gpt2_tied");
    for name in &names {
        adapters.activate(name).unwrap();
        batch.assert(
            (batch.logits)(adapters.model()),
            &expected.floats(name).0,
            name,
        );
    }
    // From a file likewise.
    let folder = tempfile::tempdir().unwrap();
    adapters
        .save_tree(&folder.path().join("tree"), Overwrite::Refuse)
        .unwrap();
    let mut again = common::load("gpt2_tied", &device)
        .0
        .named_adapters()
        .unwrap();
    again.load_tree(&folder.path().join("tree")).unwrap();
    again.activate("ends").unwrap();
    assert_near(
        &host((batch.logits)(again.model())),
        &alone,
        TOLERANCE,
        "ends again",
    );
}

#[test]
fn a_head_that_a_checkpoint_lacks_must_come_with_each_adapter() {
    let device = Device::flex();
    let options = ClassifierOptions {
        labels: Some(encoders::model("bert_seq", &device).config().labels.clone()),
        ..ClassifierOptions::default()
    };
    let (bare, _) = Classifier::load(encoders::encoder("bert_mlm"), &options, &device).unwrap();
    assert!(!bare.random_modules().is_empty());
    let config = LoraConfig::new(2).with_targets(TargetModules::names(["query"]));
    let headless = lora_core::attach(
        bare.clone(),
        config.for_architecture(&bare.lora_architecture()),
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("headless");
    headless
        .save_adapter(&dir, None, Overwrite::Refuse)
        .unwrap();
    let mut adapters = bare.named_adapters().unwrap();
    assert!(matches!(
        adapters.load("headless", &dir),
        Err(ModelError::StillRandom { .. })
    ));
    assert_eq!(adapters.names().count(), 0);
    assert!(matches!(
        adapters.activate("headless"),
        Err(LoraError::UnknownAdapter { .. })
    ));
}
