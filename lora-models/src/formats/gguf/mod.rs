//! Files of llama.cpp and programs on top of it, such as Ollama: [GGUF](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
//!
//! - [`write()`]: an adapter, beside a base in GGUF
//! - [`export_model`]: a model with its tokenizer, [`check_model`] before its weights are read, and [`read_model`], which checks what was written
//!
//! | concept | file |
//! | --- | --- |
//! | adapters | `adapter.rs` |
//! | models: sizes and options, tensors, tokenizer | `model.rs`, `vocabulary.rs` |
//! | names of llama.cpp, and the order of features in heads | `names.rs` |
//! | element types | `element.rs` |
//! | the container, written and read | `file.rs`, `reader.rs` |

mod adapter;
mod element;
mod file;
mod model;
mod names;
mod reader;
mod vocabulary;

pub use adapter::{ADAPTER_FILE, MODELFILE, write};
pub use element::ElementType;
pub use model::{MODEL_FILE, check_model, export_model, read_model};

/// Name of the program in messages.
const PROGRAM: &str = "llama.cpp";
