//! Linear weights lie `[in, out]` here and `[out, in]` in files.

/// Row-major `[rows, columns]` to row-major `[columns, rows]`.
///
/// In squares that fit in the first-level cache: the head of a GPT-2 is 150 MB.
pub(crate) fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    const SIDE: usize = 32;
    let mut transposed = vec![0.0; values.len()];
    for row_start in (0..rows).step_by(SIDE) {
        for column_start in (0..columns).step_by(SIDE) {
            for column in column_start..(column_start + SIDE).min(columns) {
                for row in row_start..(row_start + SIDE).min(rows) {
                    transposed[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
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
