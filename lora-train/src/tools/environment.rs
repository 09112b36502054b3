//! Facts about the program and this machine, for reports of errors.

use super::build::Build;
use super::doctor::DeviceReport;
use super::text::rows;
use crate::TrainError;
use crate::device::{self, DeviceName};
use clap::Args;
use lora_core::ops::device_facts;
use serde::Serialize;
use std::fmt;

/// Options of `lora env`.
#[derive(Args, Clone, Debug, Default)]
pub struct EnvironmentOptions {
    /// Device to describe [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
    /// Print the facts as one JSON object on the last line.
    #[arg(long)]
    pub json: bool,
}

/// Facts of `lora env`. With `--json` it is one object with these fields as keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Environment {
    /// The build.
    #[serde(flatten)]
    pub build: Build,
    /// Number of threads that the system offers.
    pub threads: Option<usize>,
    /// The device and its limits; `null` if it cannot be opened.
    pub device: Option<DeviceReport>,
    /// Reason that the device cannot be opened.
    pub failure: Option<String>,
}

/// Describes the program and a device. A device that cannot be opened is part of the description, not an error.
///
/// # Errors
/// [`TrainError::Config`] if the backend is not compiled in.
pub fn environment(options: &EnvironmentOptions) -> Result<Environment, TrainError> {
    let name = options.device.unwrap_or(DeviceName::Auto);
    let opened = device::open(name);
    if name != DeviceName::Auto && !device::backends().contains(&name) {
        opened
            .as_ref()
            .map_err(|error| TrainError::config("device", error.to_string()))?;
    }
    let (device, failure) = match opened {
        Ok(device) => {
            let facts = device_facts(&device);
            let report = DeviceReport::new(name, facts, &device, device::host().as_ref());
            (Some(report), None)
        }
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Environment {
        build: Build::current(),
        threads: std::thread::available_parallelism().ok().map(usize::from),
        device,
        failure,
    })
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = &self.build;
        let commit = build.commit.unwrap_or("unknown");
        let program = [
            ("lora", Some(build.version.to_string())),
            ("commit", Some(commit.to_string())),
            ("Burn", Some(build.burn.to_string())),
            ("system", Some(build.system.clone())),
            ("threads", self.threads.map(|threads| threads.to_string())),
            ("features", Some(build.features.join(", "))),
        ];
        rows(f, 16, program)?;
        match &self.device {
            Some(device) => rows(f, 16, device.rows())?,
            None => rows(f, 16, [("device", self.failure.clone())])?,
        }
        Ok(())
    }
}
