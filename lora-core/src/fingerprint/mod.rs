//! Fingerprint of an adapter's base: names and shapes of all its tensors, and hashes of the values of a few.
//!
//! An adapter loads on any base of fitting shapes, including bases that it was not trained on. Therefore every adapter that
//! this crate writes has a fingerprint of its base in the file's metadata, which PEFT ignores, and reading compares it. Fully trained
//! modules and output layers are left out: training changes them.
//!
//! | file | contents |
//! | --- | --- |
//! | `base` | [`BaseFingerprint`]: the fingerprint in a file's metadata |
//! | `outline` | tensors that a fingerprint covers, without their values |
//! | `hash` | hashes of names, shapes and values |
//! | `difference` | comparison of two fingerprints |

mod base;
mod difference;
mod hash;
mod outline;

pub(crate) use base::BASE_KEY;
pub use base::BaseFingerprint;
pub(crate) use outline::BaseOutline;
