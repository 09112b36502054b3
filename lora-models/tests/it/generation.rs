//! Generation gives the tokens that transformers gives.

use crate::common::{fixture, load};
use burn::module::Module;
use burn::tensor::Device;
use lora_models::ModelError;
use lora_models::generate::{
    BeamSearch, EarlyStopping, Generated, GenerationConfig, GenerationFile, Generator, Sampling,
    Strategy,
};
use lora_models::gpt2::Gpt2LmHead;
use serde::Deserialize;
use serde_json::{Value, from_value, json};
use std::collections::BTreeMap;

/// A case of `generation.json`.
#[derive(Deserialize)]
struct Case {
    name: String,
    parameters: Parameters,
    prompts: Vec<Vec<u32>>,
    new_tokens: Vec<Vec<u32>>,
    sequences_scores: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct Parameters {
    num_beams: usize,
    no_repeat_ngram_size: usize,
    length_penalty: f64,
    early_stopping: bool,
    max_new_tokens: usize,
    eos_token_id: u32,
    pad_token_id: u32,
}

impl Case {
    fn config(&self) -> GenerationConfig {
        let parameters = &self.parameters;
        let config = GenerationConfig::new(parameters.max_new_tokens)
            .with_no_repeat_ngram_size(parameters.no_repeat_ngram_size)
            .with_stop_tokens([parameters.eos_token_id])
            .with_pad_id(parameters.pad_token_id);
        if parameters.num_beams == 1 {
            return config;
        }
        config.with_strategy(Strategy::Beam(BeamSearch {
            beams: parameters.num_beams,
            length_penalty: parameters.length_penalty,
            early_stopping: if parameters.early_stopping {
                EarlyStopping::WhenFull
            } else {
                EarlyStopping::WhenUnlikely
            },
        }))
    }

    fn assert(&self, found: &[Generated], rows: &[usize]) {
        assert_eq!(found.len(), rows.len(), "{}", self.name);
        for (found, &row) in found.iter().zip(rows) {
            let what = format!("{}, prompt {row}", self.name);
            assert_eq!(found.tokens, self.new_tokens[row], "{what}");
            let stopped = found.tokens.last() == Some(&self.parameters.eos_token_id);
            assert_eq!(found.finished_by_stop, stopped, "{what}");
            match &self.sequences_scores {
                None => assert_eq!(found.score, None, "{what}"),
                Some(scores) => {
                    // The scores of the fixture are of a run in f64, rounded to f32.
                    let difference = (found.score.unwrap() - scores[row]).abs();
                    assert!(difference < 1e-4, "{what}: off by {difference}");
                }
            }
        }
    }
}

fn cases() -> BTreeMap<String, Vec<Case>> {
    let text = std::fs::read(fixture("generation.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn tokens_and_scores_are_those_of_transformers_alone_and_in_a_batch() {
    let device = Device::flex();
    for (name, cases) in cases() {
        let (model, _) = load(&name, &device);
        assert_eq!(cases.len(), 5);
        for case in cases {
            let config = case.config();
            let found = Generator::new(&model, config.clone(), &device)
                .generate(&case.prompts)
                .unwrap();
            case.assert(&found, &[0, 1, 2]);
            for row in 0..case.prompts.len() {
                let alone = [case.prompts[row].clone()];
                let found = Generator::new(&model, config.clone(), &device)
                    .generate(&alone)
                    .unwrap();
                case.assert(&found, &[row]);
            }
            // Another order is another padding of each row's neighbours, and other rows that end.
            let turned = [2, 0, 1];
            let prompts = turned.map(|row| case.prompts[row].clone());
            let found = Generator::new(&model, config.clone(), &device)
                .generate(&prompts)
                .unwrap();
            case.assert(&found, &turned);
        }
    }
}

#[test]
fn one_beam_is_the_greedy_choice() {
    let device = Device::flex();
    let (model, _) = load("gpt2_untied", &device);
    let case = &cases()["gpt2_untied"][0];
    let greedy = case.config();
    let one = greedy.clone().with_strategy(Strategy::Beam(BeamSearch {
        beams: 1,
        length_penalty: 0.0,
        early_stopping: EarlyStopping::WhenFull,
    }));
    let greedy = Generator::new(&model, greedy.clone(), &device)
        .generate(&case.prompts)
        .unwrap();
    let one = Generator::new(&model, one.clone(), &device)
        .generate(&case.prompts)
        .unwrap();
    for (greedy, one) in greedy.iter().zip(&one) {
        assert_eq!(greedy.tokens, one.tokens);
    }
}

fn sampled(model: &Gpt2LmHead, prompts: &[Vec<u32>], sampling: Sampling) -> Vec<Vec<u32>> {
    let config = GenerationConfig::new(16)
        .with_strategy(Strategy::Sample(sampling))
        .with_stop_tokens([299]);
    let found = Generator::new(model, config.clone(), &Device::flex())
        .generate(prompts)
        .unwrap();
    found.into_iter().map(|text| text.tokens).collect()
}

#[test]
fn samples_depend_on_seed_and_place_and_not_on_the_batch() {
    let (model, _) = load("gpt2_tied", &Device::flex());
    let prompts = [vec![10, 20, 30], vec![40], vec![50, 60, 70, 80]];
    let sampling = Sampling {
        temperature: 1.3,
        top_k: Some(80),
        top_p: 0.95,
        seed: 7,
        ..Sampling::default()
    };
    let all = sampled(&model, &prompts, sampling);
    assert_eq!(all, sampled(&model, &prompts, sampling));
    assert_eq!(all[..1], sampled(&model, &prompts[..1], sampling)[..]);
    assert_eq!(all[..2], sampled(&model, &prompts[..2], sampling)[..]);
    let other = Sampling {
        seed: 8,
        ..sampling
    };
    assert_ne!(all, sampled(&model, &prompts, other));
    // The same prompt at another place is continued otherwise.
    let twice = sampled(&model, &[prompts[0].clone(), prompts[0].clone()], sampling);
    assert_ne!(twice[0], twice[1]);
}

#[test]
fn the_narrowest_sample_is_the_greedy_choice() {
    let device = Device::flex();
    let (model, _) = load("gpt2_tied", &device);
    let prompts = [vec![10, 20, 30], vec![40]];
    let config = GenerationConfig::new(16).with_stop_tokens([299]);
    let greedy = Generator::new(&model, config.clone(), &device)
        .generate(&prompts)
        .unwrap();
    let greedy: Vec<_> = greedy.into_iter().map(|text| text.tokens).collect();
    let narrow = |top_k, top_p| Sampling {
        top_k,
        top_p,
        ..Sampling::default()
    };
    assert_eq!(sampled(&model, &prompts, narrow(Some(1), 1.0)), greedy);
    assert_eq!(sampled(&model, &prompts, narrow(None, 1e-6)), greedy);
}

#[test]
fn tokens_are_reported_as_they_come() {
    let device = Device::flex();
    let (model, _) = load("gpt2_tied", &device);
    let cases = &cases()["gpt2_tied"];
    for case in [&cases[0], &cases[2]] {
        let mut told = vec![Vec::new(); case.prompts.len()];
        let config = case.config();
        let found = Generator::new(&model, config, &device)
            .on_token(|prompt, token| told[prompt].push(token))
            .generate(&case.prompts);
        case.assert(&found.unwrap(), &[0, 1, 2]);
        assert_eq!(told, case.new_tokens, "{}", case.name);
    }
}

#[test]
fn requests_that_cannot_be_met_are_refused() {
    let device = Device::flex();
    let (model, _) = load("gpt2_untied", &device);
    let config = GenerationConfig::new(8);
    let message =
        |prompts: &[Vec<u32>], config: &GenerationConfig, device: &Device| match Generator::new(
            &model,
            config.clone(),
            device,
        )
        .generate(prompts)
        {
            Err(ModelError::Generation { message }) => message,
            other => panic!("{other:?}"),
        };
    assert!(message(&[vec![1], vec![]], &config, &device).contains("prompt 1 is empty"));
    assert!(message(&[vec![300]], &config, &device).contains("token 300"));
    assert!(message(&[vec![1; 41]], &config, &device).contains("48 positions"));
    assert!(message(&[vec![1]], &config.clone().with_pad_id(300), &device).contains("pad_id 300"));
    assert!(message(&[vec![1]], &config, &device.clone().autodiff()).contains("valid()"));
    assert!(
        Generator::new(&model, config.clone(), &device)
            .generate(&[])
            .unwrap()
            .is_empty()
    );
    let longest = Generator::new(&model, config.clone(), &device)
        .generate(&[vec![1; 40]])
        .unwrap();
    assert_eq!(longest[0].tokens.len(), 8);
    assert!(!longest[0].finished_by_stop);
}

#[test]
fn a_model_in_training_generates_from_its_valid_copy() {
    let device = Device::flex();
    let (model, _) = load("gpt2_tied", &device.clone().autodiff());
    let case = &cases()["gpt2_tied"][0];
    let found = Generator::new(&model.valid(), case.config().clone(), &device)
        .generate(&case.prompts)
        .unwrap();
    case.assert(&found, &[0, 1, 2]);
}

/// Settings by their file, `generation_config.json` or an old `config.json`, and the tokens of transformers.
#[test]
fn settings_that_come_with_a_model_give_the_tokens_of_transformers() {
    let device = Device::flex();
    let (model, _) = load("gpt2_tied", &device);
    let text = std::fs::read(fixture("generation/settings.json")).unwrap();
    let mut cases: BTreeMap<String, Value> = serde_json::from_slice(&text).unwrap();
    let prompts: Vec<Vec<u32>> = from_value(cases.remove("prompts").unwrap()).unwrap();
    assert!(cases.len() > 10);
    for (name, case) in cases {
        let (generation, config, expected): (Option<Value>, Option<Value>, Vec<Vec<u32>>) =
            from_value(case).unwrap();
        let dir = tempfile::tempdir().unwrap();
        if let Some(generation) = generation {
            let file = dir.path().join("generation_config.json");
            std::fs::write(file, generation.to_string()).unwrap();
        }
        let mut object = json!({"eos_token_id": 299}).as_object().unwrap().clone();
        object.extend(
            config
                .iter()
                .flat_map(|keys| keys.as_object().unwrap().clone()),
        );
        let file = GenerationFile::read(dir.path(), &object).unwrap();
        let config = file.settings().unwrap().config(12, 0).unwrap();
        let config = config.with_pad_id(299);
        let tokens = |prompts: &[Vec<u32>]| -> Vec<Vec<u32>> {
            let found = Generator::new(&model, config.clone(), &device).generate(prompts);
            found.unwrap().into_iter().map(|text| text.tokens).collect()
        };
        for (prompt, expected) in prompts.iter().zip(&expected) {
            assert_eq!(&tokens(std::slice::from_ref(prompt))[0], expected, "{name}");
        }
        assert_eq!(tokens(&prompts), expected, "{name}, in a batch");
    }
}

#[test]
fn draws_of_several_batches_are_those_of_one() {
    let device = Device::flex();
    let (model, _) = load("gpt2_tied", &device);
    let prompts = [vec![10, 20, 30], vec![40, 41, 42], vec![50, 60, 70]];
    let sampling = Strategy::Sample(Sampling::default());
    let config = GenerationConfig::new(8).with_strategy(sampling);
    let from = |first: usize| {
        let generator = Generator::new(&model, config.clone(), &device);
        let found = generator.with_first(first).generate(&prompts[first..]);
        found
            .unwrap()
            .into_iter()
            .map(|text| text.tokens)
            .collect::<Vec<_>>()
    };
    let all = from(0);
    assert_eq!(from(1), all[1..]);
    assert_eq!(from(2), all[2..]);
}
