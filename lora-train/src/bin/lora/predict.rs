//! `lora predict`.

use lora_train::TrainError;
use lora_train::jobs::{PredictOptions, Predicted, predict};
use lora_train::progress::{Screen, print_line};
use serde_json::{Map, Value, json};

pub fn run(options: &PredictOptions) -> Result<(), TrainError> {
    let (predicted, submission) = predict(options, &Screen::detect())?;
    if let Some(path) = submission {
        return print_line(format_args!("saved {}", path.display()));
    }
    for prediction in predicted {
        if options.json {
            print_line(as_json(&prediction))?;
        } else {
            print_line(as_line(&prediction))?;
        }
    }
    Ok(())
}

fn as_json(predicted: &Predicted) -> Value {
    match predicted {
        Predicted::Class { prediction, scores } => {
            let scores = scores.iter().map(|(name, p)| (name.clone(), json!(p)));
            json!({"prediction": prediction, "scores": scores.collect::<Map<_, _>>()})
        }
        other => json!(other),
    }
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
