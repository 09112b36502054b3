//! Ranks: processes that train one model together, one process a device.
//!
//! Each rank holds a copy of the model and computes some of the batches of a step. The gradients of what is trained are summed over
//! all ranks, so that every rank takes the same step, with the numbers that one process alone would have: batches and their random
//! numbers are those of the whole run, and gradients are added in a tree that does not depend on the number of ranks.
//!
//! | file | contents |
//! | --- | --- |
//! | `alone` | [`Alone`]: one process |
//! | `threads` | [`Threads`]: threads of one process |
//! | `mpi` | processes on any number of machines, with the feature `mpi` |
//! | `launcher` | [`join`]: the ranks of a launcher such as `mpirun` |
//! | `cores` | threads of each rank on a machine that several share |
//! | `block` | batches of a step that a rank computes |
//! | `tree` | sum in a fixed tree |
//! | `buffer` | gradients as one buffer on the host |
//! | `exchange` | sums of a step over all ranks |
//! | `agreement` | comparison of the ranks at the start |
//! | `lists` | results that ranks share out |

mod agreement;
mod alone;
mod block;
mod buffer;
mod cores;
mod exchange;
mod launcher;
mod lists;
#[cfg(feature = "mpi")]
mod mpi;
mod threads;
mod tree;

pub(super) use agreement::digest_of_trained;
pub(crate) use agreement::{agree, digest_of_files};
pub use alone::Alone;
pub(super) use block::block;
pub use cores::Cores;
pub use exchange::ExchangeReport;
pub(crate) use exchange::{Exchange, bytes_sent};
pub(super) use exchange::{Summed, add_gradients};
pub use launcher::{finish, join};
pub(crate) use lists::{gather_results, number_of_first};
pub use threads::Threads;
pub(super) use tree::Tree;

use crate::TrainError;
use std::fmt::Debug;

/// Place of a rank among those of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Number of the rank on its machine, counted from 0.
    pub rank: usize,
    /// Number of ranks on its machine.
    pub size: usize,
}

/// Communication between the ranks of a run.
///
/// Every rank must call the same methods in the same order, each of which waits for the other ranks.
pub trait Ranks: Debug + Send + Sync {
    /// Returns the number of this rank, counted from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks.
    fn size(&self) -> usize;

    /// Returns the place of this rank on its machine.
    fn local(&self) -> Local;

    /// Sends a message to all ranks, and returns the message of each rank, in the order of the ranks.
    ///
    /// # Errors
    /// [`TrainError::Rank`] if another rank has ended.
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError>;

    /// Sends a part of `values` to each rank, and returns the parts that the ranks sent to this one, in the order of the ranks.
    /// `sent` and `received` are the lengths of the parts.
    ///
    /// # Errors
    /// [`TrainError::Rank`] if another rank has ended.
    fn scatter(
        &self,
        values: &[f32],
        sent: &[usize],
        received: &[usize],
    ) -> Result<Vec<f32>, TrainError>;

    /// Sends `own` to all ranks, and returns the parts of all ranks one after the other; `lengths` are their lengths.
    ///
    /// # Errors
    /// [`TrainError::Rank`] if another rank has ended.
    fn collect(&self, own: &[f32], lengths: &[usize]) -> Result<Vec<f32>, TrainError>;

    /// Ends the processes of all ranks with an exit code. Returns where there is nothing to end.
    fn abort(&self, code: u8);

    /// Returns true for the rank that writes and prints.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Returns true if there is no other rank.
    fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Waits until every rank has come here.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn wait(&self) -> Result<(), TrainError> {
        self.gather(&[]).map(drop)
    }

    /// Returns the message of the first rank.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn first_of(&self, own: &[u8]) -> Result<Vec<u8>, TrainError> {
        let own = if self.is_first() { own } else { &[] };
        Ok(self.gather(own)?.swap_remove(0))
    }

    /// Sends numbers to all ranks, and returns those of each rank, bit for bit.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn gather_numbers(&self, own: &[f64]) -> Result<Vec<Vec<f64>>, TrainError> {
        let bytes: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
        let numbers = |message: Vec<u8>| {
            let (values, _) = message.as_chunks();
            values
                .iter()
                .map(|&bytes| f64::from_le_bytes(bytes))
                .collect()
        };
        Ok(self.gather(&bytes)?.into_iter().map(numbers).collect())
    }
}
