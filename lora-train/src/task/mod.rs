//! Tasks: a model with its loss and its scores.
//!
//! | file | contents |
//! | --- | --- |
//! | `causal_lm` | [`CausalLmTask`]: next tokens |
//! | `classify` | [`Classify`]: classes, scores, classes of words |
//! | `generation`, `scores` | generated texts; their scores |
//! | `name` | [`TaskName`]: names on the command line |

mod causal_lm;
mod classify;
mod generation;
mod name;
mod scores;

pub use causal_lm::{CausalLmTask, TokenScores};
pub use classify::Classify;
pub(crate) use generation::encode_prompts;
pub use generation::{GeneratedText, generate_texts};
pub use name::TaskName;
pub use scores::{TextScores, score_texts};
