//! Entries: each makes files of an input and reads them.
//!
//! An entry that reads several files splits its input at [`MARK`]. A safetensors file is split into header and values, and
//! the length of the header is written here: a mutation of the header would otherwise be stopped by its first eight
//! bytes.

use lora_core::file::StoredAdapter;
use lora_core::file::{AdapterDir, CONFIG_FILE, PICKLED_FILE, PeftOptions, WEIGHTS_FILE};
use lora_core::{FusedLayout, Slices};
use lora_models::checkpoint::Checkpoint;
use lora_models::classifier::adapter_labels;
use lora_models::encoder::EncoderConfig;
use lora_models::formats::loralib::LoralibOptions;
use lora_models::formats::{AdapterFormat, loralib as loralib_format, mlx as mlx_format};
use lora_models::gpt2::Gpt2Config;
use lora_models::tokenizer::Tokenizer;
use lora_models::{FamilyConfig, model_type};
use lora_train::data::{
    Columns, DataFormat, LabelKind, LabelledLayout, LabelledSource, SourceOptions, read_labelled,
    read_records,
};
use lora_train::options::TrainOptions;
use lora_train::tools::{DiffOptions, InspectOptions, UnsaidOptions, diff, inspect};
use std::path::Path;

/// Separator between the files of an input.
pub const MARK: &[u8] = b"\n%%\n";

const CONFIG: &[u8] = br#"{"peft_type":"LORA","r":2,"lora_alpha":3,"target_modules":["q"]}"#;

/// Splits an input; missing parts are empty.
fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = input;
    let mut parts = [[].as_slice(); N];
    for part in &mut parts {
        let at = rest.windows(MARK.len()).position(|bytes| bytes == MARK);
        let end = at.unwrap_or(rest.len());
        *part = &rest[..end];
        rest = rest.get(end + MARK.len()..).unwrap_or_default();
    }
    parts
}

fn with_length(header: &[u8], values: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, values].concat()
}

/// Writes the files that are not empty to a folder, and reads it.
fn in_folder(files: &[(&str, &[u8])], read: impl FnOnce(&Path)) {
    // A folder for each input: nothing of the one before can be left.
    let Ok(folder) = tempfile::tempdir() else {
        return;
    };
    for (name, bytes) in files {
        if !bytes.is_empty() && std::fs::write(folder.path().join(name), bytes).is_err() {
            return;
        }
    }
    read(folder.path());
}

fn checkpoint(path: &Path) {
    described(path);
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return;
    };
    let names: Vec<&str> = checkpoint.names().collect();
    for name in names {
        let _ = (checkpoint.shape(name), checkpoint.bytes_of(name));
        let elements = checkpoint
            .shape(name)
            .map(|shape| shape.iter().product::<usize>());
        if let Ok(tensor) = checkpoint.read_f32(name) {
            assert_eq!(elements, Some(tensor.values.len()));
        }
    }
}

fn adapter(dir: &Path) {
    described(dir);
    let _ = (
        AdapterFormat::detect(dir),
        AdapterDir::open(dir).map(|adapter| adapter.tensors().map(|_| ())),
        adapter_labels(dir),
    );
    if let Ok(adapter) = StoredAdapter::read(dir) {
        let _ = (
            adapter.slices(),
            adapter.parameters(),
            adapter.saved_parameters(),
        );
        let _ = loralib_format::write(
            &adapter,
            &dir.join("written.safetensors"),
            &Vec::new(),
            lora_core::files::Overwrite::Replace,
        );
        let written = dir.join("written");
        if adapter
            .save(&written, lora_core::files::Overwrite::Replace)
            .is_ok()
        {
            let _ = StoredAdapter::read(&written);
        }
    }
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
        unsaid: UnsaidOptions::default(),
        tolerance: 0.0,
        json: false,
    };
    if let Ok(report) = diff(&options) {
        // The same bytes are the same values, whatever they are.
        assert!(report.same, "{report}");
        let _ = report.to_string();
    }
}

fn loralib_file(path: &Path) {
    described(path);
    let _ = AdapterFormat::detect(path);
    let slices = Slices {
        parts: 3,
        adapted: vec![0, 2],
        layout: FusedLayout::PartByPart,
    };
    for slices in [None, Some(slices)] {
        let options = LoralibOptions {
            alpha: 3.0,
            slices,
            rename: vec![("model.".into(), "transformer.".into())],
            peft: PeftOptions::default(),
        };
        if let Ok(adapter) = loralib_format::read(path, &options) {
            let _ = adapter.slices();
        }
    }
}

/// Reads a safetensors file as a checkpoint and as an adapter.
pub fn safetensors(input: &[u8]) {
    let files = [
        ("model.safetensors", input),
        (WEIGHTS_FILE, input),
        (CONFIG_FILE, CONFIG),
    ];
    in_folder(&files, |dir| {
        checkpoint(dir);
        adapter(dir);
    });
}

/// Reads a PEFT directory: its configuration, header and values of its tensors, and `config.json`.
pub fn peft(input: &[u8]) {
    let [config, header, values, companion] = parts(input);
    let weights = with_length(header, values);
    let files = [
        (CONFIG_FILE, config),
        (WEIGHTS_FILE, &weights),
        ("config.json", companion),
    ];
    in_folder(&files, adapter);
}

/// Reads a file of `torch.save` as a checkpoint, as a loralib file and as an adapter.
pub fn torch_file(input: &[u8]) {
    in_folder(&[("pytorch_model.bin", input)], |dir| {
        checkpoint(dir);
        loralib_file(&dir.join("pytorch_model.bin"));
    });
    in_folder(&[(PICKLED_FILE, input), (CONFIG_FILE, CONFIG)], adapter);
}

/// Reads a pickle and its one storage in an archive as `torch.save` writes it.
pub fn pickle(input: &[u8]) {
    let [pickle, storage] = parts(input);
    let entries = [
        ("m/data.pkl", pickle),
        ("m/byteorder", b"little"),
        ("m/data/0", storage),
        ("m/version", b"3\n"),
    ];
    torch_file(&archive(&entries));
}

/// Reads an index of shards with header and values of the only shard.
pub fn shards(input: &[u8]) {
    let [index, header, values] = parts(input);
    let shard = with_length(header, values);
    let files = [
        ("model.safetensors.index.json", index),
        ("a.safetensors", &shard),
    ];
    in_folder(&files, checkpoint);
}

/// Reads a loralib file: header and values.
pub fn loralib(input: &[u8]) {
    let [header, values] = parts(input);
    let file = with_length(header, values);
    in_folder(&[("lora.safetensors", &file)], |dir| {
        loralib_file(&dir.join("lora.safetensors"));
    });
}

/// Reads an mlx-lm directory: configuration, header and values.
pub fn mlx(input: &[u8]) {
    let [config, header, values] = parts(input);
    let weights = with_length(header, values);
    let files = [(CONFIG_FILE, config), (mlx_format::WEIGHTS_FILE, &weights)];
    in_folder(&files, |dir| {
        described(dir);
        let _ = mlx_format::read(dir, &Vec::new(), PeftOptions::default());
    });
}

/// Reads a model's `config.json`.
pub fn model_config(input: &[u8]) {
    in_folder(
        &[("config.json", input), ("generation_config.json", input)],
        |dir| {
            let _ = model_type(dir);
            if let Ok(config) = Gpt2Config::from_dir(dir) {
                let _ = (config.parameters(), config.inner(), config.to_json());
            }
            if let Ok(config) = EncoderConfig::from_dir(dir) {
                let _ = (config.max_length(), config.head_size(), config.to_json());
            }
        },
    );
}

/// Reads the files of a tokenizer; the first byte chooses the family.
pub fn tokenizer(input: &[u8]) {
    let Some((kind, input)) = input.split_first() else {
        return;
    };
    let [first, second, third, fourth] = parts(input);
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
        let Ok(tokenizer) = Tokenizer::from_dir(dir) else {
            return;
        };
        let text = "Hello wörld, it's 42\u{3000}日本 </s> [MASK]\n";
        if let Ok(ids) = tokenizer.encode(text) {
            let _ = tokenizer.decode(&ids, true);
        }
        let _ = tokenizer.decode(&[0, 1, 2, u32::MAX], false);
        let _ = tokenizer.encode_inputs(text, Some("b"), Some(8));
        let _ = tokenizer.encode_words(&["Hello", "", "wörld"], Some(8));
    });
}

/// Reads training data and recipes; the first byte chooses the format.
pub fn data(input: &[u8]) {
    let Some((kind, input)) = input.split_first() else {
        return;
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
        let _ = read_records(path, &options);
        let columns = Columns {
            label: Some("a,b".into()),
            ..Columns::default()
        };
        for kind in [LabelKind::Classes, LabelKind::MultiLabel, LabelKind::Score] {
            for columns in [Columns::default(), columns.clone()] {
                let layout = LabelledLayout::Own { columns, kind };
                let _ = read_labelled(path, &LabelledSource::new(&layout).with_format(format));
            }
        }
        let layout = LabelledLayout::Words(Columns::default());
        for format in [
            DataFormat::Auto,
            DataFormat::PlainText,
            DataFormat::JsonLines,
        ] {
            let source = LabelledSource::new(&layout).with_format(format);
            let _ = read_labelled(path, &source);
        }
        let _ = TrainOptions::from_recipe(path);
    });
}

/// Builds a ZIP archive without compression: APPNOTE.TXT of PKWARE, sections 4.3.7 to 4.3.16.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in entries {
        let length = (bytes.len() as u32).to_le_bytes();
        let sizes = [crc32(bytes).to_le_bytes(), length, length].concat();
        let name_length = (name.len() as u16).to_le_bytes();
        let place = (file.len() as u32).to_le_bytes();
        let head = [0x14, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        file.extend([b"PK\x03\x04", &head[..], &sizes, &name_length, &[0, 0]].concat());
        file.extend([name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02\x14\x00", &head[..], &sizes, &name_length].concat());
        directory.extend([&[0; 12][..], &place, name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let size = (directory.len() as u32).to_le_bytes();
    let place = (file.len() as u32).to_le_bytes();
    file.extend(&directory);
    file.extend(
        [
            b"PK\x05\x06\0\0\0\0",
            &count[..],
            &count,
            &size,
            &place,
            &[0, 0],
        ]
        .concat(),
    );
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}
