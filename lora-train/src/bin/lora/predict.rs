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
            json!({"prediction": prediction, "scores": by_name(scores)})
        }
        Predicted::Set { prediction, scores } => {
            json!({"prediction": prediction, "scores": by_name(scores)})
        }
        Predicted::Scores { prediction, scores } => {
            json!({"prediction": prediction, "scores": by_name(scores)})
        }
        other => json!(other),
    }
}

fn by_name<T: serde::Serialize>(scores: &[(String, T)]) -> Map<String, Value> {
    let scores = scores.iter().map(|(name, p)| (name.clone(), json!(p)));
    scores.collect()
}

fn as_line(predicted: &Predicted) -> String {
    match predicted {
        Predicted::Class { prediction, scores } => {
            let own = scores.iter().find(|(name, _)| name == prediction);
            format!("{prediction}\t{:.4}", own.map_or(0.0, |(_, p)| *p))
        }
        Predicted::Set { prediction, scores } => {
            let own = scores.iter().filter(|(name, _)| prediction.contains(name));
            let own = own.map(|(name, p)| format!("{name} {p:.4}"));
            own.collect::<Vec<_>>().join(", ")
        }
        Predicted::Scores { scores, .. } => {
            let all = scores
                .iter()
                .map(|(name, score)| format!("{name} {score:.4}"));
            all.collect::<Vec<_>>().join(", ")
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
