//! Templates in a model directory.

use super::limits::MAX_SOURCE;
use crate::checkpoint::bounded::read_json;
use crate::error::ModelError;
use lora_core::file::TOKENIZER_LIMIT;
use lora_core::files::{Directory, DirectoryFile};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// File with the template.
const TEMPLATE_FILE: &str = "chat_template.jinja";
/// File with the template for conversations with tools, beside [`TEMPLATE_FILE`].
const TOOL_FILE: &str = "additional_chat_templates/tool_use.jinja";
/// Files of chat templates in the directory of a model.
pub const TEMPLATE_FILES: [&str; 2] = [TEMPLATE_FILE, TOOL_FILE];
/// File with the settings of the tokenizer, where the template was in earlier years.
const SETTINGS_FILE: &str = "tokenizer_config.json";
/// Key of the template in the settings.
const KEY: &str = "chat_template";
/// Name of the template for conversations without tools.
const DEFAULT: &str = "default";
/// Name of the template for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// Source of a template.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Place of the source, for messages.
    pub(super) place: PathBuf,
    /// The source.
    pub(super) text: String,
}

/// Templates of a directory.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    /// Template for conversations without tools, and for all if there is no other.
    pub(super) default: Source,
    /// Template for conversations with tools.
    pub(super) tool_use: Option<Source>,
}

/// Template, or templates, of the settings.
#[derive(Deserialize)]
#[serde(untagged)]
enum InSettings {
    One(String),
    Several(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

#[derive(Default, Deserialize)]
struct Settings {
    chat_template: Option<InSettings>,
}

impl Sources {
    /// Reads the templates of a directory as transformers does: `chat_template.jinja`, else the key of `tokenizer_config.json`;
    /// `None` without either.
    pub(super) fn read(dir: &Directory) -> Result<Option<Self>, ModelError> {
        let file = dir.file(TEMPLATE_FILE);
        if file.exists() {
            let tools = dir.file(TOOL_FILE);
            let tools = tools.exists().then(|| source(&tools)).transpose()?;
            return Ok(Some(Self {
                default: source(&file)?,
                tool_use: tools,
            }));
        }
        let file = dir.file(SETTINGS_FILE);
        if !file.exists() {
            return Ok(None);
        }
        let settings: Settings = read_json(&file, TOKENIZER_LIMIT)?;
        let Some(templates) = settings.chat_template else {
            return Ok(None);
        };
        let place = |name: &str| PathBuf::from(format!("{} ({name})", file.path().display()));
        let mut named = match templates {
            InSettings::One(text) => {
                let place = place(KEY);
                return Ok(Some(Self::one(Source { place, text })));
            }
            InSettings::Several(named) => named,
        };
        let mut take = |name: &str| {
            let at = named.iter().position(|named| named.name == name)?;
            Some(Source {
                place: place(&format!("{KEY}, `{name}`")),
                text: named.swap_remove(at).template,
            })
        };
        let (default, tool_use) = (take(DEFAULT), take(TOOL_USE));
        match default {
            Some(default) => Ok(Some(Self { default, tool_use })),
            None => {
                let names: Vec<String> =
                    named.iter().map(|one| format!("`{}`", one.name)).collect();
                let message = format!(
                    "the list has no template `{DEFAULT}`, but {}; give the one to use as a file",
                    names.join(", ")
                );
                Err(ModelError::chat_template(&place(KEY), message))
            }
        }
    }

    /// Creates the templates of a single one, for conversations with and without tools.
    pub(super) fn one(default: Source) -> Self {
        Self {
            default,
            tool_use: None,
        }
    }
}

/// Returns the source of the template for conversations without tools in a directory; `None` without one.
pub(crate) fn default_source(dir: &Directory) -> Result<Option<String>, ModelError> {
    Ok(Sources::read(dir)?.map(|sources| sources.default.text))
}

/// Reads a file with a template.
pub(super) fn read_file(path: &Path) -> Result<Source, ModelError> {
    let bytes = lora_core::files::read_bounded(path, MAX_SOURCE).map_err(ModelError::of_file)?;
    utf8(path, bytes)
}

fn source(file: &DirectoryFile) -> Result<Source, ModelError> {
    let bytes = file.read(MAX_SOURCE).map_err(ModelError::of_file)?;
    utf8(file.path(), bytes)
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<Source, ModelError> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source {
            place: path.into(),
            text,
        }),
        Err(_) => Err(ModelError::chat_template(path, "it is not UTF-8")),
    }
}
