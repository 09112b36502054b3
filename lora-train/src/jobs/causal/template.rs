//! Chat template of a command, and the options that go with conversations.

use crate::TrainError;
use crate::data::{DataFormat, ReferenceGroup};
use crate::jobs::session::Base;
use crate::options::{ReadingOptions, TemplateVariables};
use lora_models::chat::ChatTemplate;
use std::path::Path;

/// Returns the chat template of a command: that of its options, or else the one that comes with the adapter or the model.
///
/// # Errors
/// [`TrainError::Config`] without any, and the errors of reading it.
pub(super) fn chat_template(
    base: &Base,
    given: Option<&Path>,
    variables: Option<&TemplateVariables>,
) -> Result<ChatTemplate, TrainError> {
    let template = match given {
        Some(path) => Some(ChatTemplate::from_file(path)?),
        None => ChatTemplate::from_dir(base.template_dir())?,
    };
    let template = template.ok_or_else(|| {
        let message = format!(
            "is missing: {} has neither chat_template.jinja nor `chat_template` in tokenizer_config.json, so that conversations have no \
             text; give a template, such as that of the model's tuned variant",
            base.dir.display()
        );
        TrainError::config("chat_template", message)
    })?;
    let template = template.with_tokens_of(&base.tokenizer);
    Ok(match variables {
        Some(variables) => template.with_variables(variables.0.clone()),
        None => template,
    })
}

/// Makes the texts of prompts that are conversations.
///
/// # Errors
/// As [`chat_template`]; [`TrainError::DataLine`] for a conversation that the template refuses.
pub(super) fn render_prompts(
    groups: &mut [ReferenceGroup],
    base: &Base,
    reading: &ReadingOptions,
) -> Result<(), TrainError> {
    if groups.iter().all(|group| group.chat.is_none()) {
        return Ok(());
    }
    let (given, variables) = (&reading.chat_template, &reading.chat_template_kwargs);
    let template = chat_template(base, given.as_deref(), variables.as_ref())?;
    for group in groups {
        if let Some(chat) = &group.chat {
            let text = template.prompt(chat);
            group.rendered = Some(text.map_err(|error| group.origin.error(error.to_string()))?);
        }
    }
    Ok(())
}

/// Refuses options that do not go with conversations, or only with them.
pub(super) fn check_chat(reading: &ReadingOptions, format: DataFormat) -> Result<(), TrainError> {
    let (options, reason): (&[(&str, bool)], _) = if format.is_chat() {
        (
            &[
                ("loss_on_prompt", reading.loss_on_prompt),
                ("no_eos", reading.no_eos),
                ("concatenate", reading.concatenate),
            ],
            "is for texts, and the data has conversations, whose text and end are made by the chat template; `train_on` all learns the \
             whole",
        )
    } else {
        (
            &[
                ("train_on", reading.train_on.is_some()),
                ("chat_template", reading.chat_template.is_some()),
                (
                    "chat_template_kwargs",
                    reading.chat_template_kwargs.is_some(),
                ),
            ],
            "is for conversations (`messages`, ShareGPT, Alpaca), and the data has none",
        )
    };
    match options.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(TrainError::config(*option, reason)),
        None => Ok(()),
    }
}
