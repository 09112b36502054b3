//! Examination of a device: facts, the operations and training steps compared with the CPU, and models that do not fit.
//!
//! | file | contents |
//! | --- | --- |
//! | `examination` | the checks in their order, on a thread of their own with a time limit |
//! | `cases` | operations of `lora_core::ops` with their inputs and their work |
//! | `compare` | comparison of tensors, and the time of an operation |
//! | `steps` | a training step of each family |
//! | `fits` | published models whose weights exceed the limit of a buffer |
//! | `report` | [`DoctorReport`] and its JSON |

mod cases;
mod compare;
mod examination;
mod fits;
mod report;
mod steps;

pub use report::{Check, DeviceReport, DoctorReport, Fit, Speed, Status, Verdict};

use crate::TrainError;
use crate::device::DeviceName;
use crate::progress::Screen;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Time limit in seconds, unless the options have another.
const TIME_LIMIT: u64 = 120;

/// Options of `lora doctor`.
#[derive(Args, Clone, Debug, Default)]
pub struct DoctorOptions {
    /// Device to examine [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
    /// Write the report as a JSON object, to attach to a bug report: to FILE, or instead of the text if none is given.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Number of seconds after which no further check is started [default: 120].
    #[arg(long, value_name = "SECONDS")]
    pub time_limit: Option<u64>,
}

/// Examines a device. A device that fails is reported, not an error.
///
/// # Errors
/// [`TrainError::Config`] if the backend is not compiled in.
pub fn doctor(options: &DoctorOptions, screen: &Screen) -> Result<DoctorReport, TrainError> {
    let name = options.device.unwrap_or(DeviceName::Auto);
    if name != DeviceName::Auto && !crate::device::backends().contains(&name) {
        // Fails, with the names of the backends that are there.
        crate::device::open(name)?;
    }
    let limit = Duration::from_secs(options.time_limit.unwrap_or(TIME_LIMIT));
    Ok(examination::examine(name, limit, |_, _| (), screen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use compare::Part;

    fn examined(tamper: fn(&str, &mut [Part])) -> DoctorReport {
        let limit = Duration::from_secs(600);
        examination::examine(DeviceName::Flex, limit, tamper, &Screen::quiet())
    }

    #[test]
    fn the_cpu_agrees_with_itself() {
        let report = examined(|_, _| ());
        assert_eq!(report.verdict, Verdict::Ok, "{report}");
        assert!(
            report.checks().all(|check| check.status == Status::Ok),
            "{report}"
        );
        assert!(
            report.operations.iter().all(|check| check.speed.is_some()),
            "{report}"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["doctor"], &json["verdict"]),
            (&1.into(), &"ok".into())
        );
        assert_eq!(json["device"]["runtime"], "flex");
    }

    #[test]
    fn a_wrong_operation_and_one_that_panics_are_named_and_the_rest_is_examined() {
        let report = examined(|operation, parts| match operation {
            "softmax" => parts[0].values[3] += 1e-3,
            "layer_norm" => parts[1].values[0] = f32::NAN,
            "gelu" => panic!("the device is lost"),
            _ => (),
        });
        assert_eq!(report.verdict, Verdict::Wrong);
        let text = report.to_string();
        assert!(
            text.contains("wrong numbers in layer_norm, softmax"),
            "{text}"
        );
        assert!(
            text.contains("gelu failed") && text.contains("the device is lost"),
            "{text}"
        );
        let find = |name| {
            report
                .operations
                .iter()
                .find(|check| check.name == name)
                .unwrap()
        };
        assert_eq!(find("softmax").status, Status::Wrong);
        assert!(find("softmax").error.unwrap() > find("softmax").tolerance);
        assert_eq!(
            (find("layer_norm").status, find("layer_norm").error),
            (Status::Wrong, None)
        );
        assert_eq!(find("gelu").status, Status::Failed);
        assert_eq!(find("linear").status, Status::Ok);
    }

    #[test]
    fn checks_without_time_are_listed_and_not_called_right() {
        let limit = Duration::ZERO;
        let report = examination::examine(DeviceName::Flex, limit, |_, _| (), &Screen::quiet());
        assert!(report.checks().all(|check| check.status == Status::Skipped));
        assert_eq!(report.verdict, Verdict::Incomplete);
        assert!(report.to_string().contains("--time-limit"), "{report}");
    }
}
