//! Ranks that are threads of one process.

use super::{Local, Ranks};
use crate::TrainError;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// Message from one rank to another.
enum Message {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

/// Rank that is a thread of this process, such as in a test.
///
/// ```
/// use lora_train::trainer::ranks::{Ranks, Threads};
///
/// let ranks = Threads::new(3);
/// std::thread::scope(|scope| {
///     for rank in ranks {
///         scope.spawn(move || {
///             let numbers = rank.gather_numbers(&[rank.rank() as f64]).unwrap();
///             assert_eq!(numbers, [[0.0], [1.0], [2.0]]);
///         });
///     }
/// });
/// ```
pub struct Threads {
    rank: usize,
    /// A sender to each rank.
    to: Vec<Sender<Message>>,
    /// A receiver from each rank. Messages arrive in the order in which they were sent.
    from: Mutex<Vec<Receiver<Message>>>,
}

impl Threads {
    /// Creates this number of ranks, each for a thread of its own.
    pub fn new(size: usize) -> Vec<Self> {
        let mut to: Vec<Vec<Sender<Message>>> = (0..size).map(|_| Vec::new()).collect();
        let mut ranks = Vec::with_capacity(size);
        for rank in 0..size {
            let mut from = Vec::with_capacity(size);
            for to in &mut to {
                let (sender, receiver) = channel();
                to.push(sender);
                from.push(receiver);
            }
            ranks.push((rank, from));
        }
        let ranks = ranks.into_iter().zip(to);
        let ranks = ranks.map(|((rank, from), to)| Self {
            rank,
            to,
            from: Mutex::new(from),
        });
        ranks.collect()
    }

    /// Sends a message to each rank and returns one from each.
    fn exchange(&self, messages: Vec<Message>) -> Result<Vec<Message>, TrainError> {
        // A rank that has ended is found below.
        for (to, message) in self.to.iter().zip(messages) {
            let _ = to.send(message);
        }
        let from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = from.iter().enumerate().map(|(rank, from)| {
            from.recv()
                .map_err(|_| TrainError::rank(rank, self.to.len(), "has ended"))
        });
        messages.collect()
    }

    fn exchange_floats(&self, parts: Vec<Vec<f32>>) -> Result<Vec<f32>, TrainError> {
        let parts = parts.into_iter().map(Message::Floats).collect();
        let parts = self.exchange(parts)?.into_iter();
        let floats = parts.flat_map(|part| match part {
            Message::Floats(values) => values,
            Message::Bytes(_) => Vec::new(),
        });
        Ok(floats.collect())
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "thread {} of {}", self.rank, self.to.len())
    }
}

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn local(&self) -> Local {
        Local {
            rank: self.rank,
            size: self.size(),
        }
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        let messages = self.to.iter().map(|_| Message::Bytes(own.to_vec()));
        let messages = self.exchange(messages.collect())?.into_iter();
        let bytes = messages.map(|message| match message {
            Message::Bytes(bytes) => bytes,
            Message::Floats(_) => Vec::new(),
        });
        Ok(bytes.collect())
    }

    fn scatter(
        &self,
        values: &[f32],
        sent: &[usize],
        _received: &[usize],
    ) -> Result<Vec<f32>, TrainError> {
        let mut rest = values;
        let mut parts = Vec::with_capacity(sent.len());
        for &length in sent {
            let (part, after) = rest.split_at(length);
            parts.push(part.to_vec());
            rest = after;
        }
        self.exchange_floats(parts)
    }

    fn collect(&self, own: &[f32], _lengths: &[usize]) -> Result<Vec<f32>, TrainError> {
        self.exchange_floats(self.to.iter().map(|_| own.to_vec()).collect())
    }

    fn abort(&self, _code: u8) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn parts_go_to_their_ranks_in_order() {
        thread::scope(|scope| {
            for rank in Threads::new(3) {
                scope.spawn(move || {
                    let own = rank.rank() as f32;
                    let values = [own, own + 10.0, own + 20.0, own + 20.5];
                    let received = [[1; 3], [1; 3], [2; 3]][rank.rank()];
                    let parts = rank.scatter(&values, &[1, 1, 2], &received).unwrap();
                    let expected = [
                        vec![0.0, 1.0, 2.0],
                        vec![10.0, 11.0, 12.0],
                        vec![20.0, 20.5, 21.0, 21.5, 22.0, 22.5],
                    ];
                    assert_eq!(parts, expected[rank.rank()]);
                    let all = rank.collect(&values[..rank.rank()], &[0, 1, 2]).unwrap();
                    assert_eq!(all, [1.0, 2.0, 12.0]);
                    assert_eq!(rank.first_of(&[own as u8 + 7]).unwrap(), [7]);
                });
            }
        });
    }

    #[test]
    fn a_rank_that_has_ended_is_named_and_no_other_waits_for_it() {
        let mut ranks = Threads::new(3);
        drop(ranks.remove(1));
        thread::scope(|scope| {
            for rank in ranks {
                scope.spawn(move || {
                    let error = rank.wait().unwrap_err().to_string();
                    assert!(error.contains("rank 1 of 3"), "{error}");
                });
            }
        });
    }
}
