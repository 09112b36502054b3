//! Parts of a rendered conversation that a model learns.

use super::conversation::Conversation;
use super::rendered::Rendered;
use super::template::ChatTemplate;
use crate::error::ModelError;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Turns of a conversation that a model learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOn {
    /// The whole conversation.
    All,
    /// Every turn of the assistant.
    #[default]
    Assistant,
    /// The assistant's last turn.
    Last,
}

impl ChatTemplate {
    /// Renders a conversation, with the parts that a model learns.
    ///
    /// Where the template names what the assistant has generated (`{% generation %}`), these are the parts, as in transformers
    /// and TRL. Otherwise a turn is what the conversation up to it has more than the prompt for it. Both must be beginnings of
    /// the whole, apart from a token that ends every text.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] if the template refuses the conversation, fails or exceeds its limits, and if it renders a
    /// turn otherwise at the end of a conversation than in its middle, as Qwen3 does with thoughts.
    pub fn render(&self, chat: &Conversation, train_on: TrainOn) -> Result<Rendered, ModelError> {
        if train_on == TrainOn::All {
            let text = self.text(chat, false)?;
            let learned = std::iter::once(0..text.len()).collect();
            return Ok(Rendered { text, learned });
        }
        let last = chat.turns_of_assistant().next_back();
        if self.has_generation(chat) {
            let mut rendered = self.marked(chat)?;
            if let (TrainOn::Last, Some(last @ 1..)) = (train_on, last) {
                let before = self.marked(&chat.first(last))?.learned.len();
                rendered.learned.drain(..before.min(rendered.learned.len()));
            }
            return Ok(rendered);
        }
        let text = self.text(chat, false)?;
        let mut learned: Vec<Range<usize>> = Vec::new();
        for turn in chat.turns_of_assistant() {
            if train_on == TrainOn::Last && Some(turn) != last {
                continue;
            }
            learned.push(self.span_by_prefixes(chat, &text, turn)?);
        }
        Ok(Rendered { text, learned })
    }

    /// Finds a turn of the assistant in the text of the whole conversation.
    fn span_by_prefixes(
        &self,
        chat: &Conversation,
        text: &str,
        turn: usize,
    ) -> Result<Range<usize>, ModelError> {
        let prompt = self.prompt(&chat.first(turn))?;
        if !text.starts_with(&prompt) {
            let what = format!("the prompt for messages[{turn}]");
            return Err(self.other_beginning(chat, &what, &prompt, text));
        }
        if turn + 1 == chat.messages.len() {
            return Ok(prompt.len()..text.len());
        }
        let upto = self.text(&chat.first(turn + 1), false)?;
        // Phi-3 ends every text, but no turn, with its end-of-text token.
        let ends = self.variable("eos_token").filter(|eos| !eos.is_empty());
        let without_end = ends.and_then(|eos| upto.strip_suffix(eos));
        let end = [Some(upto.as_str()), without_end].into_iter().flatten();
        let mut end = end.filter(|upto| text.starts_with(upto) && upto.len() >= prompt.len());
        match end.next() {
            Some(upto) => Ok(prompt.len()..upto.len()),
            None => {
                let what = format!("the conversation up to messages[{turn}]");
                Err(self.other_beginning(chat, &what, &upto, text))
            }
        }
    }

    fn other_beginning(
        &self,
        chat: &Conversation,
        what: &str,
        part: &str,
        whole: &str,
    ) -> ModelError {
        const SHOWN: usize = 40;
        let pairs = part.char_indices().zip(whole.chars());
        let same = pairs.take_while(|((_, a), b)| a == b).last();
        let at = same.map_or(0, |((at, c), _)| at + c.len_utf8());
        let shown = |text: &str| -> String { text[at..].chars().take(SHOWN).collect() };
        let message = format!(
            "it renders {what} otherwise than in the whole conversation ({:?} there, {:?} in the whole), so that the learned part \
             is not known; learn the last turn alone (`--train-on last`), or all (`--train-on all`), or give a template that \
             names the assistant's turns by {{% generation %}} (`--chat-template`)",
            shown(part),
            shown(whole)
        );
        self.error(chat, message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conversation::Message;
    use super::*;

    fn chat(messages: &[(&str, &str)]) -> Conversation {
        let messages = messages.iter();
        let messages: Vec<Message> = messages
            .map(|(role, content)| Message::new(*role, *content))
            .collect();
        Conversation::new(messages)
    }

    fn two_turns() -> Conversation {
        chat(&[
            ("user", "ä?"),
            ("assistant", "a"),
            ("user", "b?"),
            ("assistant", "b"),
        ])
    }

    fn learned(source: &str, chat: &Conversation, train_on: TrainOn) -> Vec<String> {
        let template = ChatTemplate::from_source("t.jinja", source).unwrap();
        let mut eos = serde_json::Map::new();
        eos.insert("eos_token".into(), "$".into());
        let template = template.with_variables(eos);
        let rendered = template.render(chat, train_on).unwrap();
        let parts = rendered.learned.into_iter();
        parts.map(|part| rendered.text[part].to_string()).collect()
    }

    const PLAIN: &str = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}\
                         {% if add_generation_prompt %}a:{% endif %}";

    #[test]
    fn turns_are_found_by_prefixes() {
        assert_eq!(
            learned(PLAIN, &two_turns(), TrainOn::Assistant),
            ["a;", "b;"]
        );
        assert_eq!(learned(PLAIN, &two_turns(), TrainOn::Last), ["b;"]);
        let all = learned(PLAIN, &two_turns(), TrainOn::All);
        assert_eq!(all, ["u:ä?;a:a;u:b?;a:b;"]);
    }

    #[test]
    fn a_token_that_ends_every_text_is_learned_at_the_end_alone() {
        let source =
            format!("{PLAIN}{{% if not add_generation_prompt %}}{{{{ eos_token }}}}{{% endif %}}");
        assert_eq!(
            learned(&source, &two_turns(), TrainOn::Assistant),
            ["a;", "b;$"]
        );
    }

    #[test]
    fn turns_are_named_by_the_template() {
        let source = "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' %}\
                      {% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %};{% endfor %}";
        assert_eq!(
            learned(source, &two_turns(), TrainOn::Assistant),
            ["a", "b"]
        );
        assert_eq!(learned(source, &two_turns(), TrainOn::Last), ["b"]);
        // A block sees the variables around it, and changes those of a namespace.
        let source = "{% set ns = namespace(n=0) %}{% for m in messages %}{% set own = 'x' %}{% if m.role == 'assistant' %}\
                      {% generation %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.content %}{{ own }}{{ ns.n }}{% endgeneration %}\
                      {% endif %}{% endfor %}{{ ns.n }}{{ ns.last }}";
        assert_eq!(
            learned(source, &two_turns(), TrainOn::Assistant),
            ["x1", "x2"]
        );
        let template = ChatTemplate::from_source("t", source).unwrap();
        assert_eq!(template.prompt(&two_turns()).unwrap(), "x1x22b");
    }

    /// Qwen3 leaves the thoughts of earlier turns out.
    #[test]
    fn a_turn_that_is_rendered_otherwise_in_the_middle_is_an_error() {
        let source = "{% for m in messages %}{{ m.role[0] }}:{% if loop.last and m.role == 'assistant' %}<think>{% endif %}\
                      {{ m.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}";
        let template = ChatTemplate::from_source("t.jinja", source).unwrap();
        let error = template
            .render(&two_turns(), TrainOn::Assistant)
            .unwrap_err();
        let message = error.to_string();
        assert!(message.contains("t.jinja"), "{message}");
        assert!(message.contains("up to messages[1] otherwise"), "{message}");
        assert!(
            message.contains("\"<think>a;\" there, \"a;u:b?;a:<think>b;\""),
            "{message}"
        );
        assert_eq!(learned(source, &two_turns(), TrainOn::Last), ["<think>b;"]);
    }

    /// A user may write what the marks are written with.
    #[test]
    fn marks_are_none_of_the_characters_of_the_conversation() {
        let source =
            "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}";
        let own = chat(&[("user", "\u{fdd0}a\u{fdd1}"), ("assistant", "b")]);
        let found = learned(source, &own, TrainOn::Assistant);
        assert_eq!(found, ["\u{fdd0}a\u{fdd1}", "b"]);
    }
}
