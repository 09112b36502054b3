//! Both ends of a language model over its vocabulary: the embedding of tokens, and the output layer, which may be tied to it.

use crate::error::ModelError;
use crate::targets::{NewVocabulary, Vocabulary};
use crate::vocabulary::{resized, saves, values_of};
use crate::weights::{check_fits, embedding_of, linear_of, on_host, param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::file::transpose;
use lora_core::ops::{CrossEntropy, HeadLoss, loss_of_logits};
use lora_core::{
    Architecture, LoraConfig, LoraEmbedding, LoraError, LoraLinear, param_id, tied_weight,
};

/// Names of the modules over a vocabulary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Embedding of tokens.
    pub embedding: &'static str,
    /// Output layer.
    pub head: &'static str,
}

impl Ends {
    /// Returns the name of the embedding's weight.
    pub(crate) fn embedding_weight(&self) -> String {
        format!("{}.weight", self.embedding)
    }

    /// Returns the name of the output layer's weight.
    pub(crate) fn head_weight(&self) -> String {
        format!("{}.weight", self.head)
    }

    /// Projects hidden states to the vocabulary.
    ///
    /// A tied output layer uses the base weight of the embedding: as in PEFT, an adapter on the embedding has no effect
    /// here.
    pub(crate) fn logits<const D: usize>(
        embedding: &LoraEmbedding,
        head: Option<&LoraLinear>,
        hidden: Tensor<D>,
    ) -> Tensor<D> {
        match head {
            Some(head) => head.forward(hidden),
            None => embedding.tied_logits(hidden),
        }
    }

    /// Computes the cross entropy of hidden states, without the logits of all rows at once where the output layer is a
    /// matrix alone.
    pub(crate) fn loss(
        embedding: &LoraEmbedding,
        head: Option<&LoraLinear>,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        options: &CrossEntropy,
    ) -> HeadLoss {
        match head {
            None => embedding.tied_head_loss(hidden, targets, options),
            Some(head) if !head.is_adapted() && head.bias.is_none() => {
                head.head_loss(hidden, targets, options)
            }
            Some(head) => loss_of_logits(head.forward(hidden), targets, options),
        }
    }

    /// Returns the output layer that an adapter with this configuration needs apart from the embedding: where it adapts or
    /// excludes the output layer, or adapts the embedding, or fully trains one of the two, or each apart.
    ///
    /// The new layer has the embedding's base weight, as in PEFT, also after a merge.
    ///
    /// # Errors
    /// [`LoraError::UnsupportedTarget`] inside [`ModelError::Lora`] for options that cannot go together, and the errors of
    /// [`untied`](Self::untied).
    pub(crate) fn prepared(
        &self,
        embedding: &LoraEmbedding,
        config: &LoraConfig,
    ) -> Result<Option<LoraLinear>, ModelError> {
        if !self.are_apart(config) {
            return Ok(None);
        }
        let refused = |module: &str, message: String| {
            Err(ModelError::Lora(LoraError::UnsupportedTarget {
                module: module.into(),
                message,
            }))
        };
        let saved = |module: &str| {
            let mut entries = config.modules_to_save.iter();
            entries.any(|entry| saves(entry, module))
        };
        if config.ensure_weight_tying && saved(self.head) && !saved(self.embedding) {
            let (_, name) = self
                .embedding
                .rsplit_once('.')
                .unwrap_or(("", self.embedding));
            return refused(
                self.head,
                format!(
                    "is to stay tied to the embedding, which is not trained; name `{name}` among the modules to save too"
                ),
            );
        }
        let mut tokens = config.token_indices.iter();
        let of_head = tokens.any(|tokens| tokens.module.as_deref() == Some(self.head));
        if !config.token_indices.is_empty() && !of_head {
            return refused(
                self.embedding,
                "has trained tokens, which a tied output layer follows, and the adapter changes that tie otherwise too; \
                 leave one of the two out"
                    .into(),
            );
        }
        // A packed weight cannot be trained.
        self.untied(embedding, saved(self.head) || of_head)
            .map(Some)
    }

    /// Builds an output layer from the transposed embedding of tokens, in f32 where it is asked to be.
    ///
    /// # Errors
    /// [`ModelError::TensorDtype`] if the embedding cannot be read as floats, [`ModelError::TooLargeForDevice`] if the device
    /// cannot bind the layer in one buffer.
    pub(crate) fn untied(
        &self,
        embedding: &LoraEmbedding,
        in_f32: bool,
    ) -> Result<LoraLinear, ModelError> {
        let head = &self.head_weight();
        let device = embedding.weight.lazy_device();
        check_fits(head, &embedding.weight.lazy_shape(), &device)?;
        let of_values = |[vocab, d_model]: [usize; 2], transposed: Tensor<2>| {
            let values = on_host(&self.embedding_weight(), transposed)?;
            let values = TensorData::new(values, [d_model, vocab]);
            Ok::<_, ModelError>(param(head, values, &device))
        };
        let weight = match embedding.packed() {
            Some(packed) if in_f32 => of_values(packed.shape(), packed.dequantize().transpose())?,
            Some(packed) => tied_weight(param_id(head), packed),
            None => {
                let base = embedding.weight.base();
                of_values(base.dims(), base.transpose())?
            }
        };
        Ok(LoraLinear { weight, bias: None })
    }

    /// Returns the values of the embedding, or else of the output layer, `[rows, d]`.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub(crate) fn values(
        &self,
        embedding: &LoraEmbedding,
        head: Option<&LoraLinear>,
        input: bool,
    ) -> Result<Vec<f32>, ModelError> {
        match head {
            Some(head) if !input => {
                let weight = match head.packed() {
                    Some(packed) => packed.dequantize(),
                    None => head.weight.base(),
                };
                on_host(&self.head_weight(), weight.transpose())
            }
            _ => values_of(&self.embedding_weight(), embedding),
        }
    }

    /// Replaces the weights over the vocabulary, also by others of another size.
    ///
    /// # Errors
    /// If a weight cannot be read, or the device cannot bind it in one buffer.
    pub(crate) fn replace(
        &self,
        embedding: &mut LoraEmbedding,
        head: &mut Option<LoraLinear>,
        own: &Vocabulary,
        new: NewVocabulary,
        architecture: &Architecture,
        device: &Device,
    ) -> Result<(), ModelError> {
        let (rows, d) = (new.rows, own.d);
        let resizes = rows != own.rows;
        let values = |own: Option<Vec<f32>>, input: bool| match own {
            None if resizes => {
                let values = self.values(embedding, head.as_ref(), input)?;
                Ok(Some(resized(values, d, rows)))
            }
            own => Ok::<_, ModelError>(own),
        };
        let input = values(new.input, true)?;
        let output = match &head {
            None => None,
            Some(_) => values(new.output, false)?,
        };
        if let Some(values) = input {
            let shape = [rows, d];
            *embedding = embedding_of(self.embedding, shape, values, architecture, device)?;
        }
        if let Some(values) = output {
            let values = transpose(&values, [rows, d]);
            *head = Some(linear_of(
                self.head,
                [d, rows],
                values,
                architecture,
                device,
            )?);
        }
        Ok(())
    }

    /// True if a configuration treats the output layer differently from the embedding.
    pub(crate) fn are_apart(&self, config: &LoraConfig) -> bool {
        let exclude = config.exclude.as_ref();
        let targets = |path| config.targets.names_module(path);
        let saved = |module: &str| {
            let mut entries = config.modules_to_save.iter();
            entries.any(|entry| saves(entry, module))
        };
        let tokens = |name: &str| {
            let mut tokens = config.token_indices.iter();
            let named = tokens.find(|tokens| {
                let module = tokens.module.as_deref().unwrap_or(self.embedding);
                saves(module, name)
            });
            named.map(|tokens| &tokens.ids)
        };
        let of_head = tokens(self.head);
        targets(self.head)
            || targets(self.embedding)
            || exclude.is_some_and(|exclude| exclude.names_module(self.head))
            || (saved(self.embedding) && !config.ensure_weight_tying)
            || (saved(self.head) && !(saved(self.embedding) && config.ensure_weight_tying))
            // With the same tokens the output layer follows the embedding.
            || (of_head.is_some() && of_head != tokens(self.embedding))
    }
}
