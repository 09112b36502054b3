//! The checks in their order, on a thread of their own: a device that panics or does not answer is reported.

use super::cases::{CASES, Case, Size};
use super::compare::{Part, compare, read, speed};
use super::fits::fits;
use super::report::{Check, DeviceReport, DoctorReport, Fit, Status};
use super::steps::{FAMILIES, step};
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::jobs::device_check::step_tolerance;
use crate::progress::Screen;
use burn::tensor::Device;
use lora_core::ops::{device_facts, device_memory_bytes, tolerance};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Time that a check in progress has at the end of the time limit.
const GRACE: Duration = Duration::from_secs(60);
/// Stack of the thread, in bytes.
const STACK: usize = 16 << 20;

/// Change of an operation's tensors before they are compared, for tests.
pub(super) type Tamper = fn(&str, &mut [Part]);

/// Message of the thread that uses the device.
enum Message {
    /// A check starts.
    Start(String),
    Device(Box<DeviceReport>),
    Operation(Check),
    Step(Check),
    Fits(Vec<Fit>),
    /// The device cannot be used.
    Failed(String),
}

/// Examines a device.
pub(super) fn examine(
    name: DeviceName,
    limit: Duration,
    tamper: Tamper,
    screen: &Screen,
) -> DoctorReport {
    let start = Instant::now();
    let deadline = start + limit;
    let (send, receive) = channel();
    let worker = std::thread::Builder::new()
        .name("doctor".into())
        .stack_size(STACK)
        .spawn(move || {
            Worker {
                deadline,
                tamper,
                send,
            }
            .run(name)
        });
    let mut report = DoctorReport::new();
    if let Err(error) = worker {
        report.failure = Some(format!("no thread can be started: {error}"));
    }
    let total = CASES.len() + FAMILIES.len();
    let mut bar = screen.bar("doctor", total);
    let mut running = String::from("opening");
    loop {
        let left = (deadline + GRACE).saturating_duration_since(Instant::now());
        match receive.recv_timeout(left) {
            Ok(Message::Start(name)) => running = name,
            Ok(Message::Device(device)) => report.device = *device,
            Ok(Message::Operation(check)) => report.operations.push(check),
            Ok(Message::Step(check)) => report.steps.push(check),
            Ok(Message::Fits(fits)) => report.models = fits,
            Ok(Message::Failed(message)) => report.failure = Some(message),
            // The thread is done, or nothing that it could still say would be of use.
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let seconds = start.elapsed().as_secs();
                report.failure = Some(format!(
                    "the device did not finish `{running}` within {seconds} s"
                ));
                break;
            }
        }
        bar.set(report.operations.len() + report.steps.len());
    }
    bar.finish();
    report.seconds = start.elapsed().as_secs_f64();
    report.judge();
    report
}

/// Thread that uses the device.
struct Worker {
    deadline: Instant,
    tamper: Tamper,
    send: Sender<Message>,
}

impl Worker {
    fn run(&self, name: DeviceName) {
        let opened = caught(|| {
            let device = device::open(name)?;
            let facts = device_facts(&device);
            Ok((device, facts))
        });
        let (device, facts) = match opened {
            Ok(opened) => opened,
            Err(message) => return self.say(Message::Failed(message)),
        };
        let host = device::host();
        let limit = facts.max_buffer_bytes;
        let size = if facts.software {
            Size::SMALL
        } else {
            Size::LARGE
        };
        let report = DeviceReport::new(name, facts, &device, host.as_ref());
        self.say(Message::Device(Box::new(report)));
        for case in &CASES {
            let allowed = tolerance(&device);
            let check = self.check(case.name, allowed, host.as_ref(), |check, host| {
                self.operation(case, &size, [&device, host], check)
            });
            self.say(Message::Operation(check));
        }
        for family in FAMILIES {
            let allowed = step_tolerance(&device, None);
            let check = self.check(family, allowed, host.as_ref(), |check, host| {
                let difference = step(family, &device, host)?;
                let error = difference.largest();
                check.error = Some(error).filter(|error| error.is_finite());
                check.part = Some(if difference.of_loss() > difference.of_gradients() {
                    "loss"
                } else {
                    "gradients"
                });
                check.status = if error <= allowed {
                    Status::Ok
                } else {
                    Status::Wrong
                };
                Ok(())
            });
            self.say(Message::Step(check));
        }
        if let Ok(found) = caught(|| fits(limit, host.as_ref().unwrap_or(&device))) {
            self.say(Message::Fits(found));
        }
        if let Ok(Some(bytes)) = caught(|| Ok(device_memory_bytes(&device))) {
            self.say(Message::Device(Box::new(DeviceReport {
                reserved_mib: Some(bytes as f64 / (1 << 20) as f64),
                ..DeviceReport::new(name, device_facts(&device), &device, host.as_ref())
            })));
        }
    }

    /// Runs a check, unless there is no time left or nothing to compare with.
    fn check(
        &self,
        name: &str,
        tolerance: f64,
        host: Option<&Device>,
        run: impl FnOnce(&mut Check, &Device) -> Result<(), TrainError>,
    ) -> Check {
        let mut check = Check::skipped(name, tolerance);
        let Some(host) = host else {
            check.message = Some("no CPU backend is compiled in to compare with".into());
            return check;
        };
        if Instant::now() >= self.deadline {
            check.message = Some("no time was left; `--time-limit` gives more".into());
            return check;
        }
        self.say(Message::Start(name.into()));
        let start = Instant::now();
        if let Err(message) = caught(|| run(&mut check, host)) {
            check.status = Status::Failed;
            check.message = Some(message);
        }
        check.seconds = start.elapsed().as_secs_f64();
        check
    }

    /// Compares an operation with the CPU and measures its speed.
    fn operation(
        &self,
        case: &Case,
        size: &Size,
        [device, host]: [&Device; 2],
        check: &mut Check,
    ) -> Result<(), TrainError> {
        let expected = read((case.prepare)(size, &host.clone().autodiff())())?;
        let passes = (case.prepare)(size, &device.clone().autodiff());
        let mut found = read(passes())?;
        (self.tamper)(case.name, &mut found);
        let difference = compare(&found, &expected);
        check.error = difference.error;
        check.part = Some(difference.part);
        check.status = difference.status(check.tolerance);
        check.speed = Some(speed(case, size, &passes, device)?);
        Ok(())
    }

    /// Sends a message. Nobody receives it after a time-out.
    fn say(&self, message: Message) {
        let _ = self.send.send(message);
    }
}

/// Evaluates a function; returns the message of its error or panic.
fn caught<T>(f: impl FnOnce() -> Result<T, TrainError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(payload) => Err(if let Some(text) = payload.downcast_ref::<String>() {
            text.clone()
        } else if let Some(text) = payload.downcast_ref::<&str>() {
            (*text).to_string()
        } else {
            "a panic without a message".into()
        }),
    }
}
