//! Upload of an adapter to the Hugging Face Hub.

use crate::TrainError;
use crate::progress::Screen;
use clap::Args;
use lora_models::hub::{self, HubOptions};
use serde::Serialize;
use std::fmt;
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
    /// Create a private repository, if it is missing.
    #[arg(long)]
    pub private: bool,
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

/// Result of `lora push`. With `--json` it is one object with these fields as keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// Address of the repository, or of its branch.
    pub url: String,
    /// Names of the files in the commit.
    pub files: Vec<String>,
}

/// Uploads an adapter as one commit: its configuration, tensors, card and tokenizer, and nothing else.
///
/// # Errors
/// As [`hub::push`].
pub fn push(options: &PushOptions, screen: &Screen) -> Result<Pushed, TrainError> {
    let push = hub::PushOptions {
        private: options.private,
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
    Ok(Pushed {
        url: pushed.url,
        files: pushed.files,
    })
}

impl fmt::Display for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.url)
    }
}
