//! Dropout as a module (Srivastava et al. 2014), and the seeds of its masks.

use super::dropout::drop_by_seed;
use super::dropout_switch::is_dropout_off;
use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};
use rand::distr::Uniform;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cell::RefCell;

thread_local! {
    /// Random numbers of which the seeds of masks are drawn.
    static SEEDS: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Seeds the random numbers of a device, and those of [`Dropout`] and of the dropout of attention on this thread.
///
/// Dropout draws its seeds on the host, so that no device is waited for: with one seed, all devices drop the same elements.
/// A thread that was not seeded draws its first number from the device.
pub fn seed(device: &Device, seed: u64) {
    device.seed(seed);
    SEEDS.set(Some(StdRng::seed_from_u64(seed)));
}

/// Sets elements to zero at random and scales the others to keep their mean. Active only in training, that is on a device
/// with autodiff.
///
/// The mask is a hash of a seed and the place of an element, computed on the device and again in the backward pass. [`seed`]
/// determines the seeds.
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
        drop_by_seed(x, self.probability, Self::draw_seed(&device))
    }

    /// Draws the seed of the next mask.
    pub(crate) fn draw_seed(device: &Device) -> u64 {
        SEEDS.with_borrow_mut(|seeds| {
            let seeds = seeds.get_or_insert_with(|| StdRng::seed_from_u64(drawn(device)));
            let range = Uniform::new(0, i32::MAX).expect("the range is not empty");
            let mut half = || u64::from(seeds.sample(range).unsigned_abs());
            (half() << 32) | half()
        })
    }
}

/// Draws a number from a device's random numbers.
fn drawn(device: &Device) -> u64 {
    let range = Distribution::Uniform(0.0, f64::from(i32::MAX));
    let drawn = Tensor::<1, Int>::random([1], range, device).into_data();
    drawn.iter::<i64>().next().unwrap_or_default() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::process::passed_alone;

    fn dropped(device: &Device, seed: u64) -> Vec<f32> {
        super::seed(device, seed);
        let x = Tensor::<2>::full([30, 50], 3.0, device);
        let y = Dropout::new(0.25).forward(x);
        y.into_data().iter::<f32>().collect()
    }

    #[test]
    fn training_drops_and_scales_as_the_seed_says() {
        let device = Device::flex().autodiff();
        let y = dropped(&device, 5);
        let zeros = y.iter().filter(|&&value| value == 0.0).count();
        assert!((300..450).contains(&zeros), "{zeros}");
        assert!(y.iter().all(|&value| value == 0.0 || value == 4.0));
        assert_eq!(dropped(&device, 5), y);
        assert_ne!(dropped(&device, 6), y);
    }

    /// Runs of earlier versions drew the seeds from flex, and go on with the same ones.
    #[test]
    #[cfg_attr(miri, ignore = "starts a process")]
    fn the_seeds_are_those_that_flex_would_draw() {
        if passed_alone("ops::dropout_layer::tests::the_seeds_are_those_that_flex_would_draw") {
            return;
        }
        let device = Device::flex();
        super::seed(&device, 42);
        let range = Distribution::Uniform(0.0, f64::from(i32::MAX));
        for _ in 0..3 {
            let halves = Tensor::<1, Int>::random([2], range, &device).into_data();
            let halves: Vec<u64> = halves.iter::<u64>().collect();
            let expected = (halves[0] << 32) | halves[1];
            assert_eq!(Dropout::draw_seed(&device), expected);
        }
    }

    /// Recorded: a resumed run of an earlier version draws the same masks.
    #[test]
    fn a_seed_drops_the_elements_that_it_has_always_dropped() {
        let y = dropped(&Device::flex().autodiff(), 5);
        let bits = y[..64].iter().rev();
        let kept = bits.fold(0u64, |bits, &value| (bits << 1) | u64::from(value != 0.0));
        assert_eq!(format!("{kept:016x}"), "7a529fbbbb9bb7da");
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
