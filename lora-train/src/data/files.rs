//! Files of the training data, with their shares of an epoch.

use std::path::{Path, PathBuf};

use crate::error::TrainError;

/// Files of the training data, at least one, with their shares of an epoch, if they have some.
///
/// # Examples
/// ```
/// use lora_train::data::DataFiles;
///
/// # fn main() -> Result<(), lora_train::TrainError> {
/// let files = DataFiles::new(&["chat.jsonl:3".into(), "code.jsonl:1".into()])?;
/// assert_eq!(files.paths()[1].to_str(), Some("code.jsonl"));
/// assert_eq!(files.shares(), Some(&[0.75, 0.25][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DataFiles {
    paths: Vec<PathBuf>,
    /// Shares that add up to 1; as many as there are files, or none.
    shares: Vec<f64>,
}

impl DataFiles {
    /// Creates the list of `path` or `path:share` each. What exists with a colon and a number in its name is a path.
    ///
    /// # Errors
    /// [`TrainError::Config`] without any file, for a share that is no number above 0, for shares of some of the files only, and for a
    /// file with two shares.
    pub fn new(given: &[PathBuf]) -> Result<Self, TrainError> {
        let refuse = |message: String| Err(TrainError::config("data", message));
        let mut paths = Vec::with_capacity(given.len());
        let mut shares = Vec::new();
        for text in given {
            let (path, share) = with_share(text);
            if let Some(share) = share {
                if !(share > 0.0 && share.is_finite()) {
                    let text = text.display();
                    return refuse(format!(
                        "`{text}` has the share {share}, expected a number above 0"
                    ));
                }
                if paths.contains(&path) {
                    let path = path.display();
                    return refuse(format!(
                        "{path} is given twice; give it once, with one share"
                    ));
                }
                shares.push(share);
            }
            paths.push(path);
        }
        if paths.is_empty() {
            return refuse("is missing: give --data, or `data` in a recipe".into());
        }
        if !shares.is_empty() && shares.len() < paths.len() {
            let without = given.iter().find(|text| with_share(text).1.is_none());
            let without = without.map_or(String::new(), |path| path.display().to_string());
            return refuse(format!(
                "has shares for some of the files, and {without} has none; give each a share (`{without}:0.5`), or none"
            ));
        }
        let total: f64 = shares.iter().sum();
        for share in &mut shares {
            *share /= total;
        }
        Ok(Self { paths, shares })
    }

    /// Returns the files, in the order in which they were given.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Returns the first file.
    pub fn first(&self) -> &Path {
        &self.paths[0]
    }

    /// Returns true if there is one file only.
    pub fn is_one(&self) -> bool {
        self.paths.len() == 1
    }

    /// Returns the shares, which add up to 1; `None` if the files have none.
    pub fn shares(&self) -> Option<&[f64]> {
        Some(self.shares.as_slice()).filter(|shares| !shares.is_empty())
    }
}

/// Divides a text into path and share.
fn with_share(text: &Path) -> (PathBuf, Option<f64>) {
    let divided = || {
        let (path, share) = text.to_str()?.rsplit_once(':')?;
        let share: f64 = share.parse().ok()?;
        Some((PathBuf::from(path), Some(share))).filter(|_| !path.is_empty())
    };
    if text.exists() {
        return (text.into(), None);
    }
    divided().unwrap_or_else(|| (text.into(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(given: &[&str]) -> Result<DataFiles, String> {
        let given: Vec<PathBuf> = given.iter().map(PathBuf::from).collect();
        DataFiles::new(&given).map_err(|error| error.to_string())
    }

    #[test]
    fn shares_are_relative_and_all_files_have_one_or_none() {
        let two = files(&["a.jsonl:7", "dir/b.csv:3e0"]).unwrap();
        assert_eq!(two.paths(), [Path::new("a.jsonl"), Path::new("dir/b.csv")]);
        assert_eq!(two.shares(), Some(&[0.7, 0.3][..]));
        let plain = files(&["C:\\data\\a.jsonl", "b.jsonl:x", "b.jsonl:x"]).unwrap();
        assert_eq!(plain.shares(), None);
        assert_eq!(plain.paths()[0], Path::new("C:\\data\\a.jsonl"));
        for (given, part) in [
            (&["a:0.5", "b"][..], "b has none"),
            (&["a:0", "b:1"], "the share 0"),
            (&["a:inf"], "the share inf"),
            (&["a:nan"], "the share NaN"),
            (&["a:1", "a:2"], "given twice"),
            (&[], "is missing"),
        ] {
            let message = files(given).unwrap_err();
            assert!(message.contains(part), "{given:?}: {message}");
        }
    }

    #[test]
    fn a_file_with_a_colon_in_its_name_is_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a:0.5");
        std::fs::write(&odd, "").unwrap();
        let found = DataFiles::new(std::slice::from_ref(&odd)).unwrap();
        assert_eq!((found.paths(), found.shares()), (&[odd.clone()][..], None));
        let mut with = odd.clone().into_os_string();
        with.push(":2");
        let found = DataFiles::new(&[with.into()]).unwrap();
        assert_eq!((found.first(), found.shares()), (&*odd, Some(&[1.0][..])));
    }
}
