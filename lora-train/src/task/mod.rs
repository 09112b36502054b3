//! Tasks: a model with its loss and its scores.
//!
//! | file | contents |
//! | --- | --- |
//! | `causal_lm` | [`CausalLmTask`]: next tokens |
//! | `classify` | [`Classify`]: classes, scores, classes of words |
//! | `generation` | generated texts and their scores |
//! | `name` | [`TaskName`]: names on the command line |

mod causal_lm;
mod classify;
mod generation;
mod name;

pub use causal_lm::{CausalLmTask, TokenScores};
pub use classify::Classify;
pub use generation::{GeneratedText, generate_texts, score_texts};
pub use name::TaskName;
