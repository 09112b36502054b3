//! Projections that hold several matrices side by side, and the parts of them that are adapted.

/// A projection `[d_in, parts · d]` that holds several matrices side by side, such as GPT-2's
/// `c_attn` with q, k and v.
#[derive(Clone, Debug)]
pub struct FusedProjection {
    /// Name of the projection: its path or the end of it.
    pub module: String,
    /// Names of the parts, in the order of their columns.
    pub parts: Vec<String>,
    /// Order of the columns.
    pub layout: FusedLayout,
}

/// Order of the columns of a fused projection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FusedLayout {
    /// All columns of the first part, then all of the second, as in GPT-2.
    #[default]
    PartByPart,
    /// For each attention head the columns of all parts, as in DeBERTa.
    HeadByHead {
        /// Number of heads.
        heads: usize,
    },
}

/// The parts of a fused projection that have an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slices {
    /// Number of parts of the projection, which have equal width.
    pub parts: usize,
    /// Indices of the adapted parts, ascending.
    pub adapted: Vec<usize>,
    /// Order of the projection's columns.
    pub layout: FusedLayout,
}

impl Slices {
    /// Returns the columns in a projection `[d_in, d_out]` that belong to a part, in the order of the part's own.
    pub fn columns(&self, part: usize, d_out: usize) -> Vec<usize> {
        let width = d_out / self.parts;
        (0..width)
            .map(|column| self.column(part, column, d_out))
            .collect()
    }

    /// Returns the column in a projection `[d_in, d_out]` of column `column` of part `part`.
    pub(crate) fn column(&self, part: usize, column: usize, d_out: usize) -> usize {
        let width = d_out / self.parts;
        match self.layout {
            FusedLayout::PartByPart => part * width + column,
            FusedLayout::HeadByHead { heads } => {
                let d_head = width / heads;
                let (head, rest) = (column / d_head, column % d_head);
                (head * self.parts + part) * d_head + rest
            }
        }
    }
}
