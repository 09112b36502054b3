//! `lora predict`.

use lora_train::TrainError;
use lora_train::jobs::{PredictOptions, Predicted, predict_with};
use lora_train::progress::{Screen, print_json, print_line, print_row};
use lora_train::trainer::ranks::Ranks;
use serde_json::Value;

pub fn run(options: &PredictOptions, ranks: &dyn Ranks) -> Result<(), TrainError> {
    let submission = predict_with(ranks, options, &Screen::detect(), &mut |prediction| {
        if options.json {
            print_json(Value::Object(prediction.object()))
        } else {
            print_row(as_line(&prediction))
        }
    })?;
    if let Some(path) = submission {
        return print_line(format_args!("saved {}", path.display()));
    }
    Ok(())
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
