//! Tasks: a model with its loss and its scores.

mod causal_lm;
mod classify;
mod generation;
mod name;

pub use causal_lm::{CausalLmTask, TokenScores};
pub use classify::Classify;
pub use generation::{GeneratedText, generate_texts, score_texts};
pub use name::TaskName;
