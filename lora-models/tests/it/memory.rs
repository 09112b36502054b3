//! Models, tokenizers and adapters that a program embeds: the same logits, texts and errors as from their files.

use crate::common::{Batch, fixture, model_tensors};
use crate::encoders;
use burn::tensor::Device;
use lora_core::file::{AdapterDir, StoredAdapter};
use lora_core::files::Directory;
use lora_models::checkpoint::Checkpoint;
use lora_models::classifier::{Classifier, ClassifierOptions, adapter_labels};
use lora_models::generate::{GenerationConfig, Generator};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::tokenizer::Tokenizer;
use lora_models::{
    AdapterLoadOptions, LoadOptions, LoraModel, ModelConfig, ModelDir, ModelError, Pretrained,
    model_type,
};
use std::path::Path;
use std::sync::Arc;
use test_support::tensors::host;

/// A directory in memory with files of the fixtures, embedded in this program.
macro_rules! embedded {
    ($directory:literal, $($file:literal),+) => {
        Directory::in_memory("embedded")$(.with_file(
            $file,
            include_bytes!(concat!("../fixtures/", $directory, "/", $file)),
        ))+
    };
}

fn gpt2() -> Directory {
    embedded!(
        "gpt2_tied",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json"
    )
}

#[test]
fn an_embedded_language_model_and_adapter_give_the_logits_and_texts_of_their_files() {
    let device = Device::flex();
    let batch = Batch::of(&model_tensors("gpt2_tied"), "right", &device);
    let options = LoadOptions::default();
    let (model, report) = Gpt2LmHead::load(gpt2(), &options, &device).unwrap();
    let (other, _) = Gpt2LmHead::load(fixture("gpt2_tied"), &options, &device).unwrap();
    assert_eq!(host(batch.logits(&model)), host(batch.logits(&other)));
    assert_eq!(report.files, ["model.safetensors"]);
    report.weight_files.check().unwrap();

    let adapter = AdapterDir::from_bytes(
        "my adapter",
        include_bytes!("../fixtures/adapters/qv_slices/adapter_config.json"),
        include_bytes!("../fixtures/adapters/qv_slices/adapter_model.safetensors"),
    )
    .unwrap();
    let options = AdapterLoadOptions::default();
    let model = model.load_opened_adapter(&adapter, &options).unwrap();
    let other = other.load_adapter(fixture("adapters/qv_slices")).unwrap();
    let (model, other) = (model.into_module(), other.into_module());
    assert_eq!(host(batch.logits(&model)), host(batch.logits(&other)));

    let tokenizer = Tokenizer::from_dir(gpt2()).unwrap();
    let prompt = tokenizer.encode_prompt("the name").unwrap();
    let generate = |model: &Gpt2LmHead| {
        let mut generator = Generator::new(model, GenerationConfig::new(6), &device);
        let texts = generator.generate(std::slice::from_ref(&prompt)).unwrap();
        tokenizer.decode(&texts[0].tokens, false).unwrap()
    };
    assert_eq!(generate(&model), generate(&other));
    assert!(!prompt.is_empty() && !generate(&model).is_empty());
}

#[test]
fn an_embedded_classifier_and_adapter_give_the_logits_of_their_files() {
    let device = Device::flex();
    let base = embedded!("encoders/bert_seq", "config.json", "model.safetensors");
    let adapter = embedded!(
        "encoders/adapters/bert_default",
        "adapter_config.json",
        "adapter_model.safetensors"
    );
    let load = |base: Directory, adapter: Directory| {
        let (model, _) = Classifier::load(base, &ClassifierOptions::default(), &device).unwrap();
        model.load_adapter(adapter).unwrap().into_module()
    };
    let model = load(base, adapter.clone());
    let path = encoders::adapter("bert_default");
    let other = load(encoders::encoder("bert_seq").into(), path.as_path().into());
    let batch = encoders::Batch::of(&encoders::expected("bert_seq"), &device);
    assert_eq!(host(batch.logits(&model)), host(batch.logits(&other)));

    let stored = StoredAdapter::read(&adapter).unwrap();
    let of_files = StoredAdapter::read(&path).unwrap();
    assert_eq!(
        (stored.modules, stored.saved),
        (of_files.modules, of_files.saved)
    );
}

#[test]
fn shards_are_read_by_their_index() {
    let shards = embedded!(
        "gpt2_tied_sharded",
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00004.safetensors",
        "model-00002-of-00004.safetensors",
        "model-00003-of-00004.safetensors",
        "model-00004-of-00004.safetensors"
    );
    let device = Device::flex();
    let options = LoadOptions::default();
    let (model, report) = Gpt2LmHead::load(&shards, &options, &device).unwrap();
    let (other, _) = Gpt2LmHead::load(gpt2(), &options, &device).unwrap();
    let batch = Batch::of(&model_tensors("gpt2_tied"), "right", &device);
    assert_eq!(host(batch.logits(&model)), host(batch.logits(&other)));
    assert_eq!(report.files.len(), 4);

    let incomplete = embedded!(
        "gpt2_tied_sharded",
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00004.safetensors"
    );
    let error = Checkpoint::open(&incomplete).unwrap_err();
    let is_named = matches!(&error, ModelError::MissingFile { looked_for, .. }
        if looked_for.iter().any(|name| name == "model-00002-of-00004.safetensors"));
    assert!(is_named, "{error}");
}

#[test]
fn a_prefix_lies_in_its_subdirectory() {
    let lora = embedded!(
        "prefix/lora",
        "adapter_config.json",
        "adapter_model.safetensors",
        "prefix/adapter_config.json",
        "prefix/adapter_model.safetensors"
    );
    let device = Device::flex();
    let batch = Batch::of(&model_tensors("gpt2_tied"), "right", &device);
    let load = |adapter: Directory| {
        let (model, _) = Gpt2LmHead::load(gpt2(), &LoadOptions::default(), &device).unwrap();
        batch.logits(&model.load_adapter(adapter).unwrap().into_module())
    };
    let of_files = load(fixture("prefix/lora").into());
    assert_eq!(host(load(lora)), host(of_files));
}

#[test]
fn configurations_and_tokenizers_are_those_of_the_files() {
    let path = fixture("gpt2_tied");
    assert_eq!(
        ModelConfig::from_dir(gpt2()).unwrap(),
        ModelConfig::from_dir(&path).unwrap()
    );
    assert_eq!(model_type(gpt2()).unwrap(), "gpt2");
    let [memory, disk] = [gpt2(), path.as_path().into()].map(|dir| ModelDir::open(dir).unwrap());
    let settings = [&memory, &disk].map(|dir| dir.generation().unwrap().settings().unwrap());
    assert_eq!(format!("{:?}", settings[0]), format!("{:?}", settings[1]));
    assert_eq!(
        memory.generation().unwrap().name(),
        "generation_config.json"
    );

    let [memory, disk] = [memory, disk].map(|dir| dir.tokenizer().unwrap());
    let whole = include_bytes!("../fixtures/gpt2_tied/tokenizer.json");
    let whole = Tokenizer::from_bytes(whole).unwrap();
    let text = "The name, the name <|endoftext|> é!";
    for tokenizer in [&memory, &whole] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids, disk.encode(text).unwrap());
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        assert_eq!(tokenizer.eos_id(), disk.eos_id());
    }
    // Its files can be written beside a merged model or an adapter.
    let copy = tempfile::tempdir().unwrap();
    assert_eq!(memory.save_to(copy.path()).unwrap().len(), 2);
    assert!(memory.is_copied_in(copy.path()) && !disk.is_copied_in(copy.path()));
    let files = memory.read_files().unwrap();
    assert_eq!(
        files[0].1,
        std::fs::read(path.join("tokenizer.json")).unwrap()
    );

    // Families that have several files.
    let pair = Directory::in_memory("pair")
        .with_file(
            "vocab.json",
            include_bytes!("../fixtures/tokenizer/vocab.json"),
        )
        .with_file(
            "merges.txt",
            include_bytes!("../fixtures/tokenizer/merges.txt"),
        );
    let pair = Tokenizer::from_dir(pair).unwrap();
    assert_eq!(
        pair.encode("the name").unwrap(),
        disk.encode("the name").unwrap()
    );
}

#[test]
fn errors_are_those_of_files_and_name_what_is_in_memory() {
    let device = Device::flex();
    let none = Directory::in_memory("nothing");
    let adapter = embedded!("adapters/c_attn", "adapter_config.json");
    let pickle = Directory::in_memory("pickle").with_file("pytorch_model.bin", b"PK\x03\x04");
    let weights: &[u8] = include_bytes!("../fixtures/gpt2_tied/model.safetensors");
    let message = |error: ModelError| error.to_string();
    let load = |dir: Directory| {
        let loaded = Gpt2LmHead::load(dir, &LoadOptions::default(), &device);
        message(loaded.err().unwrap())
    };
    for (found, expected) in [
        (load(none.clone()), "nothing: it has no config.json"),
        (load(adapter.clone()), "this is an adapter; give its base"),
        (
            load(embedded!("gpt2_tied", "config.json")),
            "model.safetensors.index.json",
        ),
        (
            message(Checkpoint::open(pickle).err().unwrap()),
            "pickle/pytorch_model.bin",
        ),
        (
            message(
                Checkpoint::from_bytes("cut.safetensors", &weights[..50_000])
                    .err()
                    .unwrap(),
            ),
            "cut.safetensors",
        ),
        (
            message(Tokenizer::from_bytes(b"{\"model\": 1}").err().unwrap()),
            "memory/tokenizer.json",
        ),
        (
            message(Tokenizer::from_dir(&none).err().unwrap()),
            "tokenizer.json",
        ),
        (
            message(adapter_labels(&adapter).err().unwrap()),
            "this is an adapter",
        ),
        (
            AdapterDir::open(&none).unwrap_err().to_string(),
            "it has no adapter_config.json",
        ),
        (
            StoredAdapter::read(&adapter).unwrap_err().to_string(),
            "embedded/adapter_model.safetensors",
        ),
        (
            AdapterDir::from_bytes("mine", b"[]", weights)
                .unwrap_err()
                .to_string(),
            "mine/adapter_config.json",
        ),
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

/// A path still is a directory of the file system, whatever its type.
#[test]
fn a_checkpoint_of_bytes_is_that_of_the_file() {
    let bytes: &'static [u8] = include_bytes!("../fixtures/gpt2_tied/model.safetensors");
    let path = fixture("gpt2_tied/model.safetensors");
    let of_file = Checkpoint::open(path.to_str().unwrap()).unwrap();
    let checkpoint = Checkpoint::from_bytes("mine.safetensors", bytes).unwrap();
    assert_eq!(checkpoint.path(), Path::new("mine.safetensors"));
    assert_eq!(checkpoint.file_bytes(), of_file.file_bytes());
    let names: Vec<&str> = checkpoint.names().collect();
    assert_eq!(names, of_file.names().collect::<Vec<_>>());
    for name in names {
        let values = |file: &Checkpoint| file.read_finite(name).unwrap().values;
        assert_eq!(values(&checkpoint), values(&of_file), "{name}");
    }
    let owned = Checkpoint::from_bytes("owned", bytes.to_vec()).unwrap();
    assert_eq!(owned.len(), of_file.len());
}

#[test]
fn a_tokenizer_keeps_its_own_files_and_no_weights() {
    struct Counted {
        bytes: &'static [u8],
        _count: Arc<()>,
    }
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            self.bytes
        }
    }
    let counted = |bytes: &'static [u8], count: &Arc<()>| Counted {
        bytes,
        _count: count.clone(),
    };
    let (own, weights) = (Arc::new(()), Arc::new(()));
    let json = include_bytes!("../fixtures/gpt2_tied/tokenizer.json");
    let dir = Directory::in_memory("embedded")
        .with_owned_file("tokenizer.json", counted(json, &own))
        .with_owned_file("model.safetensors", counted(b"weights", &weights));
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    drop(dir);
    assert_eq!(Arc::strong_count(&weights), 1);
    assert_eq!(Arc::strong_count(&own), 2);
    let files = tokenizer.read_files().unwrap();
    assert_eq!(files, [("tokenizer.json".to_string(), json.to_vec())]);
}
