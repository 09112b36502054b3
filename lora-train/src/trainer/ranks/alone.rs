//! One process alone.

use super::{Local, Ranks};
use crate::TrainError;

/// The only rank of a run in one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local(&self) -> Local {
        Local { rank: 0, size: 1 }
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        Ok(vec![own.to_vec()])
    }

    fn scatter(
        &self,
        values: &[f32],
        _sent: &[usize],
        _received: &[usize],
    ) -> Result<Vec<f32>, TrainError> {
        Ok(values.to_vec())
    }

    fn collect(&self, own: &[f32], _lengths: &[usize]) -> Result<Vec<f32>, TrainError> {
        Ok(own.to_vec())
    }

    fn abort(&self, _code: u8) {}
}
