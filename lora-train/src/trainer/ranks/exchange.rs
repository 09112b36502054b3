//! Sums of a step over all ranks.

use super::Ranks;
use super::block::block;
use super::buffer::Layout;
use super::tree::Tree;
use crate::TrainError;
use crate::host;
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Largest number of gradients that are summed at once: it bounds the memory, and a message of MPI has at most 2³¹ values.
const PIECE: usize = 1 << 24;

/// Bytes and time of the exchange between ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ExchangeReport {
    /// Number of steps.
    pub steps: usize,
    /// Bytes that this rank has sent for sums of gradients.
    pub bytes: u64,
    /// Seconds of copies from and to the device, of messages and of additions.
    pub seconds: f64,
    /// Seconds of waiting for slower ranks.
    pub waiting: f64,
}

/// Sums of a step.
pub(in crate::trainer) struct Summed {
    /// Gradients of the step.
    pub grads: GradientsParams,
    /// Loss of the step, `[1]`.
    pub loss: Tensor<1>,
    /// Reason to stop, if a rank has one.
    pub stop: Option<String>,
}

/// Exchange of a step's values with the other ranks. One rank alone exchanges nothing.
pub(crate) struct Exchange {
    ranks: Arc<dyn Ranks>,
    /// Layout of the gradients of the last step.
    layout: Layout,
    pub report: ExchangeReport,
}

impl Exchange {
    pub fn new(ranks: Arc<dyn Ranks>) -> Self {
        Self {
            ranks,
            layout: Layout::default(),
            report: ExchangeReport::default(),
        }
    }

    pub fn ranks(&self) -> &dyn Ranks {
        &*self.ranks
    }

    /// Returns the weight of all labels of a step and its number of tokens, from those of this rank's batches.
    pub fn totals(&self, weights: &[f64], tokens: usize) -> Result<(f64, usize), TrainError> {
        if self.ranks.is_alone() {
            return Ok((weights.iter().sum(), tokens));
        }
        let mut own = vec![tokens as f64];
        own.extend(weights);
        let all = self.ranks.gather_numbers(&own)?;
        let tokens: f64 = all.iter().filter_map(|own| own.first()).sum();
        // One after the other, as if all were here.
        let weights = all.iter().flat_map(|own| own.iter().skip(1));
        Ok((weights.sum(), tokens as usize))
    }

    /// Adds the gradients and the losses of a step with one batch at each rank.
    pub fn sum_of_one_each<M: Module>(
        &mut self,
        model: &M,
        grads: GradientsParams,
        loss: Tensor<1>,
    ) -> Result<(GradientsParams, Tensor<1>), TrainError> {
        let mut tree = Tree::new();
        tree.push(self.ranks.rank(), grads, |a, b| add_gradients(model, a, b));
        let ranks = self.ranks.size();
        let summed = self.sum(model, tree, vec![loss], ranks, None)?;
        Ok((summed.grads, summed.loss))
    }

    /// Adds the gradients and the losses of all `batches` of a step. `grads` and `losses` are those of this rank's batches, and
    /// `stop` its reason to stop.
    pub(in crate::trainer) fn sum<M: Module>(
        &mut self,
        model: &M,
        grads: Tree<GradientsParams>,
        losses: Vec<Tensor<1>>,
        batches: usize,
        stop: Option<String>,
    ) -> Result<Summed, TrainError> {
        if self.ranks.is_alone() {
            let grads = grads.total(|a, b| add_gradients(model, a, b));
            return Ok(Summed {
                grads: grads.unwrap_or_default(),
                loss: Tensor::cat(losses, 0).sum(),
                stop,
            });
        }
        let device = &device_of(model);
        let parts = grads.into_parts();
        let mut own = Layout::default();
        for part in &parts {
            own.add(Layout::of(model, part));
        }
        let losses = if losses.is_empty() {
            Vec::new()
        } else {
            host::values(Tensor::cat(losses, 0))?
        };
        host::wait(device)?;

        let arrived = Instant::now();
        let header = Header {
            layout: own.digest(),
            losses,
            stop,
        };
        let headers = self.ranks.gather(&header.to_bytes())?;
        let headers = self.read_all(&headers, Header::from_bytes)?;
        let start = Instant::now();
        self.report.waiting += (start - arrived).as_secs_f64();
        let known = self.layout.digest();
        if headers
            .iter()
            .any(|header| header.layout != 0 && header.layout != known)
        {
            let layouts = self.ranks.gather(&own.to_bytes())?;
            let layouts = self.read_all(&layouts, Layout::from_bytes)?;
            self.layout = Layout::default();
            layouts
                .into_iter()
                .for_each(|layout| self.layout.add(layout));
        }
        let layout = &self.layout;
        let parts = parts.into_iter().map(|part| layout.read(model, part));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let (sum, bytes) = sum_of_parts(&*self.ranks, &parts, self.layout.len(), batches)?;
        let grads = self.layout.write(model, &sum, device);
        let mut losses = Vec::with_capacity(batches);
        let mut stop = None;
        for header in headers {
            losses.extend(header.losses);
            stop = stop.or(header.stop);
        }
        self.report.steps += 1;
        self.report.bytes += bytes;
        self.report.seconds += start.elapsed().as_secs_f64();
        Ok(Summed {
            grads,
            loss: Tensor::<1>::from_floats(losses.as_slice(), device).sum(),
            stop,
        })
    }

    /// Reads the message of each rank.
    fn read_all<T>(
        &self,
        messages: &[Vec<u8>],
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, TrainError> {
        let messages = messages.iter().enumerate();
        let read = messages.map(|(rank, message)| {
            let unread =
                || TrainError::rank(rank, self.ranks.size(), "sent a message of another version");
            read(message).ok_or_else(unread)
        });
        read.collect()
    }
}

/// Returns the device of a model's gradients.
fn device_of<M: Module>(model: &M) -> Device {
    let devices = model.devices();
    devices
        .into_iter()
        .next()
        .unwrap_or_default()
        .without_autodiff()
}

/// Adds two sets of gradients.
pub(in crate::trainer) fn add_gradients<M: Module>(
    model: &M,
    first: GradientsParams,
    second: GradientsParams,
) -> GradientsParams {
    let mut sum = GradientsAccumulator::new();
    sum.accumulate(model, first);
    sum.accumulate(model, second);
    sum.grads()
}

/// Message of a rank before the sum of the gradients.
struct Header {
    /// Digest of the layout of its gradients; 0 if it had no batch.
    layout: u64,
    /// Losses of its batches.
    losses: Vec<f32>,
    /// Reason to stop.
    stop: Option<String>,
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.layout.to_le_bytes().to_vec();
        bytes.extend((self.losses.len() as u32).to_le_bytes());
        bytes.extend(self.losses.iter().flat_map(|loss| loss.to_le_bytes()));
        if let Some(stop) = &self.stop {
            bytes.push(1);
            bytes.extend(stop.bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&layout, bytes) = bytes.split_first_chunk()?;
        let (&count, bytes) = bytes.split_first_chunk()?;
        let losses = (u32::from_le_bytes(count) as usize).checked_mul(4)?;
        let (losses, stop) = bytes.split_at_checked(losses)?;
        let (losses, _) = losses.as_chunks();
        let stop = stop.split_first();
        let stop = stop.map(|(_, text)| String::from_utf8_lossy(text).into_owned());
        Some(Self {
            layout: u64::from_le_bytes(layout),
            losses: losses
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect(),
            stop,
        })
    }
}

/// Adds the partial sums of all ranks, each of `length` values, in the tree of a step with `batches` batches. Also returns the
/// number of bytes that this rank sent.
///
/// Each rank adds one share of the values, for which the others send it theirs, and sends the result to all: each value crosses the
/// network twice, as in a ring, whatever the number of ranks.
fn sum_of_parts(
    ranks: &dyn Ranks,
    parts: &[Vec<f32>],
    length: usize,
    batches: usize,
) -> Result<(Vec<f32>, u64), TrainError> {
    let (own, size) = (ranks.rank(), ranks.size());
    let tree = |rank| Tree::of_positions(block(batches, rank, size));
    let mut sum = Vec::with_capacity(length);
    let mut values = 0;
    while sum.len() < length {
        let piece = sum.len()..length.min(sum.len() + PIECE);
        let shares: Vec<Range<usize>> = (0..size).map(|rank| share(&piece, rank, size)).collect();
        let mut buffer = Vec::with_capacity(piece.len() * parts.len());
        for share in &shares {
            for part in parts {
                buffer.extend_from_slice(&part[share.clone()]);
            }
        }
        let sent: Vec<usize> = shares
            .iter()
            .map(|share| share.len() * parts.len())
            .collect();
        let share = shares[own].len();
        let received: Vec<usize> = (0..size).map(|rank| tree(rank).parts() * share).collect();
        let others = ranks.scatter(&buffer, &sent, &received)?;
        drop(buffer);

        let mut rest = others.as_slice();
        let mut total = Tree::new();
        for rank in 0..size {
            let values = tree(rank).map(|()| {
                let (part, after) = rest.split_at(share);
                rest = after;
                part.to_vec()
            });
            total.append(values, added);
        }
        let total = total.total(added).unwrap_or_default();
        let lengths: Vec<usize> = shares.iter().map(Range::len).collect();
        sum.extend(ranks.collect(&total, &lengths)?);
        values += sent.iter().sum::<usize>() - sent[own] + share * (size - 1);
    }
    Ok((sum, (values * size_of::<f32>()) as u64))
}

/// Returns the bytes that each rank sends for the sum of `values` gradients in a step, where each has one partial sum.
pub(crate) fn bytes_sent(values: usize, ranks: usize) -> u64 {
    let others = ranks.max(1) - 1;
    2 * (values * size_of::<f32>() * others / ranks.max(1)) as u64
}

/// Returns the values of a piece that a rank adds.
fn share(piece: &Range<usize>, rank: usize, ranks: usize) -> Range<usize> {
    let at = |rank| piece.start + piece.len() * rank / ranks;
    at(rank)..at(rank + 1)
}

fn added(mut first: Vec<f32>, second: Vec<f32>) -> Vec<f32> {
    for (first, second) in first.iter_mut().zip(second) {
        *first += second;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::super::{Alone, Threads};
    use super::*;
    use std::thread;

    /// Values whose sum depends on the order of additions.
    fn gradient(batch: usize, length: usize) -> Vec<f32> {
        let value = |i: usize| ((batch * 7919 + i * 104_729) % 1009) as f32 / 997.0 - 0.4;
        (0..length).map(value).collect()
    }

    fn sum(ranks: &dyn Ranks, length: usize, batches: usize) -> Vec<f32> {
        let mut tree = Tree::new();
        for batch in block(batches, ranks.rank(), ranks.size()) {
            tree.push(batch, gradient(batch, length), added);
        }
        sum_of_parts(ranks, &tree.into_parts(), length, batches)
            .unwrap()
            .0
    }

    #[test]
    fn any_number_of_ranks_has_the_bits_of_one() {
        // Fewer values than ranks, and batches that are no multiple of them.
        for (length, batches) in [(1001, 8), (2, 4), (37, 7), (64, 1), (0, 4)] {
            let alone = sum(&Alone, length, batches);
            let mut tree = Tree::new();
            for batch in 0..batches {
                tree.push(batch, gradient(batch, length), added);
            }
            assert_eq!(Some(&alone), tree.total(added).as_ref());
            for size in [2, 3, 4, 5] {
                thread::scope(|scope| {
                    for rank in Threads::new(size) {
                        let alone = &alone;
                        scope.spawn(move || {
                            assert_eq!(&sum(&rank, length, batches), alone, "{rank:?}");
                        });
                    }
                });
            }
        }
    }

    #[test]
    fn the_bytes_of_a_step_are_those_of_a_ring() {
        let length = 1200;
        for size in [2, 3, 4] {
            thread::scope(|scope| {
                for rank in Threads::new(size) {
                    scope.spawn(move || {
                        let parts = [gradient(rank.rank(), length)];
                        let (_, bytes) = sum_of_parts(&rank, &parts, length, size).unwrap();
                        assert_eq!(bytes, bytes_sent(length, size));
                    });
                }
            });
        }
        assert_eq!((bytes_sent(7, 1), bytes_sent(100, 4)), (0, 600));
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header {
            layout: 1 << 40,
            losses: vec![0.5, f32::NAN],
            stop: Some("interrupted".into()),
        };
        let read = Header::from_bytes(&header.to_bytes()).unwrap();
        assert_eq!((read.layout, read.losses.len()), (1 << 40, 2));
        assert!(read.losses[1].is_nan());
        assert_eq!(read.stop.as_deref(), Some("interrupted"));
        assert!(Header::from_bytes(&header.to_bytes()[..15]).is_none());
    }
}
