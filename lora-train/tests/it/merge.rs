//! `lora merge --verify`: a merged model has the outputs of the base with its adapter, or is not written.

use crate::common::encoders::{classify, data, learn, with_tokenizer};
use crate::common::{fail, lora, model, succeed};
use burn::tensor::Device;
use lora_core::files::Overwrite;
use lora_core::{Adapted, LoraConfig, LoraInit, TargetModules};
use lora_models::checkpoint::{Checkpoint, DType, ExportDType};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{LoadOptions, LoraModel, Pretrained, SaveAdapter};
use lora_train::TrainError;
use lora_train::device::DeviceName;
use lora_train::jobs::{MergeOptions, MergeSummary, ModelFormat, VerifyOptions, merge};
use lora_train::tools::ForeignOptions;
use std::path::{Path, PathBuf};

/// An adapter of random factors on the fixture model.
fn adapter(targets: &[&str], alpha: f64, dora: bool, dir: &Path) -> PathBuf {
    let (model, _) = Gpt2LmHead::load(model(), &LoadOptions::default(), &Device::flex()).unwrap();
    let config = LoraConfig::new(3)
        .with_alpha(alpha)
        .with_dora(dora)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(targets.to_vec()));
    let (model, report) = model.attach(&config).unwrap().into_parts();
    let path = dir.join("adapter");
    Adapted::from_parts(model.clone(), report.clone())
        .save_adapter(&path, None, Overwrite::Replace)
        .unwrap();
    path
}

fn options(model: PathBuf, adapter: &Path, output: &Path, dtype: ExportDType) -> MergeOptions {
    MergeOptions {
        model,
        adapter: Some(adapter.into()),
        foreign: ForeignOptions::default(),
        strict_base: false,
        base_dtype: None,
        output: output.into(),
        to: ModelFormat::Transformers,
        dtype: dtype.into(),
        verify: VerifyOptions {
            verify: true,
            ..VerifyOptions::default()
        },
        overwrite: false,
        device: DeviceName::Flex,
        seed: 42,
    }
}

/// All three types, and what a weight that is rounded once is off by at most, for its size.
const TYPES: [(ExportDType, DType, f64); 3] = [
    (ExportDType::F32, DType::F32, 5e-7),
    (ExportDType::F16, DType::F16, 4.9e-4),
    (ExportDType::BF16, DType::BF16, 3.91e-3),
];

fn assert_verified(summary: &MergeSummary, output: &Path, dtype: DType, most: f64, what: &str) {
    let check = summary.check.as_ref().unwrap();
    let text = summary.to_string();
    assert!(check.passed() && check.relative > 0.0, "{what}: {text}");
    // Nothing but its rounding makes a weight differ, and in a half type something does.
    let worst = check.worst().unwrap();
    let least = if dtype == DType::F32 { 0.0 } else { 0.2 * most };
    assert!(
        worst.relative >= least && worst.relative <= most,
        "{what}: {text}"
    );
    assert!(text.contains(&worst.module), "{what}: {text}");
    // Heads that were trained are compared too.
    assert!(check.weights.len() >= summary.modules, "{what}");
    let written = Checkpoint::open(output).unwrap();
    // Modules that were adapted are named, and of others their parameters.
    let name = if written.contains(&worst.module) {
        worst.module.clone()
    } else {
        format!("{}.weight", worst.module)
    };
    assert_eq!(written.dtype(&name), Some(dtype), "{what}: {name}");
}

#[test]
fn a_good_merge_of_a_language_model_passes_in_every_type() {
    let dir = tempfile::tempdir().unwrap();
    for (number, (targets, dora)) in [
        (vec!["c_attn[q,v]", "c_fc"], false),
        (vec!["c_attn", "mlp.c_proj"], true),
        // The head is one of its own then.
        (vec!["wte", "lm_head"], false),
    ]
    .into_iter()
    .enumerate()
    {
        let adapter = adapter(&targets, 4.0, dora, dir.path());
        for (dtype, stored, most) in TYPES {
            let output = dir.path().join(format!("{number}-{dtype}"));
            let summary = merge(&options(model(), &adapter, &output, dtype)).unwrap();
            let what = format!("{targets:?} {dtype}");
            assert_verified(&summary, &output, stored, most, &what);
            let check = summary.check.unwrap();
            // Rows of 32, 24, 16 and 8 tokens, or of what the model takes.
            assert_eq!(check.rows, 4);
            assert!(
                check.outputs >= 8 && check.outputs <= 80,
                "{}",
                check.outputs
            );
        }
    }
}

#[test]
fn a_merge_for_llama_cpp_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = adapter(&["c_attn[q,v]", "c_fc"], 4.0, false, dir.path());
    for dtype in ["f32", "f16", "q8_0"] {
        let output = dir.path().join(dtype);
        let merge = |to: &str| {
            let mut command = lora(["merge", "--device", "flex", "--verify", "--dtype", dtype]);
            command.arg("--model").arg(model());
            command.arg("--adapter").arg(&adapter);
            command.arg("--to").arg(to);
            command.arg("--output").arg(&output);
            command
        };
        let printed = succeed(&mut merge("gguf"));
        assert!(printed.contains("verified: logits differ"), "{printed}");
        let [gguf, modelfile] = ["model.gguf", "Modelfile"].map(|name| output.join(name));
        assert!(std::fs::read(&gguf).unwrap().starts_with(b"GGUF"));
        assert!(modelfile.is_file());
        if dtype == "q8_0" {
            std::fs::remove_dir_all(&output).unwrap();
            fail(&mut merge("transformers"), 2, &["`dtype`", "--to gguf"]);
            assert!(!output.exists());
        }
    }
}

#[test]
fn a_good_merge_of_an_encoder_passes_in_every_type_on_texts_too() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = with_tokenizer("bert", &classify("models").join("bert"), dir.path());
    let out = dir.path().join("out");
    let mut command = learn(&encoder, &data("texts.jsonl"), &out);
    succeed(command.args(["--max-steps", "3", "--rank", "2"]));
    let texts = dir.path().join("texts.txt");
    std::fs::write(&texts, "a good film\n\nit was bad\tbut short\n").unwrap();
    for (dtype, stored, most) in TYPES {
        let output = dir.path().join(dtype.to_string());
        let mut options = options(encoder.clone(), &out.join("adapter"), &output, dtype);
        let summary = merge(&options).unwrap();
        assert_verified(&summary, &output, stored, most, &dtype.to_string());
        assert_eq!(summary.check.unwrap().outputs, 4);

        options.verify.verify_data = Some(texts.clone());
        options.overwrite = true;
        let check = merge(&options).unwrap().check.unwrap();
        assert_eq!((check.rows, check.outputs), (2, 2));
    }
}

#[test]
fn an_adapter_too_large_for_half_precision_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = adapter(&["mlp.c_fc"], 1e8, false, dir.path());
    let output = dir.path().join("merged");
    let mut command = lora(["merge", "--device", "flex", "--verify", "--dtype", "f16"]);
    command
        .arg("--model")
        .arg(model())
        .arg("--adapter")
        .arg(&adapter);
    command.arg("--output").arg(&output);
    fail(&mut command, 1, &["mlp.c_fc", "F16", "infinite"]);
    assert!(!output.exists());
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "something was left beside the adapter");
}

#[test]
fn what_differs_by_more_than_is_allowed_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = adapter(&["c_attn"], 4.0, false, dir.path());
    let output = dir.path().join("merged");
    let run = |options: &[&str]| {
        let mut command = lora(["merge", "--device", "flex"]);
        command
            .arg("--model")
            .arg(model())
            .arg("--adapter")
            .arg(&adapter);
        command.arg("--output").arg(&output).args(options);
        command
    };
    let strict = ["--verify", "--dtype", "bf16", "--tolerance", "1e-6"];
    let words = [
        "attn.c_attn",
        "1.0e-6 allowed",
        "largest error",
        "--tolerance",
    ];
    fail(&mut run(&strict), 1, &words);
    assert!(!output.exists());
    // What was there stays.
    succeed(&mut run(&[]));
    let before = std::fs::read(output.join("model.safetensors")).unwrap();
    fail(run(&strict).arg("--overwrite"), 1, &words);
    assert_eq!(
        std::fs::read(output.join("model.safetensors")).unwrap(),
        before
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);

    let text = succeed(run(&["--verify", "--seed", "7"]).arg("--overwrite"));
    assert!(text.contains("verified: logits differ by"), "{text}");
    fail(&mut run(&["--tolerance", "1"]), 2, &["--verify"]);
    fail(
        &mut run(&["--verify", "--tolerance=-1", "--overwrite"]),
        2,
        &["tolerance"],
    );
    let nothing = dir.path().join("nothing.txt");
    std::fs::write(&nothing, "\n\n").unwrap();
    let nothing = nothing.to_str().unwrap();
    fail(
        &mut run(&["--verify", "--verify-data", nothing, "--overwrite"]),
        1,
        &["nothing.txt", "no text"],
    );
}

#[test]
fn a_model_without_an_adapter_is_converted_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("half");
    let mut options = options(model(), Path::new(""), &output, ExportDType::F16);
    options.adapter = None;
    let check = merge(&options).unwrap().check.unwrap();
    assert!(check.passed() && check.worst().is_none(), "{check}");

    options.verify.tolerance = Some(1e-7);
    options.overwrite = true;
    match merge(&options) {
        Err(TrainError::MergeDiffers {
            relative,
            tolerance,
            ..
        }) => {
            assert!(relative > tolerance && relative < 1e-2);
        }
        other => panic!("{other:?}"),
    }
}
