//! Report on a device, as text and as JSON.

use crate::device::{self, DeviceName};
use crate::tools::build::Build;
use crate::tools::text::{rows, titled};
use burn::tensor::{DType, Device};
use lora_core::ops::{DeviceFacts, tolerance};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

const MIB: f64 = (1 << 20) as f64;

/// Outcome of an examination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All checks agree with the CPU.
    Ok,
    /// All checks that were run agree with the CPU, and others were not run.
    #[default]
    Incomplete,
    /// A check differs from the CPU, or failed.
    Wrong,
    /// The device cannot be opened, does not answer, or fails in every check.
    Unusable,
}

/// Outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The difference is within the tolerance.
    Ok,
    /// The difference exceeds the tolerance, or a value is not finite.
    Wrong,
    /// The device returned an error or panicked.
    Failed,
    /// Not run.
    Skipped,
}

/// Speed of an operation, forward and backward.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Number of units.
    pub value: f64,
    /// `GFLOP/s` for products, `GB/s` for operations that are bound by memory.
    pub unit: &'static str,
}

/// Comparison of an operation or a training step with the CPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Name of the operation, or family of the model.
    pub name: String,
    /// Outcome.
    pub status: Status,
    /// Largest difference from the CPU. For an operation it is relative to the largest value of the tensor, for a step relative
    /// to the loss or to the norm of the gradients. `null` if a value is not finite or the check was not run.
    pub error: Option<f64>,
    /// Largest difference that is allowed.
    pub tolerance: f64,
    /// Tensor with the largest difference.
    pub part: Option<&'static str>,
    /// Speed of an operation.
    pub speed: Option<Speed>,
    /// Duration of the check in seconds, with the tuning and compilation of its kernels.
    pub seconds: f64,
    /// Message of the device, or reason that the check was not run.
    pub message: Option<String>,
}

impl Check {
    pub(super) fn skipped(name: &str, tolerance: f64) -> Self {
        Self {
            name: name.into(),
            status: Status::Skipped,
            error: None,
            tolerance,
            part: None,
            speed: None,
            seconds: 0.0,
            message: None,
        }
    }

    fn line(&self) -> String {
        let error = match (self.status, self.error) {
            (Status::Ok | Status::Wrong, Some(error)) => format!("{error:.1e}"),
            (Status::Wrong, None) => "not finite".into(),
            _ => "-".into(),
        };
        let speed = match self.speed {
            Some(Speed { value, unit }) => format!("{value:.1} {unit}"),
            None => String::new(),
        };
        let status = match self.status {
            Status::Ok => "ok".into(),
            Status::Wrong => format!("WRONG: {}", self.part.unwrap_or_default()),
            Status::Failed => format!("FAILED: {}", first_line(self.message.as_deref())),
            Status::Skipped => format!("not run: {}", first_line(self.message.as_deref())),
        };
        let allowed = format!("{:.0e}", self.tolerance);
        format!(
            "{:18} {error:>10} {allowed:>8} {speed:>16}  {status}",
            self.name
        )
    }
}

fn first_line(message: Option<&str>) -> &str {
    message
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
}

/// Facts about a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DeviceReport {
    /// Value of `--device`.
    pub option: String,
    /// Name of the hardware, as the driver reports it.
    pub name: String,
    /// Runtime of the backend, such as `wgpu` or `cuda`.
    pub runtime: String,
    /// Target that kernels are compiled for.
    pub target: Option<String>,
    /// True for a CPU, also below a GPU interface.
    pub software: bool,
    /// Memory in MiB, if the backend reports it.
    pub memory_mib: Option<f64>,
    /// Largest buffer that the device binds, in MiB; `null` without such a limit.
    pub max_buffer_mib: Option<f64>,
    /// True if f32 matrices may be multiplied in TF32.
    pub tf32: bool,
    /// Element types that the matrix units multiply.
    pub matrix_units: Vec<String>,
    /// Support of element types by their names.
    pub types: BTreeMap<&'static str, bool>,
    /// Tolerance of an operation, relative to the largest value of a tensor.
    pub tolerance: f64,
    /// Device that it is compared with; `null` if no CPU backend is compiled in.
    pub reference: Option<String>,
    /// Device memory that the backend held at the end, in MiB, if it reports it.
    pub reserved_mib: Option<f64>,
    /// Known wrong results of this version on this backend.
    pub known_problems: Vec<String>,
}

impl DeviceReport {
    pub(in crate::tools) fn new(
        option: DeviceName,
        facts: DeviceFacts,
        device: &Device,
        reference: Option<&Device>,
    ) -> Self {
        let types = [
            ("f16", DType::F16),
            ("bf16", DType::BF16),
            ("f64", DType::F64),
            ("i64", DType::I64),
        ];
        Self {
            option: option.to_string(),
            known_problems: device::known_problems(&facts, device::has_fusion()),
            name: facts.name,
            runtime: facts.runtime,
            target: facts.target,
            software: facts.software,
            memory_mib: facts.memory_bytes.map(|bytes| bytes as f64 / MIB),
            max_buffer_mib: facts.max_buffer_bytes.map(|bytes| bytes as f64 / MIB),
            tf32: facts.tf32,
            matrix_units: facts.matrix_units,
            types: types
                .map(|(name, dtype)| (name, device.supports_dtype(dtype)))
                .into(),
            tolerance: tolerance(device),
            reference: reference.map(device::describe),
            reserved_mib: None,
        }
    }

    /// Returns the facts by their names, for people; `None` for what the backend does not report.
    pub(in crate::tools) fn rows(&self) -> [(&'static str, Option<String>); 8] {
        let types = self.types.iter().filter(|(_, supported)| **supported);
        let mut types: Vec<&str> = types.map(|(name, _)| *name).collect();
        types.insert(0, "f32");
        let units = match self.matrix_units.join(", ") {
            units if units.is_empty() => None,
            units => Some(units),
        };
        let is_open = !self.name.is_empty();
        let tf32 = if self.tf32 { ", products in TF32" } else { "" };
        [
            ("device", is_open.then(|| self.name.clone())),
            (
                "backend",
                is_open.then(|| match &self.target {
                    Some(target) => {
                        format!("{} ({}), kernels for {target}", self.option, self.runtime)
                    }
                    None => format!("{} ({})", self.option, self.runtime),
                }),
            ),
            ("memory", self.memory_mib.map(mib)),
            ("largest buffer", self.max_buffer_mib.map(mib)),
            ("types", is_open.then(|| types.join(", "))),
            ("matrix units", units),
            (
                "tolerance",
                is_open.then(|| format!("{:.0e} of the largest value{tf32}", self.tolerance)),
            ),
            ("held at the end", self.reserved_mib.map(mib)),
        ]
    }
}

/// Published model, and its largest weight, in f32.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// Name of the model.
    pub model: &'static str,
    /// Size of all weights in MiB.
    pub weights_mib: f64,
    /// Name of the largest weight.
    pub largest_weight: String,
    /// Size of the largest weight in MiB.
    pub largest_mib: f64,
    /// Excess of the largest weight over the largest buffer, in MiB; `null` if it fits.
    pub over_mib: Option<f64>,
}

/// Report of `lora doctor`. With `--json` it is one object with these fields as keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DoctorReport {
    /// Version of this format: 1.
    pub doctor: u32,
    /// Version of the program.
    pub version: &'static str,
    /// Version of Burn.
    pub burn: &'static str,
    /// Operating system and architecture.
    pub system: String,
    /// Backends that are compiled in, `fusion` and `hub`.
    pub features: Vec<String>,
    /// Facts about the device.
    pub device: DeviceReport,
    /// Operations, forward and backward.
    pub operations: Vec<Check>,
    /// A LoRA training step of a small model of each family.
    pub steps: Vec<Check>,
    /// Published models.
    pub models: Vec<Fit>,
    /// Reason that the device cannot be used.
    pub failure: Option<String>,
    /// Outcome.
    pub verdict: Verdict,
    /// Duration of the examination in seconds.
    pub seconds: f64,
}

impl DoctorReport {
    pub(super) fn new() -> Self {
        let build = Build::current();
        Self {
            doctor: 1,
            version: build.version,
            burn: build.burn,
            system: build.system,
            features: build.features,
            device: DeviceReport::default(),
            operations: Vec::new(),
            steps: Vec::new(),
            models: Vec::new(),
            failure: None,
            verdict: Verdict::default(),
            seconds: 0.0,
        }
    }

    /// Returns all checks.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.operations.iter().chain(&self.steps)
    }

    fn named(&self, status: Status) -> String {
        let of = |checks: &[Check], before: &str| {
            let found = checks.iter().filter(|check| check.status == status);
            found
                .map(|check| format!("{before}{}", check.name))
                .collect::<Vec<_>>()
        };
        let mut names = of(&self.operations, "");
        names.extend(of(&self.steps, "a step of "));
        names.join(", ")
    }

    /// Derives the verdict from the checks.
    pub(super) fn judge(&mut self) {
        let has = |status| self.checks().any(|check| check.status == status);
        let useful = has(Status::Ok) || has(Status::Wrong);
        self.verdict = if self.failure.is_some() || (has(Status::Failed) && !useful) {
            Verdict::Unusable
        } else if has(Status::Wrong) || has(Status::Failed) {
            Verdict::Wrong
        } else if has(Status::Skipped) || self.operations.is_empty() {
            Verdict::Incomplete
        } else {
            Verdict::Ok
        };
    }

    /// Describes the verdict in a line.
    fn verdict_line(&self) -> String {
        let found = |status, before: &str, after: &str| {
            let names = self.named(status);
            (!names.is_empty()).then(|| format!("{before}{names}{after}"))
        };
        match self.verdict {
            Verdict::Ok => "ok: operations and training steps agree with the CPU".into(),
            Verdict::Incomplete => {
                let names = self.named(Status::Skipped);
                format!("ok so far; not run: {names} (`--time-limit` gives more time)")
            }
            Verdict::Wrong => {
                let parts = [
                    found(Status::Wrong, "wrong numbers in ", ""),
                    found(Status::Failed, "", " failed"),
                ];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                format!(
                    "{}; a newer driver, another backend, or a build without kernel fusion \
                     (`--no-default-features --features flex,BACKEND`) may help",
                    parts.join("; ")
                )
            }
            Verdict::Unusable => {
                let first = self.checks().find_map(|check| check.message.as_deref());
                let reason = self.failure.as_deref().or(first);
                format!("unusable: {}", reason.unwrap_or("every check failed"))
            }
        }
    }
}

fn mib(mib: f64) -> String {
    format!("{mib:.0} MiB")
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = &self.device;
        let program = format!(
            "lora {}, Burn {}, {}, features {}",
            self.version,
            self.burn,
            self.system,
            self.features.join(", ")
        );
        rows(f, 16, [("program", Some(program))])?;
        rows(f, 16, device.rows())?;
        for problem in &device.known_problems {
            writeln!(f, "known problem    {problem}")?;
        }
        let header = format!("{:18} {:>10} {:>8} {:>16}", "", "error", "allowed", "speed");
        for (title, checks) in [
            ("operations", &self.operations),
            ("training steps", &self.steps),
        ] {
            if !checks.is_empty() {
                let lines = checks.iter().map(Check::line);
                writeln!(f)?;
                titled(f, title, [header.clone()].into_iter().chain(lines))?;
            }
        }
        let over = self.models.iter().filter_map(|fit| {
            let over = fit.over_mib?;
            Some(format!(
                "{}: `{}` takes {}, {} more than a buffer of this device",
                fit.model,
                fit.largest_weight,
                mib(fit.largest_mib),
                mib(over)
            ))
        });
        let over: Vec<String> = over.collect();
        if !over.is_empty() {
            writeln!(f)?;
            titled(f, "models with a weight above the largest buffer", over)?;
        }
        writeln!(f)?;
        writeln!(f, "{:16} {}", "verdict", self.verdict_line())
    }
}
