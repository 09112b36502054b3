//! Upload of an adapter to the Hugging Face Hub.

use crate::TrainError;
use crate::progress::Screen;
use clap::Args;
use lora_models::hub::{self, HubOptions, Pushed};
use std::path::PathBuf;

/// Options of `lora push`.
#[derive(Args, Clone, Debug)]
pub struct PushOptions {
    /// Directory of the adapter.
    #[arg(value_name = "DIR")]
    pub adapter: PathBuf,
    /// Repository: `account/name`, or a name for the account of the token. It is created if it is missing.
    #[arg(value_name = "REPOSITORY")]
    pub repository: String,
    /// Create a private repository, if it is missing; one that exists must be private.
    #[arg(long)]
    pub private: bool,
    /// Base model in the configuration that is sent: its name on the Hub, where the adapter has a path [default: the adapter's].
    #[arg(long, value_name = "NAME")]
    pub base_model: Option<String>,
    /// Branch to commit to, created if it is missing [default: main].
    #[arg(long, value_name = "BRANCH")]
    pub revision: Option<String>,
    /// Message of the commit [default: Upload adapter].
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Print the result as one JSON object on the last line.
    #[arg(long)]
    pub json: bool,
}

/// Uploads an adapter as one commit: its configuration, tensors, card and tokenizer, and nothing else.
///
/// # Errors
/// As [`hub::push`].
pub fn push(options: &PushOptions, screen: &Screen) -> Result<Pushed, TrainError> {
    let push = hub::PushOptions {
        private: options.private,
        base_model: options.base_model.clone(),
        revision: options.revision.clone(),
        message: options.message.clone(),
    };
    let mut show = |file: &str, done: u64, all: u64| {
        if done == all {
            screen.line(&format!("uploaded  {file}, {all} bytes"));
        }
    };
    let hub = HubOptions::from_env();
    let pushed = hub::push(
        &options.adapter,
        &options.repository,
        &push,
        &hub,
        &mut show,
    )?;
    for file in &pushed.unchanged {
        screen.line(&format!("unchanged {file}"));
    }
    for file in &pushed.ignored {
        screen.line(&format!(
            "ignored   {file}, which the repository's .gitignore names"
        ));
    }
    Ok(pushed)
}
