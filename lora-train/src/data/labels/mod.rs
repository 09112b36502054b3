//! Labels of classification and regression: the names of the classes, and how the labels of a file become classes.
//!
//! | file | contents |
//! | --- | --- |
//! | `label_set` | [`LabelSet`]: the classes by name and by index |
//! | `classes` | classes of the labels in a file |
//! | `class_weights` | [`ClassWeights`] in the loss |

mod class_weights;
mod classes;
mod label_set;

pub use class_weights::ClassWeights;
pub(super) use classes::{Classes, raw_label};
pub use label_set::LabelSet;
pub(super) use label_set::numbered;

/// Kind of the labels of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelKind {
    /// One of several classes.
    #[default]
    Classes,
    /// Any number of several classes.
    MultiLabel,
    /// A number, or several, to be predicted by regression.
    Score,
}

/// Treatment of a record without a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlabelled {
    /// Raises an error: to train and to evaluate, every record needs a label.
    #[default]
    Refuse,
    /// Reads the record without a label, to predict it.
    Accept,
}
