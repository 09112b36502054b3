//! Length to which the examples of a batch are padded.

/// Padding of the examples in a batch to one length.
///
/// By default it is the length of the longest example. On a GPU each new length selects and compiles kernels, so that
/// lengths are rounded up there, as with transformers' `pad_to_multiple_of`. Padding is masked: no loss and no score
/// depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    id: u32,
    multiple: usize,
    max_length: usize,
}

impl From<u32> for Padding {
    /// Pads with this token, to the longest example.
    fn from(id: u32) -> Self {
        Self {
            id,
            multiple: 1,
            max_length: usize::MAX,
        }
    }
}

impl Padding {
    /// Rounds lengths up to a multiple of `multiple`, where that is at most `max_length`, and to `max_length` otherwise.
    ///
    /// # Examples
    /// ```
    /// use lora_train::data::Padding;
    ///
    /// let padding = Padding::from(0).to_multiple_of(64, 160);
    /// assert_eq!([1, 64, 65, 130].map(|longest| padding.length(longest)), [64, 64, 128, 160]);
    /// assert_eq!(Padding::from(0).length(65), 65);
    /// ```
    pub fn to_multiple_of(self, multiple: usize, max_length: usize) -> Self {
        Self {
            multiple: multiple.max(1),
            max_length,
            ..self
        }
    }

    /// Returns the token of the padding.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns the length of a batch whose longest example has this length.
    pub fn length(&self, longest: usize) -> usize {
        let rounded = longest.checked_next_multiple_of(self.multiple);
        rounded.unwrap_or(longest).min(self.max_length).max(longest)
    }
}
