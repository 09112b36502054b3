//! Options of adapter layers.

use crate::activation::Activation;
use crate::prefix::PrefixShape;
use lora_core::LoraError;
use std::collections::BTreeSet;

/// Input that is added to the output of an adapter layer: `residual_before_ln` of the library `adapters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// Output of the sublayer.
    Sublayer,
    /// Input of the adapter layer.
    Input,
    /// Sum of the sublayer's output and its residual, before the layer norm.
    Sum,
}

/// Options of adapter layers: a down projection, an activation and an up projection after sublayers of a frozen model.
///
/// The three placements of the paper are [`houlsby`](Self::houlsby), [`pfeiffer`](Self::pfeiffer) and [`lin`](Self::lin); the
/// fields are those of the library `adapters`, `BnConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterLayersConfig {
    /// Name of the adapter, which is part of the names of its tensors. Default: `default`.
    pub name: String,
    /// Adds a layer after the attention: `mh_adapter`.
    pub after_attention: bool,
    /// Adds a layer after the MLP: `output_adapter`.
    pub after_mlp: bool,
    /// Width of the bottleneck; `None` for a sixteenth of the model's, `reduction_factor` 16.
    pub size: Option<usize>,
    /// Activation between the projections: `non_linearity`.
    pub activation: Activation,
    /// Adds the residual of the sublayer, and applies the layer norm behind it, before the adapter layer: `original_ln_before`.
    pub norm_before: bool,
    /// Adds the residual of the sublayer, and applies the layer norm behind it, after the adapter layer: `original_ln_after`.
    pub norm_after: bool,
    /// Input that is added to the output: `residual_before_ln`.
    pub residual: Residual,
    /// Adds a trained layer norm before the down projection: `ln_before`.
    pub own_norm: bool,
    /// Factor of the up projection's output: `scaling`. Default: 1.
    pub scaling: f64,
    /// Dropout probability of the up projection's output. Default: 0.
    pub dropout: f64,
    /// Layers without adapter layers: `leave_out`. Without the first layers this is AdapterDrop (Rücklé et al. 2020).
    pub leave_out: BTreeSet<usize>,
    /// Seed of the initial weights. Default: 42.
    pub seed: u64,
}

impl AdapterLayersConfig {
    /// Returns AdapterH (Houlsby et al. 2019): a layer after the attention and one after the MLP, each before the residual;
    /// `DoubleSeqBnConfig`.
    pub fn houlsby() -> Self {
        Self {
            name: "default".into(),
            after_attention: true,
            after_mlp: true,
            size: None,
            activation: Activation::Silu,
            norm_before: false,
            norm_after: true,
            residual: Residual::Sublayer,
            own_norm: false,
            scaling: 1.0,
            dropout: 0.0,
            leave_out: BTreeSet::new(),
            seed: 42,
        }
    }

    /// Returns AdapterP (Pfeiffer et al. 2021, AdapterFusion): a layer after the MLP; `SeqBnConfig`.
    pub fn pfeiffer() -> Self {
        Self {
            after_attention: false,
            activation: Activation::Relu,
            norm_before: true,
            ..Self::houlsby()
        }
    }

    /// Returns AdapterL (Lin et al. 2020): a layer after the MLP, with a trained layer norm of its own; `SeqBnConfig` with
    /// `ln_before`.
    pub fn lin() -> Self {
        Self {
            own_norm: true,
            ..Self::pfeiffer()
        }
    }

    /// Sets the width of the bottleneck.
    pub fn with_size(mut self, size: usize) -> Self {
        self.size = Some(size);
        self
    }

    /// Leaves out the first `layers` layers.
    pub fn without_first(mut self, layers: usize) -> Self {
        self.leave_out.extend(0..layers);
        self
    }

    /// Sets the seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Returns true if layers of `self` are those that `asked` would make; a size that `asked` leaves open fits any.
    pub fn is_like(&self, asked: &Self) -> bool {
        let asked = Self {
            name: self.name.clone(),
            size: asked.size.or(self.size),
            seed: self.seed,
            ..asked.clone()
        };
        *self == asked
    }

    /// Returns the width of the bottleneck in a model of this width.
    pub fn size_in(&self, d_model: usize) -> usize {
        self.size.unwrap_or(d_model / 16).max(1)
    }

    /// Returns true if layer `index` has an adapter layer after its attention, and after its MLP.
    pub(super) fn places(&self, index: usize) -> [bool; 2] {
        let there = !self.leave_out.contains(&index);
        [there && self.after_attention, there && self.after_mlp]
    }

    /// Counts the parameters in a model: `2·d·r + r + d` for each layer, and `2·d` for its layer norm (Hu et al. 2021, section
    /// 5.1).
    pub fn parameters(&self, layers: usize, d_model: usize) -> usize {
        let (d, r) = (d_model, self.size_in(d_model));
        let each = 2 * d * r + r + d + if self.own_norm { 2 * d } else { 0 };
        let count = |index| {
            self.places(index)
                .into_iter()
                .filter(|&place| place)
                .count()
        };
        (0..layers).map(count).sum::<usize>() * each
    }

    /// Checks the options for a model.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] that names the option.
    pub(super) fn check(&self, shape: &PrefixShape) -> Result<(), LoraError> {
        let refuse = |option, found: String, expected: String| {
            Err(LoraError::InvalidOption {
                option,
                found,
                expected,
            })
        };
        if self.size == Some(0) {
            return refuse("adapter_size", "0".into(), "at least 1".into());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let expected = "a probability in [0, 1)".into();
            return refuse("dropout", self.dropout.to_string(), expected);
        }
        if !self.scaling.is_finite() {
            let expected = "a number".into();
            return refuse("scaling", self.scaling.to_string(), expected);
        }
        let layers = shape.layers;
        if let Some(beyond) = self.leave_out.iter().find(|&&layer| layer >= layers) {
            let expected = format!("indices below {layers}, the number of layers");
            return refuse("leave_out", beyond.to_string(), expected);
        }
        if self.parameters(layers, shape.d_model) == 0 {
            let expected = format!("fewer layers: none of {layers} would have an adapter layer");
            return refuse("adapter_drop", self.leave_out.len().to_string(), expected);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables 2, 3 and 4 of Hu et al. 2021, without heads.
    #[test]
    fn parameters_are_those_of_the_papers_tables() {
        let (houlsby, lin, pfeiffer) = (
            AdapterLayersConfig::houlsby,
            AdapterLayersConfig::lin,
            AdapterLayersConfig::pfeiffer,
        );
        let (base, large, medium, gpt3) = ((12, 768), (24, 1024), (24, 1024), (96, 12288));
        let cases = [
            // RoBERTa base, 0.3 M and 0.9 M.
            (pfeiffer().with_size(16), base, 304_320),
            (pfeiffer().with_size(48), base, 894_528),
            // RoBERTa large: AdapterP 3.0 M and 0.8 M, AdapterH 6.0 M and 0.8 M, in units of 2^20.
            (pfeiffer().with_size(64), large, 3_171_840),
            (pfeiffer().with_size(16), large, 811_392),
            (houlsby().with_size(64), large, 6_343_680),
            (houlsby().with_size(8), large, 835_968),
            // GPT-2 medium: AdapterL 0.37 M and 11.09 M.
            (lin().with_size(6), medium, 368_784),
            (lin().with_size(224), medium, 11_089_152),
            // GPT-3: AdapterH 7.1 M and 40.1 M.
            (houlsby().with_size(1), gpt3, 7_078_080),
            (houlsby().with_size(8), gpt3, 40_109_568),
        ];
        for (config, (layers, d), parameters) in cases {
            assert_eq!(config.parameters(layers, d), parameters, "{config:?}");
        }
        // AdapterDrop leaves out layers, and the default size is a sixteenth.
        let dropped = pfeiffer().without_first(5);
        let each = 2 * 768 * 48 + 48 + 768;
        assert_eq!(dropped.parameters(12, 768), 7 * each);
    }
}
