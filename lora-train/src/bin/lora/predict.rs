//! `lora predict`.

use lora_train::TrainError;
use lora_train::jobs::{PredictOptions, Predicted, predict};
use lora_train::progress::Screen;
use serde_json::Value;
use std::io::Write;

pub fn run(options: &PredictOptions) -> Result<(), TrainError> {
    let submission = predict(options, &Screen::detect(), &mut |prediction| {
        let line = if options.json {
            Value::Object(prediction.object()).to_string()
        } else {
            as_line(&prediction)
        };
        let mut out = std::io::stdout().lock();
        let written = writeln!(out, "{line}").and_then(|()| out.flush());
        written.map_err(TrainError::io("standard output"))
    })?;
    if let Some(path) = submission {
        println!("saved {}", path.display());
    }
    Ok(())
}

fn as_line(predicted: &Predicted) -> String {
    match predicted {
        Predicted::Class { prediction, scores } => {
            let own = scores.iter().find(|(name, _)| name == prediction);
            format!("{prediction}\t{:.4}", own.map_or(0.0, |(_, p)| *p))
        }
        Predicted::Score { prediction } => format!("{prediction:.4}"),
        Predicted::Tags { words, prediction } => {
            let tagged = words.iter().zip(prediction);
            let tagged = tagged.map(|(word, tag)| match tag {
                Some(tag) => format!("{word}/{tag}"),
                None => word.clone(),
            });
            let tagged: Vec<String> = tagged.collect();
            tagged.join(" ")
        }
    }
}
