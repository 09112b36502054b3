//! Input of `lora chat`: messages of one or several lines, and commands.

use crate::TrainError;

/// Begins and ends a message of several lines.
const QUOTES: &str = "\"\"\"";

/// Help on what to type.
pub(super) const HELP: &str = "a message is a line; it goes on with the next line after a \\ at its end, and between lines of \"\"\"\n  \
     /adapter NAME  use another adapter, `none` for the model alone; without a name: list them\n  \
     /reset         begin a new conversation\n  \
     /exit          leave, as the end of the input does";

/// Message or command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Message to the model.
    Message(String),
    /// Choice of an adapter; without a name, a list of them.
    Adapter(Option<String>),
    /// A new conversation.
    Reset,
    /// Request for the list of commands.
    Help,
    /// The end.
    Exit,
    /// A command that there is not.
    Unknown(String),
}

/// Reads the next message or command; `None` at the end of the input. `next` returns a line without its end, and is told whether the
/// line goes on with a message.
///
/// # Errors
/// Those of `next`.
pub(super) fn read_input(
    next: &mut dyn FnMut(bool) -> Result<Option<String>, TrainError>,
) -> Result<Option<Input>, TrainError> {
    loop {
        let Some(first) = next(false)? else {
            return Ok(None);
        };
        if first.trim().is_empty() {
            continue;
        }
        if let Some(command) = first
            .strip_prefix('/')
            .filter(|rest| !rest.starts_with('/'))
        {
            return Ok(Some(command_of(command)));
        }
        // `//` begins a message with a stroke.
        let first = first
            .strip_prefix("//")
            .map_or_else(|| first.clone(), |rest| format!("/{rest}"));
        return Ok(Some(Input::Message(message(first, next)?)));
    }
}

/// Reads the rest of a message.
fn message(
    first: String,
    next: &mut dyn FnMut(bool) -> Result<Option<String>, TrainError>,
) -> Result<String, TrainError> {
    if let Some(rest) = first.trim_start().strip_prefix(QUOTES) {
        let mut lines = Vec::new();
        let mut line = Some(rest.to_string()).filter(|rest| !rest.is_empty());
        loop {
            if let Some(text) = line {
                if let Some(last) = text.trim_end().strip_suffix(QUOTES) {
                    lines.extend(Some(last.to_string()).filter(|last| !last.is_empty()));
                    break;
                }
                lines.push(text);
            }
            line = match next(true)? {
                None => break,
                line => line,
            };
        }
        return Ok(lines.join("\n"));
    }
    let mut text = String::new();
    let mut line = first;
    while let Some(part) = line.strip_suffix('\\') {
        text.push_str(part);
        text.push('\n');
        match next(true)? {
            Some(more) => line = more,
            None => return Ok(text.trim_end().to_string()),
        }
    }
    Ok(text + &line)
}

fn command_of(command: &str) -> Input {
    let (name, rest) = command
        .split_once(char::is_whitespace)
        .unwrap_or((command, ""));
    let rest = Some(rest.trim().to_string()).filter(|rest| !rest.is_empty());
    match (name, rest) {
        ("adapter", name) => Input::Adapter(name),
        ("reset" | "clear", None) => Input::Reset,
        ("help" | "?", None) => Input::Help,
        ("exit" | "quit" | "bye", None) => Input::Exit,
        _ => Input::Unknown(format!("/{command}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(text: &str) -> Vec<Input> {
        let mut lines = text.lines();
        let mut next = |_| Ok(lines.next().map(String::from));
        std::iter::from_fn(|| read_input(&mut next).unwrap()).collect()
    }

    fn message(text: &str) -> Input {
        Input::Message(text.into())
    }

    #[test]
    fn a_message_is_a_line_or_several() {
        let text = "Hi there\n\n  \na\\\nb\\\n c\n\"\"\"x\n/reset\n\n y\"\"\"\n\"\"\"\none\n\"\"\"\n\"\"\"two\"\"\"\n//a\n";
        let expected = [
            message("Hi there"),
            message("a\nb\n c"),
            message("x\n/reset\n\n y"),
            message("one"),
            message("two"),
            message("/a"),
        ];
        assert_eq!(inputs(text), expected);
    }

    #[test]
    fn a_message_ends_with_the_input() {
        assert_eq!(inputs("\"\"\"a\nb"), [message("a\nb")]);
        assert_eq!(inputs("a\\"), [message("a")]);
    }

    #[test]
    fn commands_begin_with_a_stroke() {
        let text = "/adapter  de \n/adapter\n/reset\n/exit\n/help\n/rest\n/reset now\n";
        let expected = [
            Input::Adapter(Some("de".into())),
            Input::Adapter(None),
            Input::Reset,
            Input::Exit,
            Input::Help,
            Input::Unknown("/rest".into()),
            Input::Unknown("/reset now".into()),
        ];
        assert_eq!(inputs(text), expected);
    }
}
