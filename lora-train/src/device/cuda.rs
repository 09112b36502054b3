//! Files of the CUDA toolkit that a run needs.
//!
//! CubeCL compiles kernels with LLVM, which takes exponentials, logarithms and the like from NVIDIA's library `libdevice`.
//! Without it each such kernel fails to compile, which CubeCL 0.11 reports as a line of its log: the error appears where a
//! result is read.

use std::path::{Path, PathBuf};

/// Library of mathematical functions, below the directory of a CUDA toolkit.
const LIBDEVICE: &str = "nvvm/libdevice/libdevice.10.bc";
/// Directories of a CUDA toolkit that CubeCL searches in this order, unless `CUDA_PATH` is set.
const ROOTS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];

/// Checks that the files are there.
///
/// # Errors
/// A message that says which file is missing, where it was searched, and how to get it.
pub(super) fn check() -> Result<(), String> {
    let path = std::env::var("CUDA_PATH").ok();
    find(path.as_deref().map(Path::new), &ROOTS.map(Path::new)).map(|_| ())
}

/// Searches the library as CubeCL does: in `cuda_path` alone if it is set, and else in the first root that has such a folder.
fn find(cuda_path: Option<&Path>, roots: &[&Path]) -> Result<PathBuf, String> {
    let has_folder = |root: &&Path| root.join("nvvm/libdevice").is_dir();
    let root = cuda_path.or_else(|| roots.iter().copied().find(has_folder));
    let file = root.map(|root| root.join(LIBDEVICE));
    if let Some(file) = file.filter(|file| file.is_file()) {
        return Ok(file);
    }
    let searched = match cuda_path {
        Some(path) => format!("in {}, which CUDA_PATH names", path.display()),
        None => {
            let roots: Vec<String> = roots
                .iter()
                .map(|root| root.display().to_string())
                .collect();
            format!("below {}", roots.join(", "))
        }
    };
    Err(format!(
        "CUDA needs {LIBDEVICE} of the CUDA toolkit, and it is not {searched}; install the toolkit, or `pip install \
         nvidia-nvvm`, and set CUDA_PATH to the directory that contains `nvvm`. The driver alone suffices for \
         `--device vulkan`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolkit_without_libdevice_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("nvvm/libdevice");
        std::fs::create_dir_all(&folder).unwrap();
        let empty = tempfile::tempdir().unwrap();
        let error = find(Some(dir.path()), &[]).unwrap_err();
        assert!(
            error.contains("CUDA_PATH names") && error.contains("nvidia-nvvm"),
            "{error}"
        );
        let error = find(None, &[empty.path()]).unwrap_err();
        assert!(
            error.contains(&empty.path().display().to_string()),
            "{error}"
        );

        std::fs::write(folder.join("libdevice.10.bc"), "BC").unwrap();
        assert!(find(Some(dir.path()), &[]).is_ok());
        assert!(find(None, &[empty.path(), dir.path()]).is_ok());
        // As CubeCL has it, `CUDA_PATH` is searched alone.
        assert!(find(Some(empty.path()), &[dir.path()]).is_err());
    }
}
