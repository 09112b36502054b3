//! Checkpoints written by `transformers` and `torch.save` read right, whatever file they lie in; hostile ones are errors.

use lora_models::ModelError;
use lora_models::checkpoint::{
    Checkpoint, CheckpointSource, DType, ExportDType, SafetensorsExport, StrictReader, is_float,
};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(fixture(name)).unwrap_or_else(|err| panic!("{name}: {err}"))
}

/// The largest difference between two checkpoints of the same names and shapes, relative where values exceed 1.
fn largest_difference(a: &Checkpoint, b: &Checkpoint, rename: impl Fn(&str) -> String) -> f32 {
    assert_eq!(a.len(), b.len());
    let mut largest = 0f32;
    for name in a.names() {
        let (a, b) = (
            a.read_f32(name).unwrap(),
            b.read_f32(&rename(name)).unwrap(),
        );
        assert_eq!(a.shape, b.shape, "{name}");
        assert_eq!(a.values.len(), a.shape.iter().product::<usize>(), "{name}");
        for (a, b) in a.values.iter().zip(&b.values) {
            largest = largest.max((a - b).abs() / a.abs().max(1.0));
        }
    }
    largest
}

fn same_name(name: &str) -> String {
    name.to_string()
}

#[test]
fn all_kinds_of_file_hold_the_same_tensors() {
    let whole = open("gpt2_tied");
    assert_eq!(whole.source(), CheckpointSource::Safetensors);
    assert!(whole.contains("transformer.wte.weight"));
    assert_eq!(whole.dtype("transformer.wte.weight"), Some(DType::F32));

    let shards = open("gpt2_tied_sharded");
    assert_eq!(shards.source(), CheckpointSource::SafetensorsShards);
    assert!(shards.files().count() > 1);
    assert_eq!(largest_difference(&whole, &shards, same_name), 0.0);
}

#[test]
fn a_pickle_holds_the_same_tensors_besides_its_buffers_and_the_tied_head() {
    let whole = open("gpt2_tied");
    let pickle = open("gpt2_tied_bin");
    assert_eq!(pickle.source(), CheckpointSource::PytorchBin);
    for name in whole.names() {
        assert_eq!(
            whole.read_f32(name).unwrap(),
            pickle.read_f32(name).unwrap(),
            "{name}"
        );
    }
    let mut reader = StrictReader::new(&pickle);
    for name in whole.names() {
        reader.take(name, whole.shape(name).unwrap()).unwrap();
    }
    // What a pickle has beyond: the tied head under its own name, and the causal masks of old files.
    reader.ignore("tied to wte", |name| name == "lm_head.weight");
    reader.ignore("causal mask", |name| {
        name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
    });
    let report = reader.finish().unwrap();
    assert_eq!(report.tensors, whole.len());
    assert_eq!(report.files, ["pytorch_model.bin"]);
    assert_eq!(report.file_bytes, pickle.file_bytes());
}

#[test]
fn bare_models_have_the_same_tensors_without_a_prefix() {
    let (whole, bare) = (open("gpt2_tied"), open("gpt2_tied_bare"));
    for name in whole.names() {
        let short = name.strip_prefix("transformer.").unwrap();
        assert_eq!(
            whole.read_f32(name).unwrap(),
            bare.read_f32(short).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn half_precision_differs_by_its_rounding_only() {
    let whole = open("gpt2_tied");
    for (name, dtype, bound) in [
        ("gpt2_tied_f16", DType::F16, 2f32.powi(-11)),
        ("gpt2_tied_bf16", DType::BF16, 2f32.powi(-8)),
    ] {
        let half = open(name);
        assert_eq!(half.dtype("transformer.wte.weight"), Some(dtype));
        let elements: usize = half
            .shape("transformer.wte.weight")
            .unwrap()
            .iter()
            .product();
        assert_eq!(
            half.bytes_of("transformer.wte.weight"),
            Some(2 * elements as u64)
        );
        let difference = largest_difference(&whole, &half, same_name);
        assert!(
            difference > 0.0 && difference <= bound,
            "{name}: {difference}"
        );
    }
}

#[test]
fn a_file_or_an_index_can_be_opened_by_its_own_path() {
    let whole = open("gpt2_tied");
    for path in [
        "gpt2_tied/model.safetensors",
        "gpt2_tied_sharded/model.safetensors.index.json",
    ] {
        assert_eq!(
            largest_difference(&whole, &open(path), same_name),
            0.0,
            "{path}"
        );
    }
    assert!(open("gpt2_tied_bin/pytorch_model.bin").len() >= whole.len());
}

#[test]
fn every_layout_and_type_that_torch_saves_reads_right() {
    let expected = open("torch_layouts/expected.safetensors");
    for file in ["torch_layouts/zip.bin", "torch_layouts/legacy.bin"] {
        let pickle = open(file);
        let names: Vec<&str> = expected.names().collect();
        assert_eq!(pickle.names().collect::<Vec<_>>(), names, "{file}");
        for name in names {
            assert_eq!(pickle.shape(name), expected.shape(name), "{file}: {name}");
            if is_float(expected.dtype(name).unwrap()) {
                let (found, wanted) = (
                    pickle.read_f32(name).unwrap(),
                    expected.read_f32(name).unwrap(),
                );
                assert_eq!(found, wanted, "{file}: {name}");
            } else {
                assert_eq!(pickle.dtype(name), expected.dtype(name), "{file}: {name}");
                let error = pickle.read_f32(name).unwrap_err();
                assert!(
                    matches!(error, ModelError::TensorDtype { .. }),
                    "{file}: {error}"
                );
            }
        }
        assert_eq!(pickle.dtype("half"), Some(DType::F16));
        assert_eq!(pickle.dtype("bfloat"), Some(DType::BF16));
        assert_eq!(pickle.dtype("double"), Some(DType::F64));
    }
}

#[test]
fn pickles_that_try_something_are_refused_and_not_run() {
    for (file, reason) in [
        ("root.bin", "posix.system"),
        ("value.bin", "posix.system"),
        ("legacy.bin", "posix.system"),
        ("discarded.bin", "posix.system"),
        ("module.bin", "torch.nn.modules.linear.Linear"),
        ("protocol_5.bin", "instruction"),
        ("bomb.bin", "compressed"),
        ("two_pickles.bin", "more than one pickle"),
        ("expanded.bin", "byte"),
        ("expanded_less.bin", "more than the"),
    ] {
        match Checkpoint::open(fixture("hostile").join(file)) {
            Err(ModelError::Malformed { path, message }) => {
                assert!(path.ends_with(file), "{path:?}");
                assert!(message.contains(reason), "{file}: {message}");
            }
            other => panic!("{file}: {other:?}"),
        }
    }
    assert!(!Path::new("PWNED").exists());
}

#[test]
fn truncated_pickles_are_errors_at_every_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pytorch_model.bin");
    for file in ["torch_layouts/zip.bin", "torch_layouts/legacy.bin"] {
        let whole = std::fs::read(fixture(file)).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            // The older format has no end mark, so its tensors can be listed before one is found to be cut.
            let result = Checkpoint::open(dir.path());
            let error = result
                .and_then(|checkpoint| read_all(&checkpoint))
                .unwrap_err();
            assert!(
                matches!(error, ModelError::Malformed { .. }),
                "{file}, {length}: {error}"
            );
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    for (file, name) in [
        ("torch_layouts/zip.bin", "pytorch_model.bin"),
        ("torch_layouts/legacy.bin", "pytorch_model.bin"),
        ("torch_layouts/expected.safetensors", "model.safetensors"),
    ] {
        let whole = std::fs::read(fixture(file)).unwrap();
        let path = dir.path().join(name);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= if at % 2 == 0 { 0xff } else { 0x01 };
            std::fs::write(&path, &damaged).unwrap();
            // Many changes go unnoticed, as those of an element must; none may do more than give an error.
            if let Ok(checkpoint) = Checkpoint::open(&path) {
                let _ = read_all(&checkpoint);
            }
        }
    }
}

fn read_all(checkpoint: &Checkpoint) -> Result<(), ModelError> {
    for name in checkpoint.names() {
        if checkpoint.dtype(name).is_some_and(is_float) {
            checkpoint.read_f32(name)?;
        }
    }
    Ok(())
}

/// A sharded checkpoint of two tensors, with `index` in place of its own.
fn shards_with_index(index: &str) -> (tempfile::TempDir, Result<Checkpoint, ModelError>) {
    let dir = tempfile::tempdir().unwrap();
    let plan = [("a".to_string(), vec![2]), ("b".to_string(), vec![2])];
    let export = SafetensorsExport::new(dir.path()).with_max_shard_bytes(8);
    export.write(&plan, |_| Ok(vec![1.0, 2.0])).unwrap();
    let path = dir.path().join("model.safetensors.index.json");
    let index = index
        .replace("ONE", "model-00001-of-00002.safetensors")
        .replace("TWO", "model-00002-of-00002.safetensors");
    std::fs::write(path, index).unwrap();
    let checkpoint = Checkpoint::open(dir.path());
    (dir, checkpoint)
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_an_error() {
    let (_dir, honest) = shards_with_index(r#"{"weight_map":{"a":"ONE","b":"TWO"}}"#);
    assert_eq!(honest.unwrap().len(), 2);
    for (index, expected) in [
        (
            r#"{"weight_map":{"a":"ONE","b":"ONE"}}"#,
            "lacks tensor `b`",
        ),
        (
            r#"{"weight_map":{"a":"TWO","b":"ONE"}}"#,
            "lacks tensor `a`",
        ),
        (
            r#"{"weight_map":{"a":"ONE","b":"TWO","c":"TWO"}}"#,
            "lacks tensor `c`",
        ),
        (r#"{"weight_map":{"a":"ONE","b":"../TWO"}}"#, "plain name"),
        (
            r#"{"weight_map":{"a":"ONE","b":"/etc/passwd"}}"#,
            "plain name",
        ),
    ] {
        let (_dir, result) = shards_with_index(index);
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{index}: {message}");
    }
    let (_dir, result) = shards_with_index(r#"{"weight_map":{"a":"ONE","b":"gone.safetensors"}}"#);
    assert!(matches!(result, Err(ModelError::MissingFile { .. })));
}

#[test]
fn a_tensor_in_two_shards_is_an_error() {
    let (dir, _) = shards_with_index("{}");
    let (one, two) = (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    );
    std::fs::copy(dir.path().join(one), dir.path().join(two)).unwrap();
    let index = format!(r#"{{"weight_map":{{"a":"{one}","b":"{two}"}}}}"#);
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("tensor `a`") && message.contains("as well"),
        "{message}"
    );
}

#[test]
fn an_export_in_any_type_and_split_reads_back() {
    let whole = open("gpt2_tied");
    let plan: Vec<(String, Vec<usize>)> = whole
        .names()
        .map(|name| (name.to_string(), whole.shape(name).unwrap().to_vec()))
        .collect();
    for (dtype, shard_bytes, bound) in [
        (ExportDType::F32, u64::MAX, 0.0),
        (ExportDType::F32, 20_000, 0.0),
        (ExportDType::F16, u64::MAX, 2f32.powi(-11)),
        (ExportDType::BF16, 10_000, 2f32.powi(-8)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let report = SafetensorsExport::new(dir.path())
            .with_dtype(dtype)
            .with_max_shard_bytes(shard_bytes)
            .write(&plan, |name| Ok(whole.read_f32(name)?.values))
            .unwrap();
        assert_eq!(report.tensors, whole.len());
        let again = Checkpoint::open(dir.path()).unwrap();
        assert!(
            largest_difference(&whole, &again, same_name) <= bound,
            "{dtype}"
        );
    }
}
