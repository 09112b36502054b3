//! What is learned: a model, its loss and how it is judged.

mod causal_lm;
mod generation;

pub use causal_lm::{CausalLm, TokenScores};
pub use generation::{GeneratedText, generate_texts, score_texts};
