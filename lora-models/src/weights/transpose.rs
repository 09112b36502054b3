//! Linear weights lie `[in, out]` here and `[out, in]` in files.

use rayon::prelude::*;

/// Row-major `[rows, columns]` to row-major `[columns, rows]`.
///
/// In squares that fit in the first-level cache, on all threads: the linear layers of a RoBERTa base are 340 MB.
pub(crate) fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    const SIDE: usize = 32;
    let mut transposed = vec![0.0; values.len()];
    let bands = transposed.par_chunks_mut((SIDE * rows).max(1));
    bands.enumerate().for_each(|(band, transposed)| {
        for row_start in (0..rows).step_by(SIDE) {
            let row_end = (row_start + SIDE).min(rows);
            for (offset, column) in transposed.chunks_exact_mut(rows).enumerate() {
                let column_index = band * SIDE + offset;
                for (row, value) in (row_start..row_end).zip(&mut column[row_start..row_end]) {
                    *value = values[row * columns + column_index];
                }
            }
        }
    });
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_turns_rows_into_columns_across_squares() {
        let shape = [70, 33];
        let values: Vec<f32> = (0..70 * 33).map(|value| value as f32).collect();
        let transposed = transpose(&values, shape);
        for row in 0..70 {
            for column in 0..33 {
                assert_eq!(transposed[column * 70 + row], values[row * 33 + column]);
            }
        }
        assert_eq!(transpose(&transposed, [33, 70]), values);
    }
}
