//! Threads of each rank on a machine that several ranks share.

use super::Ranks;
use crate::TrainError;
use std::fs;
use std::num::NonZero;
use std::thread::available_parallelism;

/// Cores of a machine that a rank computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Number of cores that the rank may use.
    own: usize,
    /// Number of ranks that may use the same cores.
    sharing: usize,
    /// Number of cores of the machine.
    machine: usize,
    /// Number of ranks on the machine.
    ranks: usize,
}

impl Cores {
    /// Compares the cores of all ranks.
    ///
    /// # Errors
    /// [`TrainError::Rank`] if another rank has ended.
    pub fn of(ranks: &dyn Ranks) -> Result<Self, TrainError> {
        let own = format!("{}\n{}", machine_name(), allowed());
        let all = ranks.gather(own.as_bytes())?;
        let sharing = all.iter().filter(|other| **other == own.as_bytes()).count();
        let available = available_parallelism().map_or(1, NonZero::get);
        let online = fs::read_to_string("/sys/devices/system/cpu/online");
        let machine = online.map_or(available, |list| count(&list));
        Ok(Self {
            own: available,
            sharing: sharing.max(1),
            machine: machine.max(available),
            ranks: ranks.local().size,
        })
    }

    /// Returns the number of threads for the rank.
    pub fn threads(&self) -> usize {
        (self.own / self.sharing).max(1)
    }

    /// Describes cores that the launcher keeps from the ranks.
    pub fn warning(&self) -> Option<String> {
        let share = (self.machine / self.ranks).max(1);
        (self.own < share && self.sharing == 1).then(|| {
            format!(
                "the launcher binds each rank to {} of {} cores, and its share would be {share}: start it with `mpirun --bind-to \
                 none`, or with more cores for each task (`srun --cpus-per-task {share}`)",
                self.own, self.machine
            )
        })
    }
}

/// Returns the name of the machine; empty if the system does not tell it.
fn machine_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

/// Returns the cores that the process may use, as the system lists them; empty if it does not.
fn allowed() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().into()
}

/// Counts the cores of a list such as `0-3,8`.
fn count(list: &str) -> usize {
    let ranges = list.trim().split(',');
    let lengths = ranges.filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some((last + 1).saturating_sub(first))
    });
    lengths.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cores_is_counted() {
        assert_eq!(["0", "0-1\n", "0-3,8,10-11"].map(count), [1, 2, 7]);
    }

    #[test]
    fn ranks_on_the_same_cores_share_them_and_a_binding_to_one_core_is_told() {
        let cores = |own, sharing, machine, ranks| Cores {
            own,
            sharing,
            machine,
            ranks,
        };
        // Four ranks that may use all of 16 cores, and that a launcher gave four each.
        for unbound in [cores(16, 4, 16, 4), cores(4, 1, 16, 4)] {
            assert_eq!((unbound.threads(), unbound.warning()), (4, None));
        }
        let bound = cores(1, 1, 16, 2);
        assert_eq!(bound.threads(), 1);
        let warning = bound.warning().unwrap();
        for part in ["1 of 16 cores", "would be 8", "--bind-to none"] {
            assert!(warning.contains(part), "{warning}");
        }
        // More ranks than cores.
        assert_eq!(cores(2, 4, 2, 4).threads(), 1);
        assert_eq!(cores(2, 4, 2, 4).warning(), None);
        assert_eq!(Cores::of(&super::super::Alone).unwrap().sharing, 1);
    }
}
