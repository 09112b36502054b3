//! Example programs, each run by a test.
//!
//! - [`foreign_module`]: adapters on a plain Burn module, with `lora-core` alone
//! - [`fine_tune`]: training from a Rust program
//! - [`classify`]: fine-tuning an encoder to classify sentences, and predicting with it
//! - [`multi_adapter`]: several adapters on one base, activated by name, mixed in one batch, merged in turn
//! - [`application`]: inference with an adapter in an application, with `lora-models` alone
//! - [`merge_and_export`]: merging an adapter, verifying the result and exporting it
//!
//! The code in the README is compiled and run as a documentation test of this crate.
#![recursion_limit = "256"]

pub mod application;
pub mod classify;
pub mod fine_tune;
pub mod foreign_module;
pub mod merge_and_export;
pub mod multi_adapter;

/// The README, whose Rust code runs as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
