//! Ranks of MPI: processes on any number of machines.

use super::{Local, Ranks};
use crate::TrainError;
use mpi::Threading;
use mpi::collective::CommunicatorCollectives;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::{Universe, initialize_with_threading};
use mpi::topology::{Communicator, SimpleCommunicator};
use std::sync::{Mutex, PoisonError};

/// Memory whose address an empty message has.
static EMPTY: [u8; 1] = [0];

/// MPI of this process, from its start to [`finish`].
static UNIVERSE: Mutex<Option<Universe>> = Mutex::new(None);

/// Rank in the world of MPI. An error of MPI ends all ranks.
#[derive(Debug)]
pub(super) struct Mpi {
    rank: usize,
    size: usize,
    local: Local,
    /// Held during a call: calls of two threads may not overlap.
    calls: Mutex<()>,
}

impl Mpi {
    /// Initializes MPI.
    ///
    /// # Errors
    /// If it is initialized already, or cannot be called from a program with threads.
    pub fn start() -> Result<Self, TrainError> {
        let refused = |message: &str| TrainError::config("mpi", message);
        let (universe, threading) = initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| refused("is initialized already"))?;
        let world = universe.world();
        let shared = world.split_shared(world.rank());
        let ranks = Self {
            rank: world.rank() as usize,
            size: world.size() as usize,
            local: Local {
                rank: shared.rank() as usize,
                size: shared.size() as usize,
            },
            calls: Mutex::new(()),
        };
        *UNIVERSE.lock().unwrap_or_else(PoisonError::into_inner) = Some(universe);
        if threading < Threading::Serialized {
            return Err(refused("does not support programs with threads"));
        }
        Ok(ranks)
    }

    /// Calls MPI with all ranks.
    fn with_world<T>(&self, call: impl FnOnce(&SimpleCommunicator) -> T) -> T {
        let _calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        call(&SimpleCommunicator::world())
    }
}

/// Tells MPI that this process calls it no more.
pub(super) fn finish() {
    let mut universe = UNIVERSE.lock().unwrap_or_else(PoisonError::into_inner);
    drop(universe.take());
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn local(&self) -> Local {
        self.local
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        self.with_world(|world| {
            let mut lengths = vec![0u64; self.size];
            world.all_gather_into(&(own.len() as u64), &mut lengths);
            let lengths: Vec<usize> = lengths.into_iter().map(|length| length as usize).collect();
            let (counts, places, total) = counted(&lengths)?;
            // The address of an empty slice of bytes is 1, which is `MPI_IN_PLACE`.
            let mut all = vec![0u8; total.max(1)];
            let own = if own.is_empty() { &EMPTY[..0] } else { own };
            let mut parts = PartitionMut::new(&mut all[..], counts, places);
            world.all_gather_varcount_into(own, &mut parts);
            let mut rest = all.as_slice();
            let messages = lengths.into_iter().map(|length| {
                let (message, after) = rest.split_at(length);
                rest = after;
                message.to_vec()
            });
            Ok(messages.collect())
        })
    }

    fn scatter(
        &self,
        values: &[f32],
        sent: &[usize],
        received: &[usize],
    ) -> Result<Vec<f32>, TrainError> {
        let (counts, places, _) = counted(sent)?;
        let sent = Partition::new(values, counts, places);
        let (counts, places, total) = counted(received)?;
        let mut all = vec![0f32; total];
        let mut parts = PartitionMut::new(&mut all[..], counts, places);
        self.with_world(|world| world.all_to_all_varcount_into(&sent, &mut parts));
        Ok(all)
    }

    fn collect(&self, own: &[f32], lengths: &[usize]) -> Result<Vec<f32>, TrainError> {
        let (counts, places, total) = counted(lengths)?;
        let mut all = vec![0f32; total];
        let mut parts = PartitionMut::new(&mut all[..], counts, places);
        self.with_world(|world| world.all_gather_varcount_into(own, &mut parts));
        Ok(all)
    }

    fn abort(&self, code: u8) {
        SimpleCommunicator::world().abort(code.into());
    }
}

/// Returns the lengths and the places of parts as MPI takes them, and the length of all together.
fn counted(lengths: &[usize]) -> Result<(Vec<i32>, Vec<i32>, usize), TrainError> {
    let mut places = Vec::with_capacity(lengths.len());
    let mut total = 0usize;
    for length in lengths {
        places.push(total);
        total += length;
    }
    // The largest bounds all others.
    if i32::try_from(total).is_err() {
        let message = format!("messages of {total} elements are too long");
        return Err(TrainError::config("mpi", message));
    }
    let narrow = |values: &[usize]| values.iter().map(|&value| value as i32).collect();
    Ok((narrow(lengths), narrow(&places), total))
}
