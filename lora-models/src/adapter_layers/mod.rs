//! Adapter layers: trained bottlenecks after sublayers of a frozen model (Houlsby et al. 2019, Lin et al. 2020, Pfeiffer et al.
//! 2021), the baselines AdapterH, AdapterL and AdapterP of Hu et al. 2021, with AdapterDrop (Rücklé et al. 2020).
//!
//! | concept | file |
//! | --- | --- |
//! | [`AdapterLayersConfig`]: placement, size; initialization | `config.rs`, `build.rs` |
//! | [`AdapterLayers`], [`Bottleneck`]: the modules | `module.rs` |
//! | files of the library `adapters` | `files.rs` |
//!
//! Placement, arithmetic, names and files are those of the library `adapters` 1.3: `adapter_config.json`,
//! `pytorch_adapter.bin` or `adapter.safetensors`, and for a classifier `head_config.json` with `pytorch_model_head.bin` or
//! `model_head.safetensors`. Beside LoRA they are the subdirectory [`ADAPTER_LAYERS_DIR`] of its adapter. An option that these
//! layers do not have, such as `use_gating`, is refused by its key.
//!
//! Adapter layers have an activation between their projections, so that no weight of the model can hold them: they are never
//! merged, and add time to each layer.
//!
//! ```
//! use lora_models::adapter_layers::AdapterLayersConfig;
//!
//! // AdapterL on GPT-2 medium: 0.37 M parameters in the paper's table 3.
//! let config = AdapterLayersConfig::lin().with_size(6);
//! assert_eq!(config.parameters(24, 1024), 368_784);
//! ```

mod build;
mod config;
mod files;
mod module;

pub use config::{AdapterLayersConfig, Residual};
pub use files::{ADAPTER_LAYERS_DIR, LayerNames};
pub(crate) use files::{SavedHead, head, head_config, read, save};
pub(crate) use module::joined;
pub use module::{AdapterLayers, Bottleneck, LayerAdapters};
