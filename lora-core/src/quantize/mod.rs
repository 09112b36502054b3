//! Frozen weights in 4 or 8 bits: QLoRA (Dettmers et al. 2023, arXiv 2305.14314).
//!
//! | file | contents |
//! | --- | --- |
//! | `apply` | [`quantize()`] and [`quantized_weight`]: weights packed in place |
//! | `config` | [`QuantizeConfig`]: selection of the weights, and number of bits |
//! | `kind` | [`Quantization`]: the number formats |
//! | `weight` | [`PackedWeight`]: a packed weight on its parameter |
//! | `codec`, `collect` | packing of values, and the packed weights of a module |
//! | `report` | [`QuantizedModule`]: a quantized layer, and its bytes before and after |

mod apply;
mod codec;
mod collect;
mod config;
mod kind;
mod report;
mod weight;

pub(crate) use apply::take_packed;
pub use apply::{quantize, quantized_weight};
pub(crate) use collect::packed_weights;
pub use config::QuantizeConfig;
pub use kind::Quantization;
pub use report::QuantizedModule;
pub(crate) use report::{quantized_modules, write_report};
pub use weight::PackedWeight;
