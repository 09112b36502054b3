//! Text of a conversation, with the parts that a model learns.

use std::ops::Range;

/// Text of a conversation, with the parts of it that a model learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Text that the model reads. Its special tokens are in it: it is encoded without further ones.
    pub text: String,
    /// Learned parts in their order, in bytes.
    pub learned: Vec<Range<usize>>,
}

impl Rendered {
    /// Takes the marks of what is learned out of a text; `None` if they do not come in pairs.
    pub(super) fn without_marks(marked: &str, [open, close]: [char; 2]) -> Option<Self> {
        let mut text = String::with_capacity(marked.len());
        let (mut learned, mut start) = (Vec::new(), None);
        for part in marked.split_inclusive([open, close]) {
            let mut kept = part;
            let mut mark = None;
            if let Some(last) = part
                .chars()
                .next_back()
                .filter(|c| [open, close].contains(c))
            {
                kept = &part[..part.len() - last.len_utf8()];
                mark = Some(last);
            }
            text.push_str(kept);
            match (mark, start) {
                (Some(mark), None) if mark == open => start = Some(text.len()),
                (Some(mark), Some(from)) if mark == close => {
                    learned.push(from..text.len());
                    start = None;
                }
                (None, _) => {}
                _ => return None,
            }
        }
        start.is_none().then_some(Self { text, learned })
    }
}
