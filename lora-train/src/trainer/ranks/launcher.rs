//! Ranks of a launcher such as `mpirun` or `srun`.

use super::{Alone, Ranks};
use crate::TrainError;
use std::sync::Arc;

/// Variables in which launchers tell a process the number of ranks. With PMIx, only the number of the rank is always there.
const SIZES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];
const PMIX_RANK: &str = "PMIX_RANK";

/// Variable that tells a process that a launcher started it.
fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    let size = |name: &'static str| {
        let size = variable(name)?.parse().ok();
        Some(Launched {
            variable: name,
            size,
        })
    };
    let pmix = || {
        variable(PMIX_RANK).map(|_| Launched {
            variable: PMIX_RANK,
            size: variable("SLURM_STEP_NUM_TASKS").and_then(|size| size.parse().ok()),
        })
    };
    SIZES.into_iter().find_map(size).or_else(pmix)
}

/// Process of a launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "mpi", allow(dead_code, reason = "MPI knows the size"))]
struct Launched {
    /// Variable by which it is known.
    variable: &'static str,
    /// Number of ranks, if a variable tells it.
    size: Option<usize>,
}

/// Joins the ranks of the launcher that started this process; [`Alone`] without one.
///
/// MPI is initialized if a launcher is found, once in a process. The threads of this process are limited to its share of the
/// machine's cores then, unless `RAYON_NUM_THREADS` is set. `note` receives what the user should know. [`finish`] is to be called
/// at the end.
///
/// # Errors
/// If a launcher started several ranks and the feature `mpi` is not compiled in, or MPI cannot be initialized.
pub fn join(note: &mut dyn FnMut(String)) -> Result<Arc<dyn Ranks>, TrainError> {
    match launched(|name| std::env::var(name).ok()) {
        None => Ok(Arc::new(Alone)),
        Some(launched) => joined(launched, note),
    }
}

#[cfg(not(feature = "mpi"))]
fn joined(launched: Launched, _note: &mut dyn FnMut(String)) -> Result<Arc<dyn Ranks>, TrainError> {
    match launched.size {
        Some(size) if size > 1 => {
            let message = format!(
                "is not compiled in, and a launcher started {size} processes ({} is set), which would all do the same: build \
                 with `--features lora-train/mpi`, or start one process",
                launched.variable
            );
            Err(TrainError::config("mpi", message))
        }
        _ => Ok(Arc::new(Alone)),
    }
}

#[cfg(feature = "mpi")]
fn joined(_launched: Launched, note: &mut dyn FnMut(String)) -> Result<Arc<dyn Ranks>, TrainError> {
    let ranks = super::mpi::Mpi::start()?;
    if !ranks.is_alone() {
        let cores = super::Cores::of(&ranks)?;
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            // An application that has started its threads has its reasons.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(cores.threads());
            let _ = pool.build_global();
        }
        if ranks.is_first() {
            note(format!(
                "ranks     {}, of them {} here, with {} threads each",
                ranks.size(),
                ranks.local().size,
                rayon::current_num_threads()
            ));
            if let Some(warning) = cores.warning() {
                note(format!("warning: {warning}"));
            }
        }
    }
    Ok(Arc::new(ranks))
}

/// Tells the launcher that this process has done its work.
pub fn finish() {
    #[cfg(feature = "mpi")]
    super::mpi::finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[(&str, &str)]) -> Option<Launched> {
        launched(|name| {
            let value = set.iter().find(|(set, _)| *set == name);
            value.map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        let launched = |variable, size| Some(Launched { variable, size });
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("SLURM_STEP_NUM_TASKS", "4")]), None);
        assert_eq!(
            with(&[("OMPI_COMM_WORLD_SIZE", "4"), (PMIX_RANK, "1")]),
            launched("OMPI_COMM_WORLD_SIZE", Some(4))
        );
        assert_eq!(with(&[("PMI_SIZE", "2")]), launched("PMI_SIZE", Some(2)));
        let slurm = [(PMIX_RANK, "0"), ("SLURM_STEP_NUM_TASKS", "8")];
        assert_eq!(with(&slurm), launched(PMIX_RANK, Some(8)));
        assert_eq!(with(&slurm[..1]), launched(PMIX_RANK, None));
    }

    #[cfg(not(feature = "mpi"))]
    #[test]
    fn several_processes_of_a_build_without_mpi_are_refused() {
        let join = |size| {
            let launched = Launched {
                variable: "PMI_SIZE",
                size,
            };
            joined(launched, &mut |_| {}).map(|ranks| ranks.size())
        };
        assert_eq!(join(Some(1)).unwrap(), 1);
        let error = join(Some(2)).unwrap_err().to_string();
        for part in ["PMI_SIZE", "2 processes", "lora-train/mpi"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
