//! Translation edit rate, as sacrebleu computes it by default.
//!
//! Snover et al., *A Study of Translation Edit Rate with Targeted Human Annotation*, 2006. The search for shifts follows
//! Tercom's heuristics and limits, as sacrebleu's `lib_ter.py` does.

use std::collections::HashMap;

use super::check_corpus;
use crate::error::TrainError;

/// Largest number of words in a shift.
const MAX_SHIFT_WORDS: usize = 10;
/// Largest distance of a shift, in words.
const MAX_SHIFT_DISTANCE: usize = 50;
/// Cells on each side of the diagonal of the edit distance that are computed.
const BEAM_WIDTH: usize = 25;
/// Largest number of shifts that are tried for a pair of texts.
const MAX_CANDIDATES: usize = 1000;

/// Translation edit rate and its components.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ter {
    /// Edits per hundred words of the references; lower is better.
    pub score: f64,
    /// Number of edits: words inserted, deleted and replaced, and groups of words shifted.
    pub edits: usize,
    /// Sum over the hypotheses of the mean length of their references, in words.
    pub reference_length: f64,
}

/// Computes the translation edit rate of `hypotheses` as one corpus. `references[i]` holds the references of hypothesis `i`, of
/// which the one with the fewest edits counts.
///
/// Equal to `sacrebleu.metrics.TER()`: texts are lower-cased and split at white space, with punctuation as it is.
///
/// The work for a pair of texts grows with the sum of their lengths, not with the product: at most some thousand edit distances are
/// computed, each in a band of 50 words around the diagonal.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ, the corpus is empty, or a hypothesis has no reference.
///
/// # Examples
/// ```
/// use lora_train::metric::corpus_ter;
///
/// // One shift of two words, and one word replaced.
/// let ter = corpus_ter(&["by the river is the mill ."], &[vec!["The mill is by the lake ."]])?;
/// assert_eq!((ter.edits, ter.reference_length), (3, 7.0));
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn corpus_ter<H, R>(hypotheses: &[H], references: &[Vec<R>]) -> Result<Ter, TrainError>
where
    H: AsRef<str>,
    R: AsRef<str>,
{
    check_corpus("TER", hypotheses, references)?;
    let mut numbers = HashMap::new();
    let mut words = |text: &str| -> Vec<u32> {
        let lower = text.to_lowercase();
        let number = |word: &str| {
            let next = numbers.len() as u32;
            *numbers.entry(word.to_string()).or_insert(next)
        };
        lower.split_whitespace().map(number).collect()
    };
    let (mut edits, mut reference_length) = (0, 0.0);
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let hypothesis = words(hypothesis.as_ref());
        let references: Vec<_> = references.iter().map(|text| words(text.as_ref())).collect();
        let fewest = references.iter().map(|r| count_edits(&hypothesis, r)).min();
        edits += fewest.unwrap_or(0);
        let length: usize = references.iter().map(Vec::len).sum();
        reference_length += length as f64 / references.len() as f64;
    }
    let rate = if reference_length > 0.0 {
        edits as f64 / reference_length
    } else {
        f64::from(u8::from(edits > 0))
    };
    Ok(Ter {
        score: 100.0 * rate,
        edits,
        reference_length,
    })
}

/// Counts the edits that make the hypothesis the reference, shifts before the others.
fn count_edits(hypothesis: &[u32], reference: &[u32]) -> usize {
    if reference.is_empty() {
        return hypothesis.len();
    }
    let mut words = hypothesis.to_vec();
    let mut shifts = 0;
    let mut candidates = 0;
    loop {
        let best = best_shift(&words, reference, &mut candidates);
        let Some(best) = best.filter(|best| candidates < MAX_CANDIDATES && best.gain > 0) else {
            return shifts + Distances::new(&words, reference).edits();
        };
        shifts += 1;
        words = best.words;
    }
}

/// Edit of one word of the hypothesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    Keep,
    Replace,
    /// Deletes a word of the hypothesis.
    Delete,
    /// Inserts a word of the reference.
    Insert,
}

/// Cost of a cell outside of the band.
const FAR: u32 = u32::MAX / 2;

/// Row of the edit distances: the cells of the band around the diagonal.
#[derive(Clone, Default)]
struct Row {
    /// Column of the first cell.
    start: usize,
    /// Cost and last edit of each cell.
    cells: Vec<(u32, Edit)>,
}

impl Row {
    /// Returns the row of no words of the hypothesis.
    fn first(width: usize) -> Self {
        let cells = (0..width).map(|j| (j as u32, Edit::Insert));
        Self {
            start: 0,
            cells: cells.collect(),
        }
    }

    /// Returns a cell, which is far and a replacement outside of the band.
    fn get(&self, j: usize) -> (u32, Edit) {
        let cell = j.checked_sub(self.start).and_then(|at| self.cells.get(at));
        cell.copied().unwrap_or((FAR, Edit::Replace))
    }
}

/// Edit distance to a reference within a band around the diagonal. Work and memory of each word are those of the band.
struct Band<'a> {
    reference: &'a [u32],
    /// Number of words of the hypothesis.
    rows: usize,
    /// Words of the reference for each of the hypothesis.
    ratio: f64,
    beam: usize,
}

impl<'a> Band<'a> {
    fn new(rows: usize, reference: &'a [u32]) -> Self {
        let ratio = if rows == 0 {
            1.0
        } else {
            reference.len() as f64 / rows as f64
        };
        let beam = if (BEAM_WIDTH as f64) < ratio / 2.0 {
            (ratio / 2.0 + BEAM_WIDTH as f64).ceil() as usize
        } else {
            BEAM_WIDTH
        };
        Self {
            reference,
            rows,
            ratio,
            beam,
        }
    }

    /// Fills the row of the first `i + 1` words of the hypothesis, of which `word` is the last, from the row of the first `i`.
    fn fill(&self, i: usize, word: u32, above: &Row, row: &mut Row) {
        let width = self.reference.len() + 1;
        let diagonal = ((i + 1) as f64 * self.ratio).floor() as usize;
        let end = if i + 1 == self.rows {
            width
        } else {
            width.min(diagonal + self.beam)
        };
        row.start = diagonal.saturating_sub(self.beam);
        row.cells.clear();
        let mut left = FAR;
        for j in row.start..end {
            let best = if j == 0 {
                (above.get(0).0 + 1, Edit::Delete)
            } else {
                let kept = word == self.reference[j - 1];
                let replace = if kept { Edit::Keep } else { Edit::Replace };
                let options = [
                    (above.get(j - 1).0 + u32::from(!kept), replace),
                    (above.get(j).0 + 1, Edit::Delete),
                    (left + 1, Edit::Insert),
                ];
                let mut best = (FAR, Edit::Replace);
                for option in options {
                    if option.0 < best.0 {
                        best = option;
                    }
                }
                best
            };
            left = best.0;
            row.cells.push(best);
        }
    }
}

/// Rows of the edit distances of a hypothesis.
struct Distances<'a> {
    band: Band<'a>,
    /// Row `i` is that of the first `i` words of the hypothesis.
    rows: Vec<Row>,
}

impl<'a> Distances<'a> {
    fn new(hypothesis: &[u32], reference: &'a [u32]) -> Self {
        let band = Band::new(hypothesis.len(), reference);
        let mut rows = vec![Row::first(reference.len() + 1)];
        for (i, word) in hypothesis.iter().enumerate() {
            let mut row = Row::default();
            band.fill(i, *word, &rows[i], &mut row);
            rows.push(row);
        }
        Self { band, rows }
    }

    /// Returns the number of edits without shifts.
    fn edits(&self) -> usize {
        self.rows[self.band.rows].get(self.band.reference.len()).0 as usize
    }

    /// Returns the number of edits of another hypothesis of the same length, whose first `same` words are the same.
    fn edits_of(&self, hypothesis: &[u32], same: usize) -> usize {
        let (mut above, mut row) = (self.rows[same].clone(), Row::default());
        for (i, word) in hypothesis.iter().enumerate().skip(same) {
            self.band.fill(i, *word, &above, &mut row);
            std::mem::swap(&mut above, &mut row);
        }
        above.get(self.band.reference.len()).0 as usize
    }

    /// Returns the edits in their order.
    fn path(&self) -> Vec<Edit> {
        let (mut i, mut j) = (self.band.rows, self.band.reference.len());
        let mut edits = Vec::with_capacity(i + j);
        while i > 0 || j > 0 {
            let edit = match self.rows[i].get(j).1 {
                // Outside of the beam.
                _ if i == 0 => Edit::Insert,
                _ if j == 0 => Edit::Delete,
                edit => edit,
            };
            edits.push(edit);
            i -= usize::from(edit != Edit::Insert);
            j -= usize::from(edit != Edit::Delete);
        }
        edits.reverse();
        edits
    }
}

/// Words of the hypothesis and the reference that belong together, and those that are wrong.
struct Alignment {
    /// For each word of the reference, the word of the hypothesis at or before it, counted from 1; 0 before the first.
    at: Vec<usize>,
    wrong_reference: Vec<bool>,
    wrong_hypothesis: Vec<bool>,
}

impl Alignment {
    fn new(edits: &[Edit]) -> Self {
        let mut alignment = Self {
            at: Vec::new(),
            wrong_reference: Vec::new(),
            wrong_hypothesis: Vec::new(),
        };
        for edit in edits {
            let wrong = *edit != Edit::Keep;
            if *edit != Edit::Insert {
                alignment.wrong_hypothesis.push(wrong);
            }
            if *edit != Edit::Delete {
                alignment.at.push(alignment.wrong_hypothesis.len());
                alignment.wrong_reference.push(wrong);
            }
        }
        alignment
    }
}

/// Shift of a group of words.
struct Shift {
    /// Edits that it saves.
    gain: isize,
    length: usize,
    start: usize,
    target: usize,
    /// Words after the shift.
    words: Vec<u32>,
}

impl Shift {
    /// Tercom's order: the largest gain, then the longest, the earliest, and the earliest target.
    fn rank(&self) -> (isize, usize, isize, isize) {
        let (start, target) = (self.start as isize, self.target as isize);
        (self.gain, self.length, -start, -target)
    }
}

/// Finds the best shift of words that stand elsewhere in the reference; `None` if none is to be tried.
fn best_shift(words: &[u32], reference: &[u32], candidates: &mut usize) -> Option<Shift> {
    let distances = Distances::new(words, reference);
    let before = distances.edits();
    let alignment = Alignment::new(&distances.path());
    let mut best: Option<Shift> = None;
    for start in 0..words.len() {
        for place in 0..reference.len() {
            if place.abs_diff(start) > MAX_SHIFT_DISTANCE {
                continue;
            }
            let pairs = words[start..].iter().zip(&reference[place..]);
            let same = pairs.take_while(|(a, b)| a == b).count();
            for length in 1..=same.min(MAX_SHIFT_WORDS) {
                // Both places must be wrong as they are, and the target outside of the shifted words.
                let group = start..start + length;
                let is_wrong = alignment.wrong_hypothesis[group.clone()].contains(&true)
                    && alignment.wrong_reference[place..place + length].contains(&true);
                let at = alignment.at[place];
                if !is_wrong || (at > 0 && group.contains(&(at - 1))) {
                    continue;
                }
                let mut last = None;
                for offset in 0..=length {
                    let target = match (place + offset).checked_sub(1) {
                        None => 0,
                        Some(word) => match alignment.at.get(word) {
                            Some(&target) => target,
                            None => break,
                        },
                    };
                    if last == Some(target) {
                        continue;
                    }
                    last = Some(target);
                    let shifted = shifted(words, start, length, target);
                    let after = distances.edits_of(&shifted, start.min(target));
                    let shift = Shift {
                        gain: before as isize - after as isize,
                        length,
                        start,
                        target,
                        words: shifted,
                    };
                    *candidates += 1;
                    if best.as_ref().is_none_or(|best| shift.rank() > best.rank()) {
                        best = Some(shift);
                    }
                }
                if *candidates >= MAX_CANDIDATES {
                    return best;
                }
            }
        }
    }
    best
}

/// Moves `length` words at `start` before the word at `target`, or, within themselves, after as many of the following words.
fn shifted(words: &[u32], start: usize, length: usize, target: usize) -> Vec<u32> {
    let end = start + length;
    let group = &words[start..end];
    if target < start {
        let (before, between) = (&words[..target], &words[target..start]);
        [before, group, between, &words[end..]].concat()
    } else {
        let to = if target > end {
            target
        } else {
            words.len().min(length + target)
        };
        [&words[..start], &words[end..to], group, &words[to..]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ter(hypothesis: &str, references: &[&str]) -> Ter {
        corpus_ter(&[hypothesis], &[references.to_vec()]).unwrap()
    }

    #[test]
    fn a_shift_is_one_edit_whatever_its_length() {
        assert_eq!(ter("c d e a b", &["a b c d e"]).edits, 1);
        assert_eq!(ter("a x c", &["a b c"]).edits, 1);
        assert_eq!(ter("A B", &["a b"]).score, 0.0);
    }

    #[test]
    fn the_closest_reference_counts_and_lengths_are_averaged() {
        let ter = ter("a b c", &["a b c d", "x"]);
        assert_eq!((ter.edits, ter.reference_length), (1, 2.5));
        assert!((ter.score - 40.0).abs() < 1e-12);
    }

    #[test]
    fn empty_texts_have_a_rate() {
        assert_eq!(ter("", &["a b"]).score, 100.0);
        assert_eq!(ter("a b", &[""]).score, 100.0);
        assert_eq!(ter("", &[""]).score, 0.0);
    }

    /// The edit distance of texts of very different lengths stays in the beam around the diagonal.
    #[test]
    fn long_texts_are_compared_in_bounded_work() {
        let long: Vec<String> = (0..600).map(|i| format!("w{}", i % 90)).collect();
        let turned: Vec<String> = long.iter().rev().cloned().collect();
        assert!(ter(&long.join(" "), &[&turned.join(" ")]).score > 50.0);
        assert_eq!(ter("a", &[&long.join(" ")]).edits, 600);
    }

    /// With whole rows, a pair of texts of 1000 words took 20 s and 16 MB for each candidate; the band takes 0.3 s.
    #[test]
    fn work_and_memory_grow_with_the_length_alone() {
        let distances = Distances::new(&[0; 3000], &[1; 3000]);
        let cells: usize = distances.rows.iter().map(|row| row.cells.len()).sum();
        assert!(cells < 3000 * 60, "{cells}");
        // The same from a row in the middle.
        let mut words = vec![0; 3000];
        words[1000..1010].fill(1);
        let whole = Distances::new(&words, &[1; 3000]).edits();
        assert_eq!(distances.edits_of(&words, 1000), whole);
        assert_eq!(whole, 2990);
    }
}
