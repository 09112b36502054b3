//! Modules beside the weights of a model.

use crate::adapter_layers::{AdapterLayers, Bottleneck, LayerAdapters};
use crate::prefix::{Prefix, PrefixLayer};
use burn::module::Module;

/// Trained modules beside the weights of a model; none by default.
#[derive(Module, Debug)]
pub struct Added {
    /// Virtual tokens before every text.
    pub prefix: Option<Prefix>,
    /// Adapter layers after sublayers.
    pub adapters: Option<AdapterLayers>,
}

/// Modules beside one layer, and the keys and values of virtual tokens there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LayerAdded<'a> {
    /// Keys and values of the virtual tokens.
    pub prefix: Option<&'a PrefixLayer>,
    /// Adapter layers.
    pub adapters: Option<&'a LayerAdapters>,
}

impl Added {
    /// Returns a model's modules before any is added.
    pub(crate) fn none() -> Self {
        Self {
            prefix: None,
            adapters: None,
        }
    }

    /// Returns true if nothing is added.
    pub fn is_empty(&self) -> bool {
        self.prefix.is_none() && self.adapters.is_none()
    }

    /// Returns the adapter layers of layer `index`.
    pub(crate) fn layer(&self, index: usize) -> Option<&LayerAdapters> {
        let adapters = self.adapters.as_ref()?;
        adapters.layers.get(index)
    }

    /// Returns the number of virtual tokens.
    pub(crate) fn virtual_tokens(&self) -> usize {
        self.prefix.as_ref().map_or(0, Prefix::tokens)
    }

    /// Describes each part in a line: its name, and its sizes.
    pub fn summaries(&self) -> Vec<(&'static str, String)> {
        let prefix = self.prefix.iter();
        let prefix = prefix.map(|prefix| (prefix.kind().name(), prefix.summary()));
        let adapters = self.adapters.iter();
        let adapters = adapters.map(|layers| ("adapters", layers.summary()));
        prefix.chain(adapters).collect()
    }
}

impl<'a> LayerAdded<'a> {
    /// Returns the adapter layer after the attention.
    pub fn after_attention(&self) -> Option<&'a Bottleneck> {
        self.adapters?.attention.as_ref()
    }

    /// Returns the adapter layer after the MLP.
    pub fn after_mlp(&self) -> Option<&'a Bottleneck> {
        self.adapters?.output.as_ref()
    }
}
