//! Generated text as it comes, piece by piece.

use super::{CausalModel, Generated, Generator};
use crate::ModelError;
use crate::tokenizer::Tokenizer;

/// Text of tokens that come one at a time.
///
/// A character may be split between tokens; it comes with the last of them. Special tokens have no text.
///
/// # Example
/// ```no_run
/// use lora_models::generate::TextStream;
/// use lora_models::tokenizer::Tokenizer;
///
/// # fn main() -> Result<(), lora_models::ModelError> {
/// let tokenizer = Tokenizer::from_dir("gpt2")?;
/// let mut stream = TextStream::new(&tokenizer);
/// let mut text = String::new();
/// for token in tokenizer.encode("naïve 🙂")? {
///     text += &stream.push(token)?;
/// }
/// text += &stream.finish()?;
/// assert_eq!(text, "naïve 🙂");
/// # Ok(())
/// # }
/// ```
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens that a piece is decoded with: those of the piece before, and those without text yet.
    tokens: Vec<u32>,
    /// Number of these tokens whose text has been returned.
    shown: usize,
}

/// Character in the place of bytes that are not UTF-8, or not yet.
const REPLACEMENT: char = '\u{fffd}';
/// Number of tokens after which bytes that do not become a character are shown as they are.
const MOST_WAITING: usize = 8;

impl<'a> TextStream<'a> {
    /// Creates a stream without text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            tokens: Vec::new(),
            shown: 0,
        }
    }

    /// Takes a token, and returns the text that is complete with it, which may be empty.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, token: u32) -> Result<String, ModelError> {
        self.tokens.push(token);
        let piece = self.piece()?;
        let waits = self.tokens.len() - self.shown < MOST_WAITING;
        if piece.is_empty() || (waits && piece.ends_with(REPLACEMENT)) {
            return Ok(String::new());
        }
        // A decoder treats the first token of a text otherwise than those that follow, so one piece stays.
        self.tokens.drain(..self.shown);
        self.shown = self.tokens.len();
        Ok(piece)
    }

    /// Returns the text that is left: bytes that did not become a character.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String, ModelError> {
        self.piece()
    }

    /// Decodes the tokens whose text has not been returned.
    fn piece(&self) -> Result<String, ModelError> {
        let all = self.tokenizer.decode(&self.tokens, true)?;
        let before = self.tokenizer.decode(&self.tokens[..self.shown], true)?;
        Ok(all.get(before.len()..).unwrap_or_default().to_string())
    }
}

impl<M: CausalModel> Generator<'_, M> {
    /// Generates a continuation of one prompt, and calls a function with each piece of its text as soon as it is there.
    ///
    /// The pieces together are the text, as [`Tokenizer::decode`] without special tokens gives it. Beam search is certain of its text
    /// at the end alone, and gives all pieces then.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and those of the tokenizer.
    pub fn stream(
        &mut self,
        prompt: &[u32],
        tokenizer: &Tokenizer,
        mut on_text: impl FnMut(&str),
    ) -> Result<Generated, ModelError> {
        let mut stream = TextStream::new(tokenizer);
        let mut failed = None;
        let prompts = [prompt.to_vec()];
        let generated = self.generate_with(&prompts, &mut |_, token| match stream.push(token) {
            Ok(piece) if piece.is_empty() => {}
            Ok(piece) => on_text(&piece),
            Err(error) => failed = failed.take().or(Some(error)),
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let rest = stream.finish()?;
        if !rest.is_empty() {
            on_text(&rest);
        }
        generated
            .into_iter()
            .next()
            .ok_or_else(|| ModelError::Generation {
                message: "the prompt has no continuation".into(),
            })
    }
}
