//! Projections that hold several matrices side by side, and the parts of them that are adapted.

/// A projection that holds several matrices side by side, such as GPT-2's `c_attn` with q, k and v, `[d_in, 3 · d]`.
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
    /// Part by part, where the first is wider than each of the others: queries whose heads share keys and values, as in Phi 3.
    Grouped {
        /// Number of heads of queries for each head of keys.
        sharing: usize,
    },
}

/// The parts of a fused projection that have an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slices {
    /// Number of parts of the projection.
    pub parts: usize,
    /// Indices of the adapted parts, ascending.
    pub adapted: Vec<usize>,
    /// Order of the projection's columns.
    pub layout: FusedLayout,
}

impl Slices {
    /// Returns the width of a part, in units of the narrowest one.
    fn units(&self, part: usize) -> usize {
        match self.layout {
            FusedLayout::Grouped { sharing } if part == 0 => sharing,
            _ => 1,
        }
    }

    /// Returns the number of columns of all parts together, in units of the narrowest part.
    fn all_units(&self) -> usize {
        (self.parts.saturating_sub(1)).saturating_add(self.units(0))
    }

    /// Returns the number that the columns of a projection with these parts are a multiple of.
    pub fn least_columns(&self) -> usize {
        match self.layout {
            FusedLayout::HeadByHead { heads } => self.parts.saturating_mul(heads),
            FusedLayout::PartByPart | FusedLayout::Grouped { .. } => self.all_units(),
        }
    }

    /// Returns the number of columns of a part in a projection `[d_in, d_out]`.
    pub fn width(&self, part: usize, d_out: usize) -> usize {
        d_out / self.all_units() * self.units(part)
    }

    /// Returns the numbers of columns of the adapted parts.
    pub(crate) fn widths(&self, d_out: usize) -> impl Iterator<Item = usize> {
        self.adapted
            .iter()
            .map(move |&part| self.width(part, d_out))
    }

    /// Returns the shape of `B`, which has a block `[rank, width]` for each adapted part, one after the other: `[parts · rank,
    /// width]` for parts of one width, else `[rank, all widths]`.
    pub(crate) fn blocks_shape(&self, rank: usize, d_out: usize) -> [usize; 2] {
        match self.common_units() {
            Some(units) => [self.adapted.len() * rank, d_out / self.all_units() * units],
            None => [rank, self.widths(d_out).sum()],
        }
    }

    /// Returns rank and number of columns of the projection from the [shape of `B`](Self::blocks_shape).
    pub(crate) fn of_blocks(&self, [rows, columns]: [usize; 2]) -> (usize, usize) {
        let (rank, units) = match self.common_units() {
            Some(units) => (rows / self.adapted.len(), units),
            None => (
                rows,
                self.adapted.iter().map(|&part| self.units(part)).sum(),
            ),
        };
        (rank, columns / units * self.all_units())
    }

    /// Returns the width of the adapted parts in units of the narrowest part; `None` if they differ.
    fn common_units(&self) -> Option<usize> {
        let mut units = self.adapted.iter().map(|&part| self.units(part));
        let first = units.next()?;
        units.all(|other| other == first).then_some(first)
    }

    /// Returns the columns in a projection `[d_in, d_out]` that belong to a part, in the order of the part's own.
    pub fn columns(&self, part: usize, d_out: usize) -> Vec<usize> {
        (0..self.width(part, d_out))
            .map(|column| self.column(part, column, d_out))
            .collect()
    }

    /// Returns the column in a projection `[d_in, d_out]` of column `column` of part `part`.
    pub(crate) fn column(&self, part: usize, column: usize, d_out: usize) -> usize {
        match self.layout {
            FusedLayout::PartByPart | FusedLayout::Grouped { .. } => {
                let before = match part {
                    0 => 0,
                    _ => self.units(0) + part - 1,
                };
                d_out / self.all_units() * before + column
            }
            FusedLayout::HeadByHead { heads } => {
                let d_head = d_out / self.parts / heads;
                let (head, rest) = (column / d_head, column % d_head);
                (head * self.parts + part) * d_head + rest
            }
        }
    }
}
