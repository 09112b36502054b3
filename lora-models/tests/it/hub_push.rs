//! Adapters that are uploaded to a server made here.

mod answers;
mod commits;
mod refused;
mod server;
