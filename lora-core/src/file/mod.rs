//! Adapter files, to and from Python's PEFT: a directory with `adapter_config.json` and `adapter_model.safetensors`.
//!
//! [`AdapterDir`] opens a directory; [`StoredAdapter`] is an adapter as its files hold it, without a model; [`load`] and
//! [`save`] move it from a directory to the parameters of a module and back.
//!
//! | file | contents |
//! | --- | --- |
//! | `dir` | [`AdapterDir`]: configuration, kind, other files of the directory, and lazy tensors |
//! | `config` | `adapter_config.json`, read strictly or leniently, and written |
//! | `names`, `spellings` | PEFT's names of tensors, and other spellings of them |
//! | `tensors`, `notes` | lazy tensors by PEFT's names, notes of this crate |
//! | `container`, `header`, `pickle` | the file: safetensors with its header, or a pickle of `torch.save`, which is never executed |
//! | `adapter` | [`StoredAdapter`] |
//! | `read`, `write` | tensors ⇄ [`StoredAdapter`] |
//! | `companions` | files beside an adapter that PEFT has no place for |
//! | `base_weights` | [`BaseWeight`]: embeddings that a file brings for the base |
//! | `expected` | tensors that a file must have for a module |
//! | `load`, `extract` | [`StoredAdapter`] ⇄ parameters of a module |
//! | `saved` | fully trained parameters from files of any format |
//! | `misplaced` | what is at a path that is given in the place of an adapter |
//! | `coverage`, `compare` | check that configuration and tensors belong together; differences of updates |
//! | `directions` | singular directions of updates, and the parts of those on fused projections |
//!
//! PEFT ignores a tensor that is missing, left over or misspelt, and the adapter then has no effect. Here other spellings are
//! read, and a tensor that is missing or left over is an error that names it.
//!
//! | in the file | here |
//! | --- | --- |
//! | `base_model.model.{module}.lora_A.weight` `[r, d_in]` | `A` `[d_in, r]` |
//! | `base_model.model.{module}.lora_B.weight` `[d_out, r]` | `B` `[r, d_out]` |
//! | `base_model.model.{module}.lora_embedding_A` `[r, vocabulary]` | `A` `[vocabulary, r]` |
//! | `base_model.model.{module}.lora_embedding_B` `[dimension, r]` | `B` `[r, dimension]` |
//! | `base_model.model.{module}.lora_magnitude_vector` `[d_out]` | DoRA's magnitude |
//! | `base_model.model.{module}.lora_B.bias` `[d_out]` | [`LoraBias`](crate::LoraBias) |
//! | `base_model.model.{module}.base_layer.bias` | a bias of an adapted layer, with `bias` |
//! | `base_model.model.{parameter}` | a fully trained parameter: `modules_to_save`, `bias="all"` |
//! | `base_model.model.{embedding}.token_adapter.trainable_tokens_delta` `[tokens, dimension]` | trained rows of single tokens |
//! | `base_model.model.{embedding}.weight`, also in `base_layer` or `original_module` | an embedding that the file brings for the base |
//!
//! An adapter on slices of a fused projection is written as an ordinary adapter of rank `slices · r` with a block-shaped `B`.
//! The file's metadata, which PEFT ignores, names the slices and has the fingerprint of the base
//! ([`BaseFingerprint`](crate::BaseFingerprint)).
//!
//! # Fields of PEFT's `LoraConfig`
//! The fields of PEFT 0.21.2. A refused field is accepted if it is off: null, false or empty.
//!
//! | field | here |
//! | --- | --- |
//! | `peft_type` | `LORA`; `PREFIX_TUNING` by [`lora-models`](https://docs.rs/lora-models), on GPT-2; all others are refused |
//! | `r`, `lora_alpha`, `lora_dropout`, `use_rslora` | supported |
//! | `rank_pattern`, `alpha_pattern` | supported; an entry that matches nothing is an error |
//! | `target_modules` | supported: names, regular expression, `all-linear`; every name must match |
//! | `exclude_modules`, `layers_to_transform`, `layers_pattern` | supported |
//! | `modules_to_save`, `ensure_weight_tying` | supported; an end of a tied pair that is not saved keeps the matrix of the base |
//! | `trainable_token_indices` | supported, on embeddings and untied output layers without an adapter of their own |
//! | `bias` | supported: `none`, `all`, `lora_only` |
//! | `lora_bias` | supported on layers that have a bias of their own |
//! | `use_dora` | supported, on linear layers and embeddings |
//! | `init_lora_weights` | supported: `true`, `false`, `gaussian`, `orthogonal`, `pissa`, `pissa_niter_N`, `olora`. Adapters that start at the weight are written as their difference from it, for the original base. PEFT's unconverted `pissa` and `olora` files are read; unconverted `pissa_niter_N` files are refused, because the part that PEFT subtracted from the base is random and not in the file. `eva` and `mica` are read, since they do not change the base; `corda`, `loftq`, `lora_ga` and others are refused, because they change it |
//! | `target_parameters` | refused: every weight of these models belongs to a module, which `target_modules` names |
//! | `layer_replication` | refused: it changes the model |
//! | `alora_invocation_tokens`, `use_qalora`, `use_bdlora`, `arrow_config`, `kasa_config`, `lora_ga_config` | refused: other arithmetic |
//! | `monteclora_config`, `velora_config` | read: they change the training alone, and their tensors are left out; training goes on as that of plain LoRA |
//! | `megatron_config` | refused |
//! | `task_type`, `base_model_name_or_path` | read and written; a [`LoraModel`](https://docs.rs/lora-models) writes its own task |
//! | `fan_in_fan_out` | written for the model's layers; no effect when read, since the factors are the same either way |
//! | `auto_mapping`, `corda_config`, `eva_config`, `inference_mode`, `loftq_config`, `megatron_core`, `peft_version`, `qalora_group_size`, `revision`, `runtime_config` | no effect on an existing adapter |

mod adapter;
mod base_weights;
mod companions;
mod compare;
mod config;
mod container;
mod coverage;
mod dir;
mod directions;
mod expected;
mod extract;
mod header;
mod load;
mod misplaced;
mod names;
mod notes;
mod pickle;
mod read;
mod saved;
mod spellings;
mod tensors;
mod write;

pub use crate::config::ModulePatterns;
pub use adapter::{StoredAdapter, StoredFactors, StoredTensor, transpose};
pub use base_weights::BaseWeight;
pub(crate) use companions::is_of_tokenizer;
pub use companions::{TOKENIZER_FILES, TOKENIZER_LIMIT};
pub use compare::UpdateDifference;
pub use config::{AdapterKind, CONFIG_FILE, ConfigFile, PeftOptions, is_off, read_config};
pub(crate) use coverage::is_embedding;
pub use coverage::{Unmatched, unmatched};
pub use dir::AdapterDir;
pub(crate) use expected::Parts;
pub(crate) use extract::stored;
pub use extract::{extract, save};
pub use header::{MAX_HEADER_BYTES, MAX_TENSORS, read_header};
pub use load::{load, switch};
pub use names::{PREFIX, TensorRole, split_name};
pub use pickle::PickledTensors;
pub use saved::attach_saved;
pub use spellings::{PeftNames, peft_names, without_container, without_wrappers};
pub use tensors::{AdapterTensors, PICKLED_FILE, WEIGHTS_FILE};
