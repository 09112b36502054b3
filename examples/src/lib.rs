//! Small programs to copy from, each run by a test.
//!
//! - [`foreign_module`]: adapters on somebody else's plain Burn module, with `lora-core` alone
//! - [`fine_tune`]: a training run from a program of one's own
//! - [`classify`]: an encoder that learns to classify sentences, and is used
//! - [`multi_adapter`]: several adapters on one base, activated by name, mixed in one batch, merged in turn
//! - [`application`]: a model with its adapter inside an application, with `lora-models` alone
//! - [`merge_and_export`]: an adapter merged, checked, and written for deployment
//!
//! The code of the README is compiled and run with this crate too.
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
