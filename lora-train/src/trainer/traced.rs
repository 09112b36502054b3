//! Events of runs for `tracing`, with the feature of that name.

use super::{Event, Observer};
use crate::TrainError;
use tracing::{Span, debug, info, info_span, warn};

/// Observer of a run that sends its events to the subscriber of `tracing`, in a span from its start to its end.
///
/// [`fit`](super::fit) adds one to each run.
#[derive(Debug)]
pub(super) struct Traced {
    run: Span,
}

impl Default for Traced {
    fn default() -> Self {
        Self { run: Span::none() }
    }
}

impl Observer for Traced {
    fn observe(&mut self, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::Start {
                first_step,
                total_steps,
            } => self.run = info_span!("train", first_step, total_steps),
            Event::Step(step) => debug!(
                parent: &self.run,
                step = step.step,
                epoch = step.epoch,
                loss = step.loss,
                lr = step.lr,
                grad_norm = step.grad_norm,
                tokens = step.tokens,
                skipped = step.skipped,
                seconds = step.seconds,
                "step"
            ),
            Event::Eval(eval) => {
                // The names of fields are fixed when a program is compiled, and those of metrics are not.
                info!(
                    parent: &self.run,
                    step = eval.step,
                    epoch = eval.epoch,
                    loss = eval.eval.get("loss"),
                    metrics = ?eval.eval,
                    best = eval.best,
                    seconds = eval.eval_seconds,
                    "evaluation"
                );
            }
            Event::Saved(path) => info!(parent: &self.run, path = %path.display(), "saved"),
            Event::Warning(text) => warn!(parent: &self.run, "{text}"),
            Event::Stopped(reason) => info!(parent: &self.run, reason, "stopped"),
            Event::End => self.run = Span::none(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::{EvalEvent, StepEvent};
    use std::fmt::{Debug, Write};
    use std::sync::{Arc, Mutex};
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::subscriber::with_default;
    use tracing::{Metadata, Subscriber};

    /// Subscriber that writes spans and events as lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<String>>);

    impl Visit for Lines {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            let _ = write!(self.0.lock().unwrap(), " {field}={value:?}");
        }
    }

    impl Lines {
        fn line(&self, start: String) {
            let _ = write!(self.0.lock().unwrap(), "\n{start}");
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.line(format!("span {}", span.metadata().name()));
            span.record(&mut self.clone());
            Id::from_u64(7)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let parent = event.parent().map(Id::into_u64);
            self.line(format!("{} in {parent:?}", event.metadata().level()));
            event.record(&mut self.clone());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}

        fn try_close(&self, _: Id) -> bool {
            self.line("closed".into());
            true
        }
    }

    #[test]
    fn events_come_with_their_fields_in_the_span_of_the_run() {
        let lines = Lines::default();
        let step = StepEvent {
            step: 3,
            epoch: 0.5,
            loss: 1.25,
            lr: 0.1,
            grad_norm: 2.0,
            tokens: 40,
            skipped: false,
            seconds: 9.0,
        };
        let eval = EvalEvent {
            step: 3,
            eval: [("loss".to_string(), 1.5), ("accuracy".to_string(), 0.75)].into(),
            best: true,
            ..EvalEvent::default()
        };
        with_default(lines.clone(), || {
            let mut traced = Traced::default();
            for event in [
                Event::Start {
                    first_step: 3,
                    total_steps: 8,
                },
                Event::Step(step),
                Event::Eval(eval),
                Event::Saved("out/step-3".into()),
                Event::Warning("careful".into()),
                Event::Stopped("interrupted".into()),
                Event::End,
            ] {
                traced.observe(&event).unwrap();
            }
        });
        let text = lines.0.lock().unwrap().clone();
        let lines: Vec<&str> = text.trim().lines().collect();
        let expected: [&[&str]; 7] = [
            &["span train", "first_step=3", "total_steps=8"],
            &["DEBUG in Some(7)", "message=step", "loss=1.25", "tokens=40"],
            &[
                "INFO in Some(7)",
                "message=evaluation",
                "loss=1.5",
                "\"accuracy\": 0.75",
            ],
            &["INFO in Some(7)", "message=saved", "path=out/step-3"],
            &["WARN in Some(7)", "careful"],
            &["INFO in Some(7)", "message=stopped", "interrupted"],
            &["closed"],
        ];
        assert_eq!(lines.len(), expected.len(), "{text}");
        for (line, parts) in lines.iter().zip(expected) {
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        }
    }
}
