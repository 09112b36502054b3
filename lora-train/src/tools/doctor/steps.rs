//! A training step of each family, on small models with random weights.

use crate::TrainError;
use crate::data::{ClassWeights, Example, Sample, SampleBatch};
use crate::task::{CausalLmTask, Classify};
use crate::tools::bench::{Shape, adapted, labelled, texts};
use crate::trainer::{MicroBatch, StepDifference, Task, compare_steps};
use burn::tensor::Device;
use lora_models::{ModelConfig, Pretrained, dispatch};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Number of examples, and of tokens in each.
const SIZE: [usize; 2] = [2, 16];
const VOCABULARY: usize = 256;

/// Families, by `model_type`.
pub(super) const FAMILIES: [&str; 7] = [
    "gpt2",
    "qwen3",
    "gemma2",
    "bert",
    "roberta",
    "deberta",
    "deberta-v2",
];

/// Returns the configuration of a small model of a family.
fn config(family: &str) -> Result<ModelConfig, TrainError> {
    let keys = match family {
        "gpt2" => json!({
            "vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4
        }),
        _ => {
            let mut keys = json!({
                "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                "intermediate_size": 128, "max_position_embeddings": 66
            });
            let more = match family {
                "qwen3" => json!({ "num_key_value_heads": 2, "head_dim": 24 }),
                "gemma2" => json!({
                    "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 5, "attn_logit_softcapping": 2.0
                }),
                "roberta" => json!({ "type_vocab_size": 1, "pad_token_id": 1 }),
                "deberta" => json!({
                    "relative_attention": true, "pos_att_type": "c2p|p2c", "max_relative_positions": -1,
                    "position_biased_input": false
                }),
                "deberta-v2" => json!({
                    "relative_attention": true, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
                    "share_att_key": true, "pos_att_type": "p2c|c2p", "max_relative_positions": -1,
                    "position_biased_input": false
                }),
                _ => json!({}),
            };
            if let (Value::Object(keys), Value::Object(more)) = (&mut keys, more) {
                keys.extend(more);
            }
            keys
        }
    };
    let mut object: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
    object.insert("model_type".into(), family.into());
    Ok(ModelConfig::from_json(Path::new(family), object)?.without_dropout())
}

/// Takes a LoRA training step of a family on a device and on the CPU. The model is made on the CPU and copied.
pub(super) fn step(
    family: &str,
    device: &Device,
    host: &Device,
) -> Result<StepDifference, TrainError> {
    let config = config(family)?;
    let host = host.clone().autodiff();
    let device = device.clone().autodiff();
    let shape = Shape {
        rank: Some(4),
        ..Shape::default()
    };
    dispatch!(&config,
        causal M(config) => {
            let model = M::init_random(config, &<M as Pretrained>::Options::default(), 0, &host)?;
            let task = CausalLmTask::new(adapted(model, &shape)?, 0.1);
            compared(task, &device, &texts(SIZE, VOCABULARY))
        },
        encoder M(config) => {
            let model = M::init_random(config, &<M as Pretrained>::Options::default(), 0, &host)?;
            let task = Classify::new(adapted(model, &shape)?, 0.1, ClassWeights::default());
            compared(task, &device, &labelled(SIZE, VOCABULARY))
        },
    )
}

fn compared<M: Task<Example>>(
    task: M,
    device: &Device,
    examples: &[Example],
) -> Result<StepDifference, TrainError> {
    let batch = Example::collate(&examples.iter().collect::<Vec<_>>(), 0.into());
    let micro = MicroBatch {
        loss_scale: 1.0 / batch.weight().max(1.0),
        batch,
        seed: 0,
    };
    let copy = task.clone().fork(device);
    compare_steps::<Example, M>([&copy, &task], [micro.clone(), micro])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_takes_a_step_with_gradients() {
        for family in FAMILIES {
            let host = Device::flex();
            let difference = step(family, &host, &host).unwrap();
            assert!(difference.norm[1] > 1e-4, "{family}: {difference:?}");
            assert_eq!(difference.largest(), 0.0, "{family}: {difference:?}");
        }
    }
}
