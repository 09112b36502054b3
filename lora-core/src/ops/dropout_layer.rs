//! Dropout as a module (Srivastava et al. 2014), drawn in parallel on the CPU.

use super::dropout::drop_by_seed;
use super::dropout_switch::is_dropout_off;
use super::host::is_on_host;
use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};

/// Sets elements to zero at random and scales the others to keep their mean. Active only in training, that is on a device
/// with autodiff.
///
/// The random numbers are the device's, as in Burn's own dropout. On the CPU, where Burn draws one number after
/// another, the mask is a hash of a seed, computed on all threads and again in the backward pass.
#[derive(Module, Debug)]
pub struct Dropout {
    probability: f64,
}

impl Dropout {
    /// Creates a dropout of a probability in [0, 1).
    ///
    /// # Panics
    /// If the probability is outside that range.
    pub fn new(probability: f64) -> Self {
        assert!(
            (0.0..1.0).contains(&probability),
            "the probability of dropout is {probability}, expected a number in [0, 1)"
        );
        Self { probability }
    }

    /// Returns the probability of dropping an element.
    pub fn probability(&self) -> f64 {
        self.probability
    }

    /// Returns true if elements are dropped on this device.
    pub(crate) fn is_active_on(&self, device: &Device) -> bool {
        self.probability > 0.0 && device.is_autodiff() && !is_dropout_off()
    }

    /// Applies the dropout.
    ///
    /// # Shapes
    /// - `x`: `[...]`
    /// - returns `[...]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let device = x.device();
        if !self.is_active_on(&device) {
            return x;
        }
        if !is_on_host(&device) {
            let keep = 1.0 - self.probability;
            let mask = x.random_like(Distribution::Bernoulli(keep));
            return x * mask * (1.0 / keep);
        }
        drop_by_seed(x, self.probability, Self::seed(&device))
    }

    /// Draws a seed from the device's random numbers.
    pub(crate) fn seed(device: &Device) -> u64 {
        let range = Distribution::Uniform(0.0, f64::from(i32::MAX));
        let drawn = Tensor::<1, Int>::random([2], range, device).into_data();
        drawn.iter::<i64>().fold(0u64, |seed, half| {
            (seed << 32) | (half as u64 & 0xffff_ffff)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(device: &Device, seed: u64) -> Vec<f32> {
        device.seed(seed);
        let x = Tensor::<2>::full([30, 50], 3.0, device);
        let y = Dropout::new(0.25).forward(x);
        y.into_data().iter::<f32>().collect()
    }

    #[test]
    fn training_drops_and_scales_as_the_devices_seed_says() {
        let device = Device::flex().autodiff();
        let y = dropped(&device, 5);
        let zeros = y.iter().filter(|&&value| value == 0.0).count();
        assert!((300..450).contains(&zeros), "{zeros}");
        assert!(y.iter().all(|&value| value == 0.0 || value == 4.0));
        assert_eq!(dropped(&device, 5), y);
        assert_ne!(dropped(&device, 6), y);
    }

    #[test]
    fn gradients_pass_where_values_did() {
        let device = Device::flex().autodiff();
        let x = Tensor::<1>::full([64], 1.0, &device).require_grad();
        let y = Dropout::new(0.5).forward(x.clone());
        let grads = y.clone().sum().backward();
        assert_eq!(x.grad(&grads).unwrap().into_data(), y.into_data());
    }

    #[test]
    fn nothing_is_dropped_but_in_training() {
        assert_eq!(dropped(&Device::flex(), 5), [3.0; 1500]);
    }

    #[test]
    #[should_panic(expected = "in [0, 1)")]
    fn a_probability_of_one_is_refused() {
        Dropout::new(1.0);
    }
}
