//! Roles of special tokens, and one value for each role.

use std::ops::{Index, IndexMut};

/// Role of a special token, in the order in which `transformers` goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Begins a text.
    Bos,
    /// Ends a text.
    Eos,
    /// Stands for what has no token.
    Unk,
    /// Ends a text, and stands between two.
    Sep,
    /// Fills up short texts.
    Pad,
    /// Begins a text, and stands for all of it.
    Cls,
    /// Stands for a token to be predicted.
    Mask,
}

impl Role {
    /// All roles, in order.
    pub(super) const ALL: [Self; 7] = [
        Self::Bos,
        Self::Eos,
        Self::Unk,
        Self::Sep,
        Self::Pad,
        Self::Cls,
        Self::Mask,
    ];

    /// Key of the role in `tokenizer_config.json` and `special_tokens_map.json`.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Bos => "bos_token",
            Self::Eos => "eos_token",
            Self::Unk => "unk_token",
            Self::Sep => "sep_token",
            Self::Pad => "pad_token",
            Self::Cls => "cls_token",
            Self::Mask => "mask_token",
        }
    }
}

/// One value for each role: a token, its text or its id.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ByRole<T>(pub(super) [T; 7]);

/// Texts of special tokens, by role.
pub(super) type RoleTexts = ByRole<Option<String>>;

impl<T> ByRole<T> {
    /// Builds the value of each role.
    pub(super) fn from_fn(value: impl FnMut(Role) -> T) -> Self {
        Self(Role::ALL.map(value))
    }
}

impl<T> Index<Role> for ByRole<T> {
    type Output = T;

    fn index(&self, role: Role) -> &T {
        &self.0[role as usize]
    }
}

impl<T> IndexMut<Role> for ByRole<T> {
    fn index_mut(&mut self, role: Role) -> &mut T {
        &mut self.0[role as usize]
    }
}
