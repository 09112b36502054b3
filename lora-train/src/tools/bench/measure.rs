//! Timing of repeated work.

use crate::TrainError;
use std::time::Instant;

/// Number of turns that are not measured: the first turns have cold caches, and allocate.
pub(super) const WARM_UP: usize = 2;

/// Durations of repeated work, in seconds.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    seconds: Vec<f64>,
}

impl Timing {
    /// Creates a timing from durations in seconds.
    pub fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self { seconds }
    }

    /// Returns the median; zero without durations.
    pub fn median(&self) -> f64 {
        let n = self.seconds.len();
        match n {
            0 => 0.0,
            _ if n % 2 == 1 => self.seconds[n / 2],
            _ => (self.seconds[n / 2 - 1] + self.seconds[n / 2]) / 2.0,
        }
    }

    /// Returns the minimum; zero without durations.
    pub fn min(&self) -> f64 {
        self.seconds.first().copied().unwrap_or(0.0)
    }
}

/// Repeats work `turns` times, after turns that are not measured.
pub(super) fn repeated(
    turns: usize,
    mut work: impl FnMut(usize) -> Result<(), TrainError>,
) -> Result<Timing, TrainError> {
    let [timing] = in_turn(turns, |_, turn| work(turn))?;
    Ok(timing)
}

/// Repeats several kinds of work in turn, in another order each time: other load of the machine affects all alike.
pub(super) fn in_turn<const KINDS: usize>(
    turns: usize,
    mut work: impl FnMut(usize, usize) -> Result<(), TrainError>,
) -> Result<[Timing; KINDS], TrainError> {
    let mut seconds = [const { Vec::new() }; KINDS];
    for turn in 0..turns + WARM_UP {
        for place in 0..KINDS {
            let kind = (turn + place) % KINDS;
            let start = Instant::now();
            work(kind, turn)?;
            if turn >= WARM_UP {
                seconds[kind].push(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(seconds.map(Timing::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between() {
        let timing = Timing::new(vec![4.0, 1.0, 3.0, 9.0]);
        assert_eq!((timing.median(), timing.min()), (3.5, 1.0));
        assert_eq!(Timing::new(vec![5.0, 2.0, 3.0]).median(), 3.0);
        assert_eq!(Timing::default().median(), 0.0);
    }

    #[test]
    fn warm_up_is_not_counted() {
        let mut turns = Vec::new();
        let timing = repeated(3, |turn| {
            turns.push(turn);
            Ok(())
        });
        assert_eq!(turns, [0, 1, 2, 3, 4]);
        assert_eq!(timing.unwrap().seconds.len(), 3);
    }
}
