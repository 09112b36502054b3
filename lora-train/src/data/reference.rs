//! References of a prompt, grouped to evaluate generation.

use std::borrow::Cow;
use std::collections::HashMap;

use lora_models::chat::{Conversation, Message};

use super::record::{Content, Origin, Record};
use crate::error::TrainError;

/// Prompt with all its completions in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGroup {
    /// Prompt; of a conversation, the message before its answer.
    pub prompt: String,
    /// Conversation up to the answer, if the prompt is one.
    pub chat: Option<Conversation>,
    /// Text of the conversation, once the chat template has made it. Its special tokens are in it.
    pub rendered: Option<String>,
    /// Completions of the prompt, trimmed: the space before one only joins it to the prompt.
    pub references: Vec<String>,
    /// Id of the records, if they have one.
    pub id: Option<String>,
    /// Place of the prompt's first record.
    pub origin: Origin,
}

/// Groups records by prompt and id, in the order in which prompts first appear. They need not lie side by
/// side. The prompt of a conversation is all of it but its last message, which is the reference.
///
/// # Errors
/// [`TrainError::DataLine`] for a record without a prompt to generate from, and for a conversation that does not end with an answer.
pub fn group_references(records: &[Record]) -> Result<Vec<ReferenceGroup>, TrainError> {
    let mut groups: Vec<ReferenceGroup> = Vec::new();
    let mut positions: HashMap<(Cow<'_, str>, Option<&str>), usize> = HashMap::new();
    for record in records {
        let (key, prompt, chat, completion) = match &record.content {
            Content::PromptCompletion { prompt, completion } => {
                (Cow::from(prompt), prompt.clone(), None, completion.as_str())
            }
            Content::Chat(chat) => {
                let (asked, answer) = last_answer(chat).ok_or_else(|| {
                    record.origin.error(
                        "the conversation does not end with a text of the assistant after another message, so that it has no reference",
                    )
                })?;
                let prompt = asked.messages.last().and_then(Message::content);
                let prompt = prompt.unwrap_or_default().to_string();
                let key = Cow::from(format!("{asked:?}"));
                (key, prompt, Some(asked), answer)
            }
            _ => {
                return Err(record.origin.error(
                    "a text without a prompt has nothing to generate from; give records of `prompt` and \
                     `completion`",
                ));
            }
        };
        let position = *positions
            .entry((key, record.id.as_deref()))
            .or_insert(groups.len());
        let reference = completion.trim().to_string();
        match groups.get_mut(position) {
            Some(group) => group.references.push(reference),
            None => groups.push(ReferenceGroup {
                prompt,
                chat,
                rendered: None,
                references: vec![reference],
                id: record.id.clone(),
                origin: record.origin.clone(),
            }),
        }
    }
    Ok(groups)
}

/// Splits a conversation into what is asked and the text of the answer.
fn last_answer(chat: &Conversation) -> Option<(Conversation, &str)> {
    let (last, before) = chat.messages.split_last()?;
    let answer = last.content().filter(|_| last.is_of_assistant())?;
    (!before.is_empty()).then(|| (chat.first(before.len()), answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn record(prompt: &str, completion: &str, line: usize) -> Record {
        let origin = Origin::new(Path::new("valid.txt"), line);
        Record::prompt_completion(prompt, completion, origin)
    }

    #[test]
    fn records_of_one_prompt_become_one_group_in_order_of_first_appearance() {
        let records = [
            record("b ||", " first .", 1),
            record("a ||", " second .", 2),
            record("b ||", " third .", 3),
        ];
        let groups = group_references(&records).unwrap();
        let seen: Vec<_> = groups
            .iter()
            .map(|g| (g.prompt.as_str(), g.references.clone(), g.origin.line()))
            .collect();
        assert_eq!(
            seen,
            [
                ("b ||", vec!["first .".into(), "third .".into()], 1),
                ("a ||", vec!["second .".to_string()], 2),
            ]
        );
    }

    #[test]
    fn the_answer_of_a_conversation_is_its_reference() {
        let chat = |messages: &[(&str, &str)], line| {
            let messages = messages.iter();
            let messages = messages.map(|(role, content)| Message::new(*role, *content));
            let chat = Conversation::new(messages.collect::<Vec<_>>());
            let origin = Origin::new(Path::new("chat.jsonl"), line);
            Record::new(Content::Chat(chat), origin)
        };
        let records = [
            chat(&[("user", "a"), ("assistant", " b ")], 1),
            chat(&[("system", "s"), ("user", "a"), ("assistant", "c")], 2),
            chat(&[("user", "a"), ("assistant", "d")], 3),
        ];
        let groups = group_references(&records).unwrap();
        let seen: Vec<_> = groups
            .iter()
            .map(|g| (&*g.prompt, g.references.join(","), g.origin.line()))
            .collect();
        assert_eq!(seen, [("a", "b,d".into(), 1), ("a", "c".to_string(), 2)]);
        assert_eq!(groups[1].chat.as_ref().unwrap().messages.len(), 2);
        for unanswered in [&[("user", "a")][..], &[("assistant", "a")]] {
            let error = group_references(&[chat(unanswered, 7)]).unwrap_err();
            assert!(error.to_string().contains("chat.jsonl, line 7"), "{error}");
        }
    }

    #[test]
    fn a_text_is_refused_by_its_line() {
        let text = Record::text("a", Origin::new(Path::new("valid.txt"), 9));
        let error = group_references(&[record("a", "b", 8), text]).unwrap_err();
        assert!(error.to_string().contains("valid.txt, line 9"), "{error}");
    }
}
