//! Entries: each makes files of an input, reads them, and returns true if they came to a value.
//!
//! An entry that reads several files splits its input at [`MARK`](super::input::MARK). A safetensors file is split into header and values, and
//! the length of the header is written here: a mutation of the header would otherwise be stopped by its first eight
//! bytes.

use super::input::{archive, in_folder, parts, with_length};
use lora_core::file::StoredAdapter;
use lora_core::file::{AdapterDir, CONFIG_FILE, PICKLED_FILE, PeftOptions, WEIGHTS_FILE};
use lora_core::files::Overwrite;
use lora_core::{FusedLayout, Slices};
use lora_models::chat::{ChatTemplate, Conversation, Message, TrainOn};
use lora_models::checkpoint::Checkpoint;
use lora_models::classifier::adapter_labels;
use lora_models::encoder::EncoderConfig;
use lora_models::formats::loralib::LoralibOptions;
use lora_models::formats::{AdapterFormat, loralib as loralib_format, mlx as mlx_format};
use lora_models::gpt2::Gpt2Config;
use lora_models::tokenizer::Tokenizer;
use lora_models::{FamilyConfig, ModelConfig, model_type};
use lora_train::data::{
    Columns, DataFormat, GlueTask, LabelKind, LabelledLayout, LabelledSource, SourceOptions,
    Unlabelled, read_labelled, read_records,
};
use lora_train::options::TrainOptions;
use lora_train::tools::{DiffOptions, ForeignOptions, InspectOptions, diff, inspect};
use std::path::Path;

pub use super::applied::{attached, checkpoint_dir, prefix};
pub use super::hub::hub;
pub use super::hub_push::hub_push;

const CONFIG: &[u8] = br#"{"peft_type":"LORA","r":2,"lora_alpha":3,"target_modules":["q"]}"#;

/// Reads all tensors of a checkpoint. Returns true if one was read: numbers that are no floats are refused.
fn checkpoint(path: &Path) -> bool {
    described(path);
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return false;
    };
    let mut is_read = false;
    let names: Vec<&str> = checkpoint.names().collect();
    for name in names {
        let _ = (checkpoint.shape(name), checkpoint.bytes_of(name));
        let elements = checkpoint
            .shape(name)
            .map(|shape| shape.iter().product::<usize>());
        if let Ok(tensor) = checkpoint.read_f32(name) {
            assert_eq!(elements, Some(tensor.values.len()));
            is_read = true;
        }
    }
    is_read
}

/// Reads an adapter, writes it, and reads what was written.
fn adapter(dir: &Path) -> bool {
    described(dir);
    let _ = (
        AdapterFormat::detect(dir),
        AdapterDir::open(dir).map(|adapter| adapter.tensors().map(|_| ())),
        adapter_labels(dir),
    );
    let Ok(adapter) = StoredAdapter::read(dir) else {
        return false;
    };
    let _ = (
        adapter.slices(),
        adapter.parameters(),
        adapter.saved_parameters(),
    );
    let _ = loralib_format::write(
        &adapter,
        &dir.join("written.safetensors"),
        &Vec::new(),
        Overwrite::Replace,
    );
    let written = dir.join("written");
    let saved = adapter.save(&written, Overwrite::Replace);
    saved.is_ok() && StoredAdapter::read(&written).is_ok()
}

/// Runs `inspect` on a path and `diff` on the path and itself, and formats the reports.
fn described(path: &Path) {
    let options = InspectOptions {
        path: path.into(),
        alpha: Some(3.0),
        values: true,
        json: false,
    };
    if let Ok(report) = inspect(&options) {
        let _ = report.to_string();
    }
    let options = DiffOptions {
        first: path.into(),
        second: path.into(),
        foreign: ForeignOptions::default(),
        tolerance: 0.0,
        json: false,
    };
    if let Ok(report) = diff(&options) {
        // The same bytes are the same values, whatever they are.
        assert!(report.same, "{report}");
        let _ = report.to_string();
    }
}

/// Reads a loralib file, with and without fused projections.
fn loralib_file(path: &Path) -> bool {
    described(path);
    let _ = AdapterFormat::detect(path);
    let slices = Slices {
        parts: 3,
        adapted: vec![0, 2],
        layout: FusedLayout::PartByPart,
    };
    let mut is_read = false;
    for slices in [None, Some(slices)] {
        let options = LoralibOptions {
            alpha: 3.0,
            slices,
            rename: vec![("model.".into(), "transformer.".into())],
            peft: PeftOptions::default(),
        };
        if let Ok(adapter) = loralib_format::read(path, &options) {
            let _ = adapter.slices();
            is_read = true;
        }
    }
    is_read
}

/// Reads a safetensors file as a checkpoint and as an adapter.
pub fn safetensors(input: &[u8]) -> bool {
    let files = [
        ("model.safetensors", input),
        (WEIGHTS_FILE, input),
        (CONFIG_FILE, CONFIG),
    ];
    in_folder(&files, |dir| checkpoint(dir) | adapter(dir))
}

/// Reads a PEFT directory: its configuration, header and values of its tensors, and `config.json`.
pub fn peft(input: &[u8]) -> bool {
    let [config, header, values, companion] = parts(input);
    let weights = with_length(header, values);
    let files = [
        (CONFIG_FILE, config),
        (WEIGHTS_FILE, &weights),
        ("config.json", companion),
    ];
    in_folder(&files, adapter)
}

/// Reads a file of `torch.save` as a checkpoint, as a loralib file and as an adapter.
pub fn torch_file(input: &[u8]) -> bool {
    let is_checkpoint = in_folder(&[("pytorch_model.bin", input)], |dir| {
        let is_read = checkpoint(dir);
        is_read | loralib_file(&dir.join("pytorch_model.bin"))
    });
    is_checkpoint | in_folder(&[(PICKLED_FILE, input), (CONFIG_FILE, CONFIG)], adapter)
}

/// Reads a pickle and its one storage in an archive as `torch.save` writes it.
pub fn pickle(input: &[u8]) -> bool {
    let [pickle, storage] = parts(input);
    let entries = [
        ("m/data.pkl", pickle),
        ("m/byteorder", b"little"),
        ("m/data/0", storage),
        ("m/version", b"3\n"),
    ];
    torch_file(&archive(&entries))
}

/// Reads an index of shards with header and values of the only shard.
pub fn shards(input: &[u8]) -> bool {
    let [index, header, values] = parts(input);
    let shard = with_length(header, values);
    let files = [
        ("model.safetensors.index.json", index),
        ("a.safetensors", &shard),
    ];
    in_folder(&files, checkpoint)
}

/// Reads a loralib file: header and values.
pub fn loralib(input: &[u8]) -> bool {
    let [header, values] = parts(input);
    let file = with_length(header, values);
    in_folder(&[("lora.safetensors", &file)], |dir| {
        loralib_file(&dir.join("lora.safetensors"))
    })
}

/// Reads an mlx-lm directory: configuration, header and values.
pub fn mlx(input: &[u8]) -> bool {
    let [config, header, values] = parts(input);
    let weights = with_length(header, values);
    let files = [(CONFIG_FILE, config), (mlx_format::WEIGHTS_FILE, &weights)];
    in_folder(&files, |dir| {
        described(dir);
        mlx_format::read(dir, &Vec::new(), PeftOptions::default()).is_ok()
    })
}

/// Reads a model's `config.json`.
pub fn model_config(input: &[u8]) -> bool {
    in_folder(
        &[("config.json", input), ("generation_config.json", input)],
        |dir| {
            let _ = model_type(dir);
            let decoder = Gpt2Config::from_dir(dir);
            if let Ok(config) = &decoder {
                let _ = (config.parameters(), config.inner(), config.to_json());
            }
            let encoder = EncoderConfig::from_dir(dir);
            if let Ok(config) = &encoder {
                let _ = (config.max_length(), config.head_size(), config.to_json());
            }
            let any = ModelConfig::from_dir(dir);
            if let Ok(ModelConfig::Decoder(config)) = &any {
                let _ = (config.parameters(), config.to_json(), config.validate());
                let ropes = config.ropes.iter();
                ropes.for_each(|rope| drop(rope.frequencies(config.max_position_embeddings)));
            }
            decoder.is_ok() || encoder.is_ok() || any.is_ok()
        },
    )
}

/// Reads a chat template, and renders a conversation with it: the template, and the array of the messages.
pub fn chat_template(input: &[u8]) -> bool {
    let [template, messages] = parts(input);
    let messages: Vec<serde_json::Map<_, _>> = serde_json::from_slice(messages).unwrap_or_default();
    let messages: Vec<Message> = messages.into_iter().map(Message::from_object).collect();
    let chat = Conversation::new(messages);
    in_folder(&[("chat_template.jinja", template)], |dir| {
        let Ok(Some(template)) = ChatTemplate::from_dir(dir) else {
            return false;
        };
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens = tokens.map(|(name, token)| (name.to_string(), token.into()));
        let template = template.with_variables(tokens.into_iter().collect());
        let prompt = template.prompt(&chat);
        let rendered = template.render(&chat, TrainOn::Assistant);
        // Some render a turn otherwise at the end than in the middle, which is refused.
        prompt.is_ok() || rendered.is_ok()
    })
}

/// Reads the files of a tokenizer; the first byte chooses the family.
pub fn tokenizer(input: &[u8]) -> bool {
    let text = "Hello wörld, it's 42\u{3000}日本 </s> [MASK]\n";
    let parts = parts(input.get(1..).unwrap_or_default());
    with_tokenizer(input.first(), parts, |tokenizer| read_text(tokenizer, text))
}

/// Reads the files of a tokenizer, and a text with it. The first byte chooses the family, and the text is the first part.
pub fn tokenizer_text(input: &[u8]) -> bool {
    let [text, files @ ..] = parts::<5>(input.get(1..).unwrap_or_default());
    let text = String::from_utf8_lossy(text);
    with_tokenizer(input.first(), files, |tokenizer| {
        read_text(tokenizer, &text)
    })
}

/// Encodes a text, alone and as words, and decodes its tokens.
fn read_text(tokenizer: &Tokenizer, text: &str) -> bool {
    let encoded = tokenizer.encode(text);
    if let Ok(ids) = &encoded {
        let _ = tokenizer.decode(ids, true);
        let _ = tokenizer.decode(ids, false);
    }
    let _ = tokenizer.decode(&[0, 1, 2, u32::MAX], false);
    for longest in [None, Some(8)] {
        let _ = tokenizer.encode_inputs(text, Some("b"), longest);
    }
    let words: Vec<&str> = text.split(' ').chain([""]).collect();
    let _ = tokenizer.encode_words(&words, Some(8));
    encoded.is_ok()
}

/// Opens a tokenizer of a family from its files.
fn with_tokenizer(
    kind: Option<&u8>,
    files: [&[u8]; 4],
    read: impl FnOnce(&Tokenizer) -> bool,
) -> bool {
    let [first, second, third, fourth] = files;
    let Some(kind) = kind else {
        return false;
    };
    let class: &[u8] = match kind {
        b'b' => br#"{"model_type":"bert"}"#,
        b'r' => br#"{"model_type":"roberta"}"#,
        b'x' => br#"{"model_type":"xlm-roberta"}"#,
        b'd' => br#"{"model_type":"deberta-v2"}"#,
        b'g' => br#"{"model_type":"gpt2"}"#,
        _ => br#"{}"#,
    };
    let mut files = match kind {
        b'b' => vec![("vocab.txt", first)],
        b'r' | b'g' => vec![("vocab.json", first), ("merges.txt", third)],
        b'x' => vec![("sentencepiece.bpe.model", first)],
        b'd' => vec![("spm.model", first)],
        _ => vec![("tokenizer.json", first)],
    };
    files.extend([
        ("tokenizer_config.json", second),
        ("special_tokens_map.json", fourth),
        ("added_tokens.json", fourth),
        ("config.json", class),
    ]);
    in_folder(&files, |dir| {
        Tokenizer::from_dir(dir).is_ok_and(|tokenizer| read(&tokenizer))
    })
}

/// Reads training data and recipes; the first byte chooses the format.
pub fn data(input: &[u8]) -> bool {
    let Some((kind, input)) = input.split_first() else {
        return false;
    };
    let format = match kind {
        b'j' => DataFormat::JsonLines,
        b'c' => DataFormat::Csv,
        b't' => DataFormat::Tsv,
        b'e' => DataFormat::E2e,
        b'd' => DataFormat::Dart,
        b'w' => DataFormat::WebNlg,
        b'q' => DataFormat::WikiSql,
        b's' => DataFormat::SamSum,
        b'm' => DataFormat::Mnli,
        b'p' => DataFormat::PlainText,
        _ => DataFormat::Auto,
    };
    // WikiSQL's tables lie beside its questions.
    in_folder(&[("data", input), ("data.tables.jsonl", input)], |dir| {
        let path = &dir.join("data");
        let options = SourceOptions {
            format,
            ..SourceOptions::default()
        };
        let mut is_read = read_records(path, &options).is_ok();
        let columns = Columns {
            label: Some("a,b".into()),
            ..Columns::default()
        };
        for kind in [LabelKind::Classes, LabelKind::MultiLabel, LabelKind::Score] {
            for columns in [Columns::default(), columns.clone()] {
                let layout = LabelledLayout::Own { columns, kind };
                let source = LabelledSource::new(&layout).with_format(format);
                is_read |= read_labelled(path, &source).is_ok();
            }
        }
        let layout = LabelledLayout::Words(Columns::default());
        for format in [
            DataFormat::Auto,
            DataFormat::PlainText,
            DataFormat::JsonLines,
        ] {
            let source = LabelledSource::new(&layout).with_format(format);
            is_read |= read_labelled(path, &source).is_ok();
        }
        is_read | TrainOptions::from_recipe(path).is_ok()
    })
}

/// Reads a file of GLUE, with and without labels; the first byte chooses the task.
pub fn glue(input: &[u8]) -> bool {
    let Some((kind, input)) = input.split_first() else {
        return false;
    };
    let task = GlueTask::ALL[usize::from(*kind) % GlueTask::ALL.len()];
    let layout = LabelledLayout::Glue(task);
    in_folder(&[("data", input)], |dir| {
        let mut is_read = false;
        for format in [DataFormat::Auto, DataFormat::Tsv, DataFormat::JsonLines] {
            for unlabelled in [Unlabelled::Refuse, Unlabelled::Accept] {
                let source = LabelledSource::new(&layout).with_format(format);
                let source = source.with_unlabelled(unlabelled);
                is_read |= read_labelled(&dir.join("data"), &source).is_ok();
            }
        }
        is_read
    })
}
