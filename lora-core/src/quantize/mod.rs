//! Frozen weights in fewer bits: 4 or 8 as in QLoRA (Dettmers et al. 2023, arXiv 2305.14314), or 16 as in a checkpoint.
//!
//! | file | contents |
//! | --- | --- |
//! | `apply` | [`quantize()`] and [`quantized_weight`]: weights packed in place |
//! | `narrow` | [`narrow`], [`half_weight`] and [`widen`]: weights in 16 bits, and back |
//! | `config` | [`QuantizeConfig`]: selection of the weights, and number of bits |
//! | `base_floats` | [`BaseFloats`]: float type of the other frozen weights |
//! | `kind` | [`Quantization`]: the number formats |
//! | `weight`, `half_kind` | [`PackedWeight`]: a packed weight on its parameter |
//! | `codec`, `half_words`, `collect` | packing of values, and the packed weights of a module |
//! | `pack` | the walk that puts packed weights on a module |
//! | `materialize` | a module with dense weights, or with parts of those that are too large |
//! | `report` | [`QuantizedModule`]: a layer with a packed weight, and its bytes before and after |

mod apply;
mod base_floats;
mod codec;
mod collect;
mod config;
mod half_kind;
mod half_words;
mod kind;
mod materialize;
mod narrow;
mod pack;
mod report;
mod weight;

pub(crate) use apply::take_packed;
pub use apply::{quantize, quantized_embedding, quantized_weight};
pub use base_floats::{BaseDType, BaseFloats};
pub(crate) use collect::packed_weights;
pub use config::QuantizeConfig;
pub use half_words::HalfValues;
pub use kind::Quantization;
pub(crate) use materialize::{materialized, weights_above_limit};
pub use narrow::{half_weight, narrow, tied_weight, widen};
pub use report::QuantizedModule;
pub(crate) use report::{quantized_modules, write_report};
pub use weight::PackedWeight;
