//! What is learned: a model, its loss and how it is judged.

mod causal_lm;
mod classify;
mod generation;
mod name;

pub use causal_lm::{CausalLm, TokenScores};
pub use classify::Classify;
pub use generation::{GeneratedText, generate_texts, score_texts};
pub use name::TaskName;
