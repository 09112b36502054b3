//! The recipes of the LoRA paper for GPT-2 say what the paper and its code say.

use lora_core::TargetModules;
use lora_examples::fine_tune::folder;
use lora_train::data::{BatchSize, DataFormat, TemplateName};
use lora_train::jobs::TrainPlan;
use lora_train::options::TrainOptions;
use lora_train::tools::bench::Shape;
use lora_train::tools::{PlanOptions, estimate};
use lora_train::trainer::ScheduleKind;
use std::path::Path;

/// Folder, name on the Hub, sizes of the model, and parameters of the adapter as the paper counts them.
const MODELS: [(&str, &str, [usize; 3], usize); 2] = [
    ("gpt2_medium", "gpt2-medium", [1024, 24, 16], 393_216),
    ("gpt2_large", "gpt2-large", [1280, 36, 20], 737_280),
];

/// Table 11 and the scripts: task, format, weight decay, dropout, label smoothing and length penalty.
const TASKS: [(&str, DataFormat, f64, f64, f64, f64); 3] = [
    ("e2e", DataFormat::E2e, 0.01, 0.1, 0.1, 0.9),
    ("webnlg", DataFormat::WebNlg, 0.01, 0.1, 0.1, 0.8),
    ("dart", DataFormat::Dart, 0.0, 0.0, 0.0, 0.8),
];

/// Plan of a recipe with the options that its comment gives on the command line.
fn plan(model: &str, task: &str) -> TrainPlan {
    let path = folder().join(format!("recipes/{model}/{task}.toml"));
    let recipe = TrainOptions::from_recipe(&path).unwrap();
    let flags = TrainOptions {
        data: vec!["train".into()],
        eval_data: Some("dev".into()),
        output: Some("out".into()),
        ..TrainOptions::default()
    };
    TrainPlan::new(flags.or(recipe).unwrap()).unwrap()
}

#[test]
fn every_recipe_has_the_numbers_of_table_11() {
    for (folder, name, ..) in MODELS {
        for (task, format, weight_decay, dropout, smoothing, penalty) in TASKS {
            let plan = plan(folder, task);
            let at = format!("{folder}/{task}");
            assert_eq!(plan.model, Path::new(name), "{at}");
            let lora = plan.lora.as_ref().unwrap();
            assert_eq!(lora.targets, TargetModules::names(["c_attn[q,v]"]), "{at}");
            let found = (lora.rank, lora.alpha, lora.dropout);
            assert_eq!(found, (4, 32.0, dropout), "{at}");
            let found = (plan.lr, plan.adamw.weight_decay, plan.label_smoothing);
            assert_eq!(found, (2e-4, weight_decay, smoothing), "{at}");
            let found = (plan.adamw.beta2, plan.adamw.epsilon, plan.max_grad_norm);
            assert_eq!(found, (0.999, 1e-6, None), "{at}");
            let found = (plan.batch, plan.accumulation, plan.epochs);
            assert_eq!(found, (BatchSize::Examples(8), 1, 5), "{at}");
            assert_eq!(plan.schedule, ScheduleKind::Linear, "{at}");
            assert_eq!(plan.warmup_steps(10_000), 500, "{at}");
            let options = &plan.options;
            assert_eq!(options.max_length, Some(512), "{at}");
            assert_eq!(options.reading.format, Some(format), "{at}");
            let template = options.reading.template;
            assert_eq!(template, Some(TemplateName::MicrosoftLora), "{at}");
            let decoding = &options.decoding;
            assert_eq!(
                (options.beams, options.max_new_tokens),
                (Some(10), Some(64)),
                "{at}"
            );
            let found = (decoding.length_penalty, decoding.no_repeat_ngram);
            assert_eq!(found, (Some(penalty), Some(4)), "{at}");
            assert_eq!(decoding.stop_token, Some(vec!["\n\n".to_string()]), "{at}");
        }
    }
}

#[test]
fn adapters_have_as_many_parameters_as_the_paper_says() {
    for (folder, _, [width, layers, heads], parameters) in MODELS {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "{{\"model_type\": \"gpt2\", \"n_embd\": {width}, \"n_layer\": {layers}, \"n_head\": {heads}}}"
        );
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let options = plan(folder, "e2e").options;
        let forecast = estimate(&PlanOptions {
            shape: Shape {
                model: Some(dir.path().into()),
                rank: options.rank,
                targets: options.targets.clone(),
                batch_size: options.batch_size,
                max_length: options.max_length,
                ..Shape::default()
            },
            no_calibration: true,
            ..PlanOptions::default()
        })
        .unwrap();
        let report = serde_json::to_value(&forecast).unwrap();
        assert_eq!(report["trainable"], parameters, "{report}");
    }
}

#[test]
fn the_tasks_of_gpt3_are_planned() {
    for (task, format, length) in [
        ("wikisql", DataFormat::WikiSql, 384),
        ("samsum", DataFormat::SamSum, 1024),
        ("mnli", DataFormat::Mnli, 768),
    ] {
        let plan = plan("gpt2_medium", task);
        let lora = plan.lora.as_ref().unwrap();
        assert_eq!((lora.rank, plan.lr, plan.epochs), (8, 2e-4, 2), "{task}");
        assert_eq!(plan.adamw.weight_decay, 0.1, "{task}");
        let BatchSize::Examples(batch) = plan.batch else {
            panic!("{:?}", plan.batch)
        };
        assert_eq!(batch * plan.accumulation, 128, "{task}");
        assert_eq!(plan.options.max_length, Some(length), "{task}");
        assert_eq!(plan.options.reading.format, Some(format), "{task}");
    }
}
