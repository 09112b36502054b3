//! Ticks of axes and colours of values.

/// Colours of values from 0 to 1, in equal steps: viridis, which stays in order in grey and for colour-blind readers.
const COLOURS: [[f64; 3]; 5] = [
    [68.0, 1.0, 84.0],
    [59.0, 82.0, 139.0],
    [33.0, 145.0, 140.0],
    [94.0, 201.0, 98.0],
    [253.0, 231.0, 37.0],
];
/// Number of colours that are told apart.
const LEVELS: f64 = 63.0;

/// Returns the level of a value from 0 to 1.
pub(super) fn level(value: f64) -> u8 {
    (value.clamp(0.0, 1.0) * LEVELS).round() as u8
}

/// Returns the colour of a level.
pub(super) fn colour(level: u8) -> String {
    let at = f64::from(level) / LEVELS * (COLOURS.len() - 1) as f64;
    let first = (at as usize).min(COLOURS.len() - 2);
    let share = at - first as f64;
    let mixed = [0, 1, 2].map(|channel| {
        let (from, to) = (COLOURS[first][channel], COLOURS[first + 1][channel]);
        (from + (to - from) * share).round() as u8
    });
    format!("#{:02x}{:02x}{:02x}", mixed[0], mixed[1], mixed[2])
}

/// Returns about `count` round numbers in a range, and the number of decimals that tells them apart.
pub(super) fn ticks([least, most]: [f64; 2], count: usize) -> (Vec<f64>, usize) {
    let rough = (most - least) / count.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return (vec![least], 3);
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = step
        .into_iter()
        .find(|&step| step >= rough)
        .unwrap_or(rough);
    let first = (least / step - 1e-9).ceil() as i64;
    let last = (most / step + 1e-9).floor() as i64;
    // Adding zero makes a negative zero positive.
    let values = (first..=last).map(|n| n as f64 * step + 0.0);
    let decimals = (-step.log10() + 1e-9).floor().max(0.0) as usize;
    let decimals = decimals + usize::from(step < 1.0 && step.log10().fract().abs() > 1e-9);
    (values.collect(), decimals.min(12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            ticks([0.0, 1.0], 5),
            (vec![0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0], 1)
        );
        assert_eq!(ticks([1.3, 9.7], 4), (vec![5.0], 0));
        assert_eq!(ticks([0.0, 500.0], 5).0.len(), 6);
        assert_eq!(ticks([2.0, 2.0], 5).0, [2.0]);
        assert_eq!(ticks([0.0, f64::INFINITY], 5).0, [0.0]);
        for (span, decimals) in [(0.05, 2), (0.004, 3), (2e-4, 4), (30.0, 0)] {
            let (values, found) = ticks([0.0, span], 5);
            let shown: Vec<String> = values.iter().map(|v| format!("{v:.found$}")).collect();
            let mut distinct = shown.clone();
            distinct.dedup();
            assert!(found >= decimals && shown == distinct, "{shown:?}");
        }
    }

    #[test]
    fn the_ends_of_the_scale_have_their_colours() {
        assert_eq!(colour(level(-1.0)), "#440154");
        assert_eq!(colour(level(2.0)), "#fde725");
        assert_eq!(colour(level(0.5)).len(), 7);
    }
}
