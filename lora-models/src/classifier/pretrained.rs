//! Classifiers from and to the files of Hugging Face.

use super::model::random;
use super::names::{architecture, head_name, pooler, token_embedding};
use super::{Classifier, HeadKind};
use crate::added::{AddedModel, HeadTensors};
use crate::checkpoint::LoadReport;
use crate::decoder::FREQUENCIES;
use crate::encoder::{EncoderConfig, EncoderFamily, HeadedDecoder, Labels};
use crate::error::ModelError;
use crate::gpt2::MASK;
use crate::pretrained::{FamilyConfig, ModelInfo, ModelSizes, Pretrained};
use crate::weights::{Expectation, Leftover, Parameters, Weights, open_model, plan, read_model};
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::file::{AdapterDir, PREFIX, split_name};
use lora_core::files::Directory;
use lora_core::{BaseFloats, QuantizeConfig};
use serde_json::{Map, Value};
use std::path::Path;

/// Options for loading a classifier.
#[derive(Clone, Debug, Default)]
pub struct ClassifierOptions {
    /// Kind of the head.
    pub head: HeadKind,
    /// Names of the outputs. Default: those in `config.json`.
    pub labels: Option<Labels>,
    /// Initializes head and pooler at random even if the checkpoint has them: for a checkpoint that was fine-tuned on
    /// another task.
    pub fresh_head: bool,
    /// Parameters of head and pooler that an adapter brings, by their names in transformers: those of the checkpoint are not
    /// read, so that it may have a head for another task. [`for_adapter`](Self::for_adapter) fills the list.
    pub brought: Vec<String>,
    /// Seed of the random initialization.
    pub seed: u64,
    /// Quantization of the encoder's frozen linear layers while they are read, so that they are never all in memory as f32. The
    /// head and other randomly initialized modules stay in f32.
    pub quantize: Option<QuantizeConfig>,
    /// Float type of the encoder's frozen weights that are not quantized. The head and other randomly initialized modules stay
    /// in f32.
    pub floats: BaseFloats,
}

impl ClassifierOptions {
    /// Sets the parameters that an adapter brings, for a base that it is loaded on next.
    ///
    /// # Errors
    /// If the file of the adapter's tensors is malformed.
    pub fn for_adapter(
        mut self,
        family: EncoderFamily,
        adapter: &AdapterDir,
    ) -> Result<Self, ModelError> {
        if adapter.kind().is_added() {
            self.brought = match HeadTensors::of(adapter)? {
                Some(head) => head.names(),
                None => Vec::new(),
            };
            return Ok(self);
        }
        let modules = [head_name(family, self.head), pooler(family)];
        let modules = modules.map(|module| format!("{module}."));
        let names = adapter.tensors()?.names().into_iter();
        let names = names.filter_map(|name| name.strip_prefix(PREFIX).map(String::from));
        let names = names.filter(|name| modules.iter().any(|module| name.starts_with(module)));
        let brought = names.filter(|name| split_name(name).is_none());
        self.brought = brought.collect();
        Ok(self)
    }

    /// Returns the configuration with the labels of these options.
    fn labeled(&self, mut config: EncoderConfig) -> EncoderConfig {
        if let Some(labels) = &self.labels {
            config.labels = labels.clone();
        }
        config
    }
}

/// Tensors of checkpoints that a classifier does not use.
const LEFTOVERS: &[Leftover] = &[
    Leftover {
        reason: "head of the pretraining",
        is: |name| {
            let heads = ["cls.", "lm_head.", "lm_predictions.", "mask_predictions."];
            heads.iter().any(|head| name.starts_with(head))
        },
        holds: None,
    },
    Leftover {
        reason: "pooler, which this head does not use",
        is: |name| name.starts_with("pooler.") || name.contains(".pooler."),
        holds: None,
    },
    Leftover {
        reason: "buffer of positions or segments",
        is: |name| {
            name.ends_with("embeddings.position_ids") || name.ends_with("embeddings.token_type_ids")
        },
        holds: Some(|tensor| {
            let positions = || {
                tensor
                    .values
                    .iter()
                    .zip(0..)
                    .all(|(&value, at)| value == at as f32)
            };
            tensor.values.iter().all(|&value| value == 0.0) || positions()
        }),
    },
    Leftover {
        reason: "difference between two embeddings of the pretraining",
        is: |name| name.ends_with("embeddings.word_embeddings._weight"),
        holds: None,
    },
    Leftover {
        reason: "head of another task",
        is: |name| name.starts_with("qa_outputs.") || name.starts_with("multiple_choice_head."),
        holds: None,
    },
];

/// Output layers of the pretraining, which are tied to the token embedding: `safetensors.torch.save_model` keeps the first of
/// two tied tensors by name.
const TIED_HEADS: [&str; 3] = [
    "lm_head.decoder.weight",
    "cls.predictions.decoder.weight",
    "lm_predictions.lm_head.weight",
];

/// Position embeddings of a DeBERTa without `position_biased_input`, published although they are unused.
const UNUSED_POSITIONS: Leftover = Leftover {
    reason: "positions, which this model does not add",
    is: |name| name.ends_with("embeddings.position_embeddings.weight"),
    holds: None,
};

/// Returns the head of the other kind in GPT-2, which has another name.
fn other_head(kind: HeadKind) -> Leftover {
    Leftover {
        reason: "head of another task",
        is: match kind {
            HeadKind::Sequence => |name| name.starts_with("classifier."),
            HeadKind::Token => |name| name.starts_with("score."),
        },
        holds: None,
    }
}

impl FamilyConfig for EncoderConfig {
    fn from_json(path: &Path, object: Map<String, Value>) -> Result<Self, ModelError> {
        Self::from_json(path, object)
    }

    fn model_type(&self) -> &'static str {
        self.family.model_type()
    }

    fn sizes(&self) -> ModelSizes {
        if let Some(decoder) = &self.decoder {
            return ModelSizes {
                tied_head: None,
                ..decoder.sizes()
            };
        }
        ModelSizes {
            layers: self.num_hidden_layers,
            d_model: self.hidden_size,
            heads: self.num_attention_heads,
            vocab_size: self.vocab_size,
            max_length: self.max_length(),
            tied_head: None,
            // DeBERTa v1 fuses query, key and value.
            widest: self
                .hidden_size
                .saturating_mul(3)
                .max(self.intermediate_size),
            distance_scores: self
                .disentangled
                .as_ref()
                .is_some_and(|options| options.relative),
        }
    }

    fn usual_targets(&self) -> Vec<&'static str> {
        if let Some(decoder) = &self.decoder {
            return decoder.usual_targets();
        }
        match self.family {
            EncoderFamily::Deberta => vec![
                "in_proj",
                "in_proj[q,k,v]",
                "pos_proj",
                "pos_q_proj",
                "dense",
                "word_embeddings",
            ],
            EncoderFamily::DebertaV2 => vec![
                "query_proj",
                "key_proj",
                "value_proj",
                "dense",
                "word_embeddings",
            ],
            _ => vec!["query", "key", "value", "dense", "word_embeddings"],
        }
    }

    fn token_embedding(&self) -> String {
        token_embedding(self.family)
    }

    fn layer_name(&self, layer: usize) -> String {
        match &self.decoder {
            Some(decoder) => decoder.layer_name(layer),
            None => format!("{}.encoder.layer.{layer}", self.family.trunk()),
        }
    }

    fn set_layers(&mut self, layers: usize) {
        self.num_hidden_layers = layers;
        if let Some(decoder) = &mut self.decoder {
            decoder.set_layers(layers);
        }
    }

    fn disable_dropout(&mut self) {
        self.hidden_dropout = 0.0;
        self.attention_dropout = 0.0;
        self.pooler_dropout = 0.0;
        self.classifier_dropout = self.classifier_dropout.map(|_| 0.0);
        if let Some(decoder) = &mut self.decoder {
            decoder.disable_dropout();
        }
    }
}

/// A head or pooler that the checkpoint lacks is initialized at random, and
/// [`random_modules`](Pretrained::random_modules) names it; heads of pretraining are left out, and
/// [`LoadReport::ignored`] names them.
impl Pretrained for Classifier {
    type Config = EncoderConfig;
    type Options = ClassifierOptions;

    fn trained_options(options: &ClassifierOptions) -> ClassifierOptions {
        ClassifierOptions {
            fresh_head: false,
            brought: Vec::new(),
            ..options.clone()
        }
    }

    fn options_for_adapter(
        config: &EncoderConfig,
        options: &ClassifierOptions,
        adapter: &AdapterDir,
    ) -> Result<ClassifierOptions, ModelError> {
        options.clone().for_adapter(config.family, adapter)
    }

    fn unquantized_options(options: &ClassifierOptions) -> ClassifierOptions {
        ClassifierOptions {
            quantize: None,
            floats: BaseFloats::default(),
            ..options.clone()
        }
    }

    fn load_weights(
        config: EncoderConfig,
        dir: impl Into<Directory>,
        options: &ClassifierOptions,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        let config = options.labeled(config);
        let kind = options.head;
        let family = config.family;
        let trunk = family.trunk();
        let pooler = pooler(family);
        let mut leftovers = LEFTOVERS.to_vec();
        if !config.position_embeddings {
            leftovers.push(UNUSED_POSITIONS);
        }
        let norm = match config.decoder {
            Some(HeadedDecoder::Gpt2(_)) => {
                leftovers.extend([MASK, other_head(kind)]);
                "ln_f"
            }
            Some(HeadedDecoder::Decoder(_)) => {
                leftovers.push(FREQUENCIES);
                "norm"
            }
            None => "embeddings.LayerNorm",
        };
        let head = head_name(family, kind);
        let embedding = format!("{}.weight", token_embedding(family));
        let tied: Vec<(&str, &str)> = match (config.ties_embeddings(), &config.decoder) {
            (false, _) => Vec::new(),
            (true, Some(_)) => vec![(&embedding, "lm_head.weight")],
            (true, None) => TIED_HEADS.map(|head| (embedding.as_str(), head)).to_vec(),
        };
        let wanted = plan(|weights| Self::build(&config, kind, device, weights))?;
        // The head is trained, whatever the checkpoint has.
        let mut floats = options.floats.clone();
        floats.skip.push(head.into());
        let expectation = Expectation {
            wanted,
            prefix: &format!("{trunk}."),
            anchor: &format!("{trunk}.{norm}.weight"),
            may_be_fresh: &[head, pooler],
            force_fresh: options.fresh_head,
            brought: &options.brought,
            optional: &[],
            quantize: options.quantize.as_ref(),
            floats: &floats,
            leftovers: &leftovers,
            tied: &tied,
        };
        let mut fresh_weights = random(&config, options.seed);
        let checkpoint = open_model(&dir.into(), expectation.anchor, expectation.prefix)?;
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

    fn from_weights(
        config: &EncoderConfig,
        options: &ClassifierOptions,
        device: &Device,
        weights: &mut dyn Weights,
    ) -> Result<Self, ModelError> {
        let config = options.labeled(config.clone());
        Self::build(&config, options.head, device, weights)
    }

    fn random_weights(config: &EncoderConfig, seed: u64) -> impl Weights {
        random(config, seed)
    }

    fn info(&self) -> ModelInfo {
        ModelInfo {
            vocab_size: self.config.vocab_size,
            max_length: (self.config.max_length()).saturating_sub(self.added().virtual_tokens()),
            eos_id: None,
            pad_id: match &self.config.decoder {
                Some(decoder) => decoder.pad_token_id(),
                None => Some(self.config.pad_token_id),
            },
        }
    }

    fn outputs(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Bool>,
        type_ids: Tensor<2, Int>,
    ) -> Tensor<2> {
        self.forward(ids, &mask, Some(type_ids))
    }

    fn random_modules(&self) -> &[String] {
        &self.fresh
    }

    fn load_summary(&self, report: &LoadReport) -> String {
        let mut summary = format!("{}: {report}", self.config.family);
        if !self.fresh.is_empty() {
            summary.push_str(&format!(
                "\n          not from the checkpoint, at random unless an adapter brings it: {}",
                self.fresh.join(", ")
            ));
        }
        summary
    }

    fn export_config(
        &self,
        _parameters: &mut Parameters<'_>,
    ) -> Result<Map<String, Value>, ModelError> {
        Ok(self.file_config())
    }
}

/// Turns a shape error of the output projection into [`ModelError::HeadMismatch`].
fn head_mismatch(error: ModelError, config: &EncoderConfig, kind: HeadKind) -> ModelError {
    let architecture = architecture(config, kind);
    let projection = architecture.module_name("classifier.out_proj");
    match error {
        ModelError::TensorShape {
            name,
            expected,
            found,
            ..
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
