//! Reading an encoder with its head from a Hugging Face directory.

use super::adapters::architecture;
use super::model::random;
use super::{Classifier, HeadKind};
use crate::ModelError;
use crate::checkpoint::{Checkpoint, LoadReport};
use crate::encoder::{EncoderConfig, EncoderFamily, Labels};
use crate::weights::{Expectation, Leftover, plan, read_model};
use burn::tensor::Device;
use lora_core::QuantizeConfig;
use std::path::Path;

/// How a classifier is loaded.
#[derive(Clone, Debug, Default)]
pub struct ClassifierOptions {
    /// What the head is for.
    pub head: HeadKind,
    /// What its outputs are called. Default: as `config.json` says.
    pub labels: Option<Labels>,
    /// Starts head and pooler afresh, even where the checkpoint has them: for a checkpoint that was
    /// fine-tuned on something else.
    pub fresh_head: bool,
    /// Seed of what starts afresh.
    pub seed: u64,
    /// Quantises the frozen weights of the encoder's linear layers as they are read, so that it is never whole in
    /// floats. The head, and what starts afresh, stays in floats.
    pub quantize: Option<QuantizeConfig>,
}

/// What checkpoints hold that a classifier has no use for.
const LEFTOVERS: &[Leftover] = &[
    Leftover {
        reason: "head of the pretraining",
        is: |name| {
            let heads = ["cls.", "lm_head.", "lm_predictions.", "mask_predictions."];
            heads.iter().any(|head| name.starts_with(head))
        },
    },
    Leftover {
        reason: "pooler, which this head does not use",
        is: |name| name.starts_with("pooler.") || name.contains(".pooler."),
    },
    Leftover {
        reason: "buffer of positions or segments",
        is: |name| {
            name.ends_with("embeddings.position_ids") || name.ends_with("embeddings.token_type_ids")
        },
    },
    Leftover {
        reason: "difference between two embeddings of the pretraining",
        is: |name| name.ends_with("embeddings.word_embeddings._weight"),
    },
    Leftover {
        reason: "head of another task",
        is: |name| name.starts_with("qa_outputs."),
    },
];

/// DeBERTa without `position_biased_input` is published with a table that nothing reads.
const UNUSED_POSITIONS: Leftover = Leftover {
    reason: "positions, which this model does not add",
    is: |name| name.ends_with("embeddings.position_embeddings.weight"),
};

impl Classifier {
    /// Loads an encoder and its head from a directory with `config.json` and weights in any form that
    /// [`Checkpoint`] reads: with or without the family's prefix, with today's names or TensorFlow's.
    ///
    /// Every tensor of the encoder must be there in its shape. A head or pooler that the checkpoint
    /// lacks starts afresh, and [`fresh`](Self::fresh) names it; the heads of pretraining are passed over,
    /// and [`LoadReport::ignored`] names them. On the CPU, f32 weights may stay in the pages of their file: see
    /// [`Checkpoint::open`].
    ///
    /// # Errors
    /// As [`EncoderConfig::from_dir`] and [`Checkpoint::open`]; [`ModelError::HeadMismatch`] where the
    /// checkpoint's head has another number of outputs than `labels`;
    /// [`ModelError::TensorMissing`], [`ModelError::TensorUnexpected`],
    /// [`ModelError::TensorShape`] or [`ModelError::TensorDtype`] where the weights are not those of the
    /// configuration.
    pub fn load(
        dir: impl AsRef<Path>,
        options: &ClassifierOptions,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        let dir = dir.as_ref();
        let mut config = EncoderConfig::from_dir(dir)?;
        if let Some(labels) = &options.labels {
            config.labels = labels.clone();
        }
        let kind = options.head;
        let checkpoint = Checkpoint::open(dir)?;
        let family = config.family;
        let trunk = family.trunk();
        let pooler = match family {
            EncoderFamily::Bert => "bert.pooler",
            _ => "pooler",
        };
        let mut leftovers = LEFTOVERS.to_vec();
        if !config.position_embeddings {
            leftovers.push(UNUSED_POSITIONS);
        }
        let wanted = plan(|weights| Self::build(&config, kind, device, weights))?;
        let expectation = Expectation {
            wanted,
            prefix: &format!("{trunk}."),
            anchor: &format!("{trunk}.embeddings.word_embeddings.weight"),
            may_be_fresh: &["classifier", pooler],
            force_fresh: options.fresh_head,
            optional: &[],
            quantize: options.quantize.as_ref(),
            leftovers: &leftovers,
        };
        let mut fresh_weights = random(&config, options.seed);
        let read = read_model(&checkpoint, &expectation, &mut fresh_weights, |weights| {
            Self::build(&config, kind, device, weights)
        });
        let (mut model, report, fresh) =
            read.map_err(|error| head_mismatch(error, &config, kind))?;
        let last = |module: String| match module.rsplit_once('.') {
            Some((_, name)) => name.to_string(),
            None => module,
        };
        model.fresh = fresh.into_iter().map(last).collect();
        Ok((model, report))
    }
}

/// Says of a head with another number of outputs that it is one.
fn head_mismatch(error: ModelError, config: &EncoderConfig, kind: HeadKind) -> ModelError {
    let architecture = architecture(config, kind);
    let projection = architecture.module_name("classifier.out_proj");
    match error {
        ModelError::TensorShape {
            name,
            expected,
            found,
        } if name
            .strip_prefix(&projection)
            .is_some_and(|rest| rest.starts_with('.'))
            && expected.get(1) == found.get(1) =>
        {
            ModelError::HeadMismatch {
                name,
                expected: expected.first().copied().unwrap_or(0),
                found: found.first().copied().unwrap_or(0),
            }
        }
        other => other,
    }
}
