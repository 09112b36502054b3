//! Running loss, perplexity and accuracy over tokens.

/// Running sums of loss and accuracy over tokens.
///
/// Batches have different numbers of predicted tokens, so the mean of their means is not the mean over
/// tokens. Sums are kept instead, and divided at the end.
///
/// # Examples
/// ```
/// use lora_train::metric::RunningLoss;
///
/// let mut running = RunningLoss::default();
/// running.add_mean(2.0, 10);
/// running.add_mean(5.0, 20);
/// running.add_accuracy(6, 30);
///
/// assert_eq!(running.mean(), Some(4.0));
/// assert_eq!(running.perplexity(), Some(4.0_f64.exp()));
/// assert_eq!(running.accuracy(), Some(0.2));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunningLoss {
    loss: f64,
    tokens: u64,
    correct: u64,
    judged: u64,
}

impl RunningLoss {
    /// Adds a batch by the sum of its losses over `tokens` predicted tokens.
    pub fn add_sum(&mut self, loss: f64, tokens: u64) {
        self.loss += loss;
        self.tokens += tokens;
    }

    /// Adds a batch by the mean of its losses over `tokens` predicted tokens. A batch without tokens,
    /// whose mean is undefined, adds nothing.
    pub fn add_mean(&mut self, loss: f64, tokens: u64) {
        if tokens > 0 {
            self.add_sum(loss * tokens as f64, tokens);
        }
    }

    /// Adds a batch in which `correct` of `judged` tokens were the most likely prediction. Separate
    /// from the loss, since not every step computes it.
    pub fn add_accuracy(&mut self, correct: u64, judged: u64) {
        self.correct += correct;
        self.judged += judged;
    }

    /// Adds the sums of another instance.
    pub fn merge(&mut self, other: &Self) {
        self.add_sum(other.loss, other.tokens);
        self.add_accuracy(other.correct, other.judged);
    }

    /// Returns the number of tokens in the loss.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Returns the mean loss per token; `None` before the first token.
    pub fn mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.loss / self.tokens as f64)
    }

    /// Returns the exponential of the mean loss; `None` before the first token.
    ///
    /// This is the perplexity only if the loss is the negative log-likelihood in nats, without label
    /// smoothing. An overflow gives [`f64::MAX`], which JSON can represent; NaN stays NaN.
    pub fn perplexity(&self) -> Option<f64> {
        self.mean().map(|mean| {
            let perplexity = mean.exp();
            if perplexity.is_infinite() {
                f64::MAX
            } else {
                perplexity
            }
        })
    }

    /// Returns the share of correctly predicted tokens, from 0 to 1; `None` before the first token.
    pub fn accuracy(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.correct as f64 / self.judged as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_weigh_as_much_as_they_have_tokens() {
        let mut running = RunningLoss::default();
        running.add_mean(1.0, 1);
        running.add_sum(6.0, 3);
        assert_eq!(running.tokens(), 4);
        assert_eq!(running.mean(), Some(1.75));
    }

    #[test]
    fn nothing_added_has_no_mean_no_perplexity_and_no_accuracy() {
        let running = RunningLoss::default();
        assert_eq!(running.mean(), None);
        assert_eq!(running.perplexity(), None);
        assert_eq!(running.accuracy(), None);
    }

    #[test]
    fn a_batch_without_tokens_adds_nothing_though_its_mean_is_not_a_number() {
        let mut running = RunningLoss::default();
        running.add_mean(f64::NAN, 0);
        running.add_mean(2.0, 5);
        assert_eq!(running.mean(), Some(2.0));
    }

    #[test]
    fn a_perplexity_beyond_f64_is_its_greatest_value() {
        let mut running = RunningLoss::default();
        running.add_mean(1e4, 2);
        assert_eq!(running.perplexity(), Some(f64::MAX));
        running.add_mean(f64::NAN, 2);
        assert!(running.perplexity().is_some_and(f64::is_nan));
    }

    #[test]
    fn merging_is_adding_both() {
        let mut first = RunningLoss::default();
        first.add_mean(1.0, 2);
        first.add_accuracy(1, 2);
        let mut second = RunningLoss::default();
        second.add_mean(4.0, 4);
        second.add_accuracy(2, 4);
        first.merge(&second);
        assert_eq!(first.mean(), Some(3.0));
        assert_eq!(first.accuracy(), Some(0.5));
    }
}
