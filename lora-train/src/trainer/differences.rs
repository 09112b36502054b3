//! Differences between two texts of options.

/// Lists the lines in which two fingerprints differ.
pub(crate) fn differences(saved: &str, now: &str) -> String {
    let only = |a: &str, b: &str| {
        let lines = a
            .lines()
            .filter(|line| !b.lines().any(|other| other == *line));
        lines.collect::<Vec<_>>().join(", ")
    };
    format!("it had: {}; now: {}", only(saved, now), only(now, saved))
}
