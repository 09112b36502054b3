//! The recipes of the LoRA paper say what the paper and its code say.

use burn::tensor::Device;
use lora_core::TargetModules;
use lora_examples::fine_tune::folder;
use lora_models::LoraModel;
use lora_models::classifier::{Classifier, HeadKind};
use lora_models::encoder::EncoderConfig;
use lora_train::data::BatchSize;
use lora_train::jobs::TrainPlan;
use lora_train::options::TrainOptions;
use lora_train::task::TaskName;
use lora_train::trainer::{Every, ScheduleKind};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Values that the recipes of a model share.
struct Model {
    folder: &'static str,
    name: &'static str,
    targets: [&'static str; 2],
    rank: usize,
    alpha: f64,
    /// Parameters of the adapter, as the paper counts them.
    parameters: usize,
    /// Layers of the published model.
    layers: usize,
    /// Task, learning rate, epochs, examples in a pass, passes in a step, tokens, weight decay.
    tasks: [(&'static str, f64, usize, usize, usize, usize, f64); 8],
}

/// Table 9 for RoBERTa, but for the alpha of base; the scripts for DeBERTa, and for the number of GPUs.
const MODELS: [Model; 3] = [
    Model {
        folder: "roberta_base",
        name: "roberta-base",
        targets: ["query", "value"],
        rank: 8,
        alpha: 16.0,
        parameters: 294_912,
        layers: 12,
        tasks: [
            ("mnli", 5e-4, 30, 16, 8, 512, 0.1),
            ("sst2", 5e-4, 60, 16, 8, 512, 0.1),
            ("mrpc", 4e-4, 30, 16, 8, 512, 0.1),
            ("cola", 4e-4, 80, 32, 2, 512, 0.1),
            ("qnli", 4e-4, 25, 32, 8, 512, 0.1),
            ("qqp", 5e-4, 25, 16, 8, 512, 0.1),
            ("rte", 5e-4, 80, 32, 8, 512, 0.1),
            ("stsb", 4e-4, 40, 16, 8, 512, 0.1),
        ],
    },
    Model {
        folder: "roberta_large",
        name: "roberta-large",
        targets: ["query", "value"],
        rank: 8,
        alpha: 16.0,
        parameters: 786_432,
        layers: 24,
        tasks: [
            ("mnli", 3e-4, 10, 4, 8, 128, 0.1),
            ("sst2", 4e-4, 10, 4, 8, 128, 0.1),
            ("mrpc", 3e-4, 20, 4, 8, 512, 0.1),
            ("cola", 2e-4, 20, 4, 8, 128, 0.1),
            ("qnli", 2e-4, 10, 4, 8, 512, 0.1),
            ("qqp", 3e-4, 20, 4, 8, 512, 0.1),
            ("rte", 4e-4, 20, 8, 8, 512, 0.1),
            ("stsb", 2e-4, 30, 8, 8, 512, 0.1),
        ],
    },
    Model {
        folder: "deberta_v2_xxlarge",
        name: "microsoft/deberta-v2-xxlarge",
        targets: ["query_proj", "value_proj"],
        rank: 16,
        alpha: 32.0,
        parameters: 4_718_592,
        layers: 48,
        tasks: [
            ("mnli", 1e-4, 5, 8, 8, 256, 0.0),
            ("sst2", 6e-5, 16, 8, 8, 128, 0.01),
            ("mrpc", 2e-4, 30, 32, 8, 128, 0.01),
            ("cola", 1.3e-4, 10, 4, 8, 64, 0.0),
            ("qnli", 1e-4, 8, 6, 8, 512, 0.01),
            ("qqp", 1e-4, 11, 8, 8, 320, 0.01),
            ("rte", 2.6e-4, 11, 4, 8, 320, 0.01),
            ("stsb", 2e-4, 10, 4, 8, 128, 0.1),
        ],
    },
];

impl Model {
    /// Plan of a recipe with the options that its comment gives on the command line.
    fn plan(&self, task: &str) -> TrainPlan {
        let path = folder().join(format!("recipes/{}/{task}.toml", self.folder));
        let recipe = TrainOptions::from_recipe(&path).unwrap();
        let flags = TrainOptions {
            data: vec!["train.tsv".into()],
            eval_data: Some("dev.tsv".into()),
            output: Some("out".into()),
            adapter: recipe.fresh_head.then(|| "mnli/adapter".into()),
            ..TrainOptions::default()
        };
        TrainPlan::new(flags.or(recipe).unwrap()).unwrap()
    }

    /// Configuration with the published sizes, except for a vocabulary, an MLP and a number of layers that fit a test.
    /// The adapters do not depend on the first two and are the same in all layers.
    fn shrunk(&self, layers: usize) -> EncoderConfig {
        let mut object = match self.folder {
            "roberta_base" => {
                json!({"model_type": "roberta", "hidden_size": 768, "num_attention_heads": 12})
            }
            "roberta_large" => {
                json!({"model_type": "roberta", "hidden_size": 1024, "num_attention_heads": 16})
            }
            _ => json!({
                "model_type": "deberta-v2", "hidden_size": 1536, "num_attention_heads": 24,
                "relative_attention": true, "position_buckets": 8, "max_relative_positions": -1,
                "norm_rel_ebd": "layer_norm", "share_att_key": true, "pos_att_type": "p2c|c2p",
                "position_biased_input": false
            }),
        };
        object["vocab_size"] = json!(16);
        object["max_position_embeddings"] = json!(32);
        object["intermediate_size"] = json!(16);
        object["num_hidden_layers"] = json!(layers);
        let Value::Object(object) = object else {
            panic!("it was made as an object")
        };
        EncoderConfig::from_json(Path::new("config.json"), object).unwrap()
    }
}

#[test]
fn every_recipe_has_the_numbers_of_the_paper_and_its_code() {
    for model in &MODELS {
        for (task, lr, epochs, batch_size, passes, max_length, weight_decay) in model.tasks {
            let plan = model.plan(task);
            let at = format!("{}/{task}", model.folder);
            // It is no directory beside the recipe, and stays a name.
            assert_eq!(plan.model, Path::new(model.name), "{at}");
            let glue: TaskName = format!("glue/{task}").parse().unwrap();
            assert_eq!(plan.options.task, Some(glue), "{at}");

            let lora = plan.lora.as_ref().unwrap();
            assert_eq!(lora.targets, TargetModules::names(model.targets), "{at}");
            let found = (lora.rank, lora.alpha, lora.dropout);
            assert_eq!(found, (model.rank, model.alpha, 0.0), "{at}");
            assert_eq!(plan.options.seed, Some(0), "{at}");
            assert_eq!(lora.seed, 0, "{at}");

            let found = (plan.lr, plan.epochs, plan.adamw.weight_decay);
            assert_eq!(found, (lr, epochs, weight_decay), "{at}");
            let found = (plan.batch, plan.accumulation, plan.options.max_length);
            let batch = BatchSize::Examples(batch_size);
            assert_eq!(found, (batch, passes, Some(max_length)), "{at}");
            assert_eq!(plan.schedule, ScheduleKind::Linear, "{at}");
        }
    }
}

#[test]
fn the_best_epoch_by_the_papers_metric_is_kept() {
    for model in &MODELS {
        for (task, ..) in model.tasks {
            let plan = model.plan(task);
            let own = plan.options.task.and_then(TaskName::metric).unwrap();
            let metric = plan.options.metric.as_deref().unwrap_or(own.primary());
            let reported = match task {
                "cola" => "matthews_correlation",
                "stsb" => "pearson",
                _ => "accuracy",
            };
            assert_eq!(metric, reported, "{}/{task}", model.folder);
            assert!(own.names().contains(&metric), "{metric}");
            assert!(plan.keeps_best(), "{}/{task}", model.folder);
        }
    }
}

#[test]
fn mrpc_rte_and_stsb_go_on_from_mnli_with_a_fresh_head() {
    for model in &MODELS {
        for (task, ..) in model.tasks {
            let fresh = ["mrpc", "rte", "stsb"].contains(&task);
            let plan = model.plan(task);
            assert_eq!(plan.options.fresh_head, fresh, "{}/{task}", model.folder);
        }
        // An adapter is gone on with under its own rank, alpha and targets only.
        let mnli = model.plan("mnli").lora;
        assert_eq!(model.plan("rte").lora, mnli, "{}", model.folder);
    }
}

#[test]
fn warm_up_is_a_share_for_roberta_and_the_scripts_steps_for_deberta() {
    for model in &MODELS[..2] {
        for (task, ..) in model.tasks {
            // 6 % of 1,000, rounded up.
            assert_eq!(model.plan(task).warmup_steps(1000), 60, "{task}");
            assert_eq!(model.plan(task).evaluate, Every::Epoch, "{task}");
        }
    }
    let steps = [1000, 1000, 200, 100, 500, 10_000, 50, 100];
    let evaluations = [500, 100, 10, 20, 500, 500, 20, 50];
    let deberta = &MODELS[2];
    for (index, (task, ..)) in deberta.tasks.into_iter().enumerate() {
        let plan = deberta.plan(task);
        // MRPC's is a tenth, of 2,000 steps here.
        assert_eq!(plan.warmup_steps(2000), steps[index], "{task}");
        assert_eq!(plan.evaluate, Every::Steps(evaluations[index]), "{task}");
    }
}

#[test]
fn adapters_have_as_many_parameters_as_the_paper_says() {
    const LAYERS: usize = 2;
    for model in &MODELS {
        let config = model.shrunk(LAYERS);
        let lora = model.plan("mnli").lora.unwrap();
        let base = Classifier::init(&config, HeadKind::Sequence, 0, &Device::flex()).unwrap();
        let (_, report) = base.attach(&lora).unwrap().into_parts();
        assert_eq!(report.modules.len(), 2 * LAYERS, "{report}");
        let of_a_layer = report.parameters() / LAYERS;
        assert_eq!(of_a_layer * model.layers, model.parameters, "{report}");
    }
}

#[test]
fn no_recipe_is_left_out_here_or_in_the_table() {
    let recipes = folder().join("recipes");
    let readme = std::fs::read_to_string(recipes.join("README.md")).unwrap();
    let names = |dir: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".md")).collect()
    };
    let gpt2 = ["gpt2_medium", "gpt2_large"].map(String::from);
    let folders = MODELS.iter().map(|model| model.folder.to_string());
    assert_eq!(names(&recipes), folders.chain(gpt2).collect());
    for model in &MODELS {
        let tasks = model.tasks.iter().map(|(task, ..)| format!("{task}.toml"));
        assert_eq!(names(&recipes.join(model.folder)), tasks.collect());
        assert!(readme.contains(&format!("`{}`", model.folder)));
    }
    for (task, ..) in MODELS[0].tasks {
        assert!(readme.contains(&format!("| `{task}.toml`:")), "{task}");
    }
}
