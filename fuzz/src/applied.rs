//! Entries that go on with what they read: adapters and prefixes on a tiny model, and a run that resumes from a checkpoint.

use super::input::{in_folder, parts, with_length};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_train::Interrupter;
use lora_core::file::{AdapterDir, CONFIG_FILE, WEIGHTS_FILE};
use lora_models::classifier::{AdapterLabels, Classifier, ClassifierOptions};
use lora_models::encoder::EncoderConfig;
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::prefix::PREFIX_DIR;
use lora_models::{AdapterLoadOptions, CausalInput, CausalLm, LoraModel, Pretrained};
use lora_train::TrainError;
use lora_train::data::{BatchOrder, BatchPlan, Example, Origin};
use lora_train::task::CausalLmTask;
use lora_train::trainer::ranks::Alone;
use lora_train::trainer::{
    AdamW, BatchLoader, Checkpoint, CheckpointDir, Every, Hooks, NonFinite, ReadValues, Run,
    Schedule, ScheduleKind, TrainerConfig, fit,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Configuration of the classifier, that of the fixture `encoders/bert_seq`.
const CLASSIFIER: &[u8] = br#"{"model_type":"bert","architectures":["BertForSequenceClassification"],
"hidden_size":9,"intermediate_size":10,"num_attention_heads":3,"num_hidden_layers":2,"max_position_embeddings":13,
"vocab_size":32,"type_vocab_size":2,"layer_norm_eps":1e-12,"hidden_act":"gelu","pad_token_id":0,
"id2label":{"0":"entailment","1":"neutral","2":"contradiction"}}"#;

/// Language model of an entry.
#[derive(Clone, Copy)]
enum Base {
    /// Sizes of the fixture `gpt2_tied`.
    Tied,
    /// Sizes of the fixture `vocabulary/base`, whose adapters bring tokens.
    Vocabulary,
}

impl Base {
    fn model(self, device: &Device) -> Option<Gpt2LmHead> {
        let (n_layer, n_embd, n_head, n_positions, vocab_size) = match self {
            Self::Tied => (2, 24, 3, 64, 300),
            Self::Vocabulary => (1, 8, 2, 12, 19),
        };
        let config = Gpt2Config {
            n_layer,
            n_embd,
            n_head,
            n_positions,
            vocab_size,
            ..Gpt2Config::default()
        };
        Gpt2LmHead::init(&config, 0, device).ok()
    }
}

/// Puts an adapter on a language model, and computes the loss of a text.
fn on_language_model(base: Base, dir: &Path) -> bool {
    let device = Device::flex();
    let Ok(adapter) = AdapterDir::open(dir) else {
        return false;
    };
    let Some(model) = base.model(&device) else {
        return false;
    };
    let _ = model.tokens_with(&adapter);
    let options = AdapterLoadOptions::default();
    let Ok(adapted) = model.load_opened_adapter(&adapter, &options) else {
        return false;
    };
    let model = adapted.module();
    let length = model.info().max_length.min(3);
    let ids = Tensor::<1, Int>::from_ints([5, 18, 7], &device).narrow(0, 0, length);
    let hidden = model.hidden_states(&CausalInput::new(ids.clone().unsqueeze()));
    let loss = model.loss(hidden.squeeze_dim(0), ids, &Default::default());
    let _ = loss.loss.into_scalar::<f32>();
    let _ = adapted.merge();
    true
}

/// Puts an adapter on the classifier, and computes its outputs.
fn on_classifier(dir: &Path, base: &Path) -> bool {
    let device = Device::flex();
    let config = EncoderConfig::from_dir(base).expect("a configuration of this file");
    let Ok(adapter) = AdapterDir::open(dir) else {
        return false;
    };
    let Ok(head) = AdapterLabels::from_dir(&adapter) else {
        return false;
    };
    let head = head.on_base(&config);
    let options = ClassifierOptions {
        head: head.kind.unwrap_or_default(),
        labels: head.labels,
        ..ClassifierOptions::default()
    };
    let Ok(options) = Classifier::options_for_adapter(&config, &options, &adapter) else {
        return false;
    };
    let Ok(model) = Classifier::init_random(&config, &options, 0, &device) else {
        return false;
    };
    let Ok(adapted) = model.load_opened_adapter(&adapter, &AdapterLoadOptions::default()) else {
        return false;
    };
    let ids = Tensor::<2, Int>::from_ints([[5, 31, 7]], &device);
    let mask = Tensor::<2, Bool>::from_data([[true, true, true]], &device);
    let outputs = adapted.module().forward(ids, &mask, None);
    let _ = outputs.into_data();
    true
}

/// Reads an adapter and puts it on a tiny model: its configuration, header and values of its tensors. The first byte chooses a
/// language model or a classifier.
pub fn attached(input: &[u8]) -> bool {
    let Some((kind, input)) = input.split_first() else {
        return false;
    };
    let [config, header, values] = parts(input);
    let weights = with_length(header, values);
    let config_file = format!("adapter/{CONFIG_FILE}");
    let weights_file = format!("adapter/{WEIGHTS_FILE}");
    let files = [
        (&*config_file, config),
        (&*weights_file, &*weights),
        ("base/config.json", CLASSIFIER),
    ];
    in_folder(&files, |dir| {
        let adapter = dir.join("adapter");
        match kind {
            b'c' => on_classifier(&adapter, &dir.join("base")),
            b'v' => on_language_model(Base::Vocabulary, &adapter),
            _ => on_language_model(Base::Tied, &adapter),
        }
    })
}

/// Reads a prefix and puts it on a tiny model, alone and beside an adapter: its configuration, header and values of its tensor.
pub fn prefix(input: &[u8]) -> bool {
    let [config, header, values] = parts(input);
    let weights = with_length(header, values);
    let alone = [(CONFIG_FILE, config), (WEIGHTS_FILE, &*weights)];
    let is_read = in_folder(&alone, |dir| on_language_model(Base::Tied, dir));
    let names = [CONFIG_FILE, WEIGHTS_FILE].map(|name| format!("{PREFIX_DIR}/{name}"));
    let lora = br#"{"peft_type":"LORA","r":1,"lora_alpha":2,"target_modules":["c_attn"],"layers_to_transform":[0],
"task_type":"CAUSAL_LM","fan_in_fan_out":true}"#;
    let module = "base_model.model.transformer.h.0.attn.c_attn";
    let factors = format!(
        r#"{{"{module}.lora_A.weight":{{"dtype":"F32","shape":[1,24],"data_offsets":[0,96]}},
"{module}.lora_B.weight":{{"dtype":"F32","shape":[72,1],"data_offsets":[96,384]}}}}"#
    );
    let factors = with_length(factors.as_bytes(), &[0; 384]);
    let beside = [
        (CONFIG_FILE, &lora[..]),
        (WEIGHTS_FILE, &*factors),
        (&*names[0], config),
        (&*names[1], &*weights),
    ];
    is_read & in_folder(&beside, |dir| on_language_model(Base::Tied, dir))
}

/// Step of the run that is resumed; the corpus has checkpoints of the step before.
const LAST_STEP: usize = 22;

/// Reads a checkpoint of a run and resumes from it: state, state of the optimizer, and the adapter as its configuration, header
/// and values of its tensors.
pub fn checkpoint_dir(input: &[u8]) -> bool {
    let [state, optimizer, config, header, values] = parts(input);
    let weights = with_length(header, values);
    let names = ["state.json", "optimizer.bpk", "adapter/adapter_config.json"];
    let [state_file, optimizer_file, config_file] =
        names.map(|name| format!("checkpoints/step-00000021/{name}"));
    let weights_file = format!("checkpoints/step-00000021/adapter/{WEIGHTS_FILE}");
    let files = [
        (&*state_file, state),
        (&*optimizer_file, optimizer),
        (&*config_file, config),
        (&*weights_file, &*weights),
    ];
    in_folder(&files, |dir| {
        let checkpoints = CheckpointDir::new(dir.join("checkpoints"));
        let Ok(Some(last)) = checkpoints.last() else {
            return false;
        };
        let checkpoint = last.checkpoint;
        let Some(model) = Base::Tied.model(&Device::flex().autodiff()) else {
            return false;
        };
        let Ok(adapted) = model.load_adapter(checkpoint.path.join("adapter")) else {
            return false;
        };
        let steps = checkpoint.state.step;
        let is_resumed = resume(adapted.into_module(), dir, checkpoint).is_ok();
        if is_resumed && steps < LAST_STEP {
            // What the run wrote is what the next one reads.
            let written = checkpoints.last().expect("a checkpoint that can be read");
            assert_eq!(
                written.map(|last| last.checkpoint.state.step),
                Some(LAST_STEP)
            );
        }
        is_resumed
    })
}

/// Goes on with a run up to [`LAST_STEP`].
fn resume(model: Gpt2LmHead, output: &Path, checkpoint: Checkpoint) -> Result<(), TrainError> {
    let origin = Origin::new(Path::new("data"), 1);
    let examples: Vec<Example> = (0..6)
        .map(|index| Example::new(index, vec![3, 1, 4, 1, 5], 1, origin.clone()))
        .collect();
    let plan = BatchPlan::new(vec![5; 6], 2, BatchOrder::Shuffled, 0)?;
    let run = Run {
        config: TrainerConfig {
            total_steps: LAST_STEP,
            accumulation: 1,
            max_grad_norm: Some(1.0),
            non_finite: NonFinite::Fail,
            read_values: ReadValues::AtOnce,
            evaluate: Every::Never,
            save: Every::End,
            keep_checkpoints: 1,
            patience: None,
            best_metric: "loss".into(),
            higher_is_better: false,
            seed: 0,
        },
        adamw: AdamW::default(),
        schedule: Schedule::new(ScheduleKind::Linear, 1e-3, 0, LAST_STEP),
        lora_plus: None,
        loader: BatchLoader::new(examples, plan, 0),
        hooks: Box::new(NoWeights),
        ranks: Arc::new(Alone),
        observers: Vec::new(),
        interrupter: Interrupter::new(),
        fingerprint: checkpoint.state.fingerprint.clone(),
        data: None,
        eval_data: None,
    };
    fit(CausalLmTask::new(model, 0.0), run, output, Some(checkpoint)).map(|_| ())
}

/// Hooks of a run that evaluates nothing and writes no weights.
struct NoWeights;

impl<M> Hooks<M> for NoWeights {
    fn evaluate(&mut self, _: &M) -> Result<BTreeMap<String, f64>, TrainError> {
        Ok(BTreeMap::new())
    }

    fn save_weights(&mut self, _: &M, _: &Path) -> Result<(), TrainError> {
        Ok(())
    }
}
