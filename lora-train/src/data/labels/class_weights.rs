//! Weights of the classes in the loss.

/// Weight of each class in the loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassWeights(Option<Vec<f64>>);

impl ClassWeights {
    /// Creates the weights from a list, in the order of the classes.
    pub fn given(weights: Vec<f64>) -> Self {
        Self(Some(weights))
    }

    /// Computes scikit-learn's "balanced" weights: one over the class's share of the labels,
    /// `examples / (classes · count)`. A class that does not occur has the weight 1.
    ///
    /// ```
    /// use lora_train::data::ClassWeights;
    /// let weights = ClassWeights::balanced([0, 0, 0, 1].into_iter(), 2);
    /// assert_eq!((weights.of(0), weights.of(1)), (4.0 / 6.0, 2.0));
    /// ```
    pub fn balanced(labels: impl Iterator<Item = usize>, classes: usize) -> Self {
        let mut counts = vec![0usize; classes];
        for label in labels {
            if let Some(count) = counts.get_mut(label) {
                *count += 1;
            }
        }
        let total: usize = counts.iter().sum();
        let weight = |&count: &usize| match count {
            0 => 1.0,
            count => total as f64 / (classes * count) as f64,
        };
        Self(Some(counts.iter().map(weight).collect()))
    }

    /// Returns the weight of a class; 1 without a list.
    pub fn of(&self, class: usize) -> f64 {
        let weights = self.0.as_ref();
        weights.map_or(1.0, |weights| weights.get(class).copied().unwrap_or(1.0))
    }

    /// Returns the list of weights, if there is one.
    pub fn values(&self) -> Option<&[f64]> {
        self.0.as_deref()
    }
}
