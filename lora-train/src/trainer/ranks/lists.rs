//! Results that ranks share out.

use super::Ranks;
use crate::TrainError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Returns the results of all ranks one after the other, in the order of the ranks, at every rank.
///
/// # Errors
/// [`TrainError::Rank`] if another rank has ended, or sent results of another kind.
pub(crate) fn gather_results<T: Serialize + DeserializeOwned>(
    ranks: &dyn Ranks,
    own: Vec<T>,
) -> Result<Vec<T>, TrainError> {
    if ranks.is_alone() {
        return Ok(own);
    }
    // Results are made of numbers and strings, which always have a JSON form.
    let own = serde_json::to_vec(&own).unwrap_or_default();
    let mut all = Vec::new();
    for (rank, part) in ranks.gather(&own)?.into_iter().enumerate() {
        let unread = |_| TrainError::rank(rank, ranks.size(), "sent results of another version");
        all.extend(serde_json::from_slice::<Vec<T>>(&part).map_err(unread)?);
    }
    Ok(all)
}

/// Returns a number of the first rank, such as that of the results that its file has, at every rank.
///
/// # Errors
/// [`TrainError::Rank`] if another rank has ended.
pub(crate) fn number_of_first(ranks: &dyn Ranks, own: usize) -> Result<usize, TrainError> {
    if ranks.is_alone() {
        return Ok(own);
    }
    let first = ranks.first_of(&(own as u64).to_le_bytes())?;
    let bytes = first.try_into();
    let bytes = bytes.map_err(|_| TrainError::rank(0, ranks.size(), "sent no number"))?;
    Ok(u64::from_le_bytes(bytes) as usize)
}
