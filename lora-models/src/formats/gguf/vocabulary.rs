//! Tokenizers in the metadata of a file: those of BPE over bytes, which llama.cpp tells apart by how they split texts before.

use super::PROGRAM;
use super::file::Value;
use crate::ModelError;
use crate::formats::unsupported;
use crate::tokenizer::Tokenizer;
use serde::Deserialize;
use std::path::Path;

/// Kinds of tokens in llama.cpp.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Expressions that split texts, and names of llama.cpp.
const EXPRESSIONS: [(&str, &str); 2] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
];

/// Parts of `tokenizer.json`.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Normalizer>,
    pre_tokenizer: Option<Split>,
    model: Model,
}

#[derive(Deserialize)]
struct Normalizer {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Added {
    id: usize,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    vocab: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair([String; 2]),
    Joined(String),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Split {
    Sequence {
        pretokenizers: Vec<Split>,
    },
    ByteLevel {
        use_regex: bool,
        #[serde(default)]
        add_prefix_space: bool,
    },
    Digits {
        individual_digits: bool,
    },
    #[serde(rename = "Split")]
    Expression {
        pattern: Pattern,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
enum Pattern {
    Regex(String),
    #[serde(rename = "String")]
    Text(serde::de::IgnoredAny),
}

/// Returns the metadata of a tokenizer for a model with `rows` embeddings; messages name `path`.
///
/// # Errors
/// [`ModelError::Malformed`] for a tokenizer that has no form in GGUF here: another algorithm than BPE over bytes, a way to split
/// texts without a known name, more tokens than rows, special tokens around texts but a first one.
pub(super) fn metadata(
    tokenizer: &Tokenizer,
    template: Option<&str>,
    rows: usize,
    path: &Path,
) -> Result<Vec<(String, Value)>, ModelError> {
    let refuse = |what: &str| unsupported(path, what.into(), PROGRAM);
    let text = tokenizer.to_json()?;
    let file: File = serde_json::from_str(&text)
        .map_err(|error| ModelError::malformed(path, format!("its tokenizer: {error}")))?;
    if file.model.kind != "BPE" || file.model.byte_fallback {
        return Err(refuse("the tokenizer is no BPE over bytes"));
    }
    // llama.cpp changes nothing in texts; what NFC changes is rare, and its converter leaves it out too.
    if file.normalizer.is_some_and(|step| step.kind != "NFC") {
        return Err(refuse("the tokenizer changes texts before it splits them"));
    }
    let name = file.pre_tokenizer.as_ref().and_then(name);
    let name =
        name.ok_or_else(|| refuse("the tokenizer splits texts in a way without a known name"))?;

    let mut tokens: Vec<Option<(String, i32)>> = vec![None; rows];
    let known = file.model.vocab.into_iter();
    let known = known.filter_map(|(token, id)| Some((id.as_u64()? as usize, token, NORMAL)));
    let kind = |special| if special { CONTROL } else { USER_DEFINED };
    let added =
        (file.added_tokens.into_iter()).map(|token| (token.id, token.content, kind(token.special)));
    for (id, token, kind) in known.chain(added) {
        let place = tokens.get_mut(id);
        let place = place.ok_or_else(|| {
            let message =
                format!("token {id} of the tokenizer has no row in an embedding of {rows}");
            ModelError::malformed(path, message)
        })?;
        *place = Some((token, kind));
    }
    let tokens = tokens.into_iter().enumerate();
    let tokens = tokens.map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)));
    let (tokens, kinds) = tokens.unzip();
    let merges = file.model.merges.into_iter().map(|merge| match merge {
        Merge::Joined(merge) => merge,
        Merge::Pair([first, second]) => format!("{first} {second}"),
    });

    let starts = match tokenizer.around() {
        ([], []) => false,
        ([first], []) if Some(*first) == tokenizer.bos_id() => true,
        _ => return Err(refuse("the tokenizer puts special tokens around texts")),
    };
    let mut all = vec![
        ("model", "gpt2".into()),
        ("pre", name.into()),
        ("tokens", Value::Strings(tokens)),
        ("token_type", Value::Numbers(kinds)),
        ("merges", Value::Strings(merges.collect())),
        ("add_bos_token", Value::Bool(starts)),
    ];
    for (key, id) in [
        ("bos_token_id", tokenizer.bos_id()),
        ("eos_token_id", tokenizer.eos_id()),
        ("unknown_token_id", tokenizer.unk_id()),
        ("padding_token_id", tokenizer.pad_id()),
    ] {
        all.extend(id.map(|id| (key, Value::U32(id))));
    }
    let mut all: Vec<_> = all
        .into_iter()
        .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
        .collect();
    all.extend(template.map(|text| ("tokenizer.chat_template".into(), text.into())));
    Ok(all)
}

/// Returns the name that llama.cpp has for a way to split texts.
fn name(split: &Split) -> Option<&'static str> {
    macro_rules! bytes {
        ($use_regex:literal) => {
            Split::ByteLevel {
                use_regex: $use_regex,
                add_prefix_space: false,
            }
        };
    }
    let alone = std::slice::from_ref(split);
    let steps = match split {
        Split::Sequence { pretokenizers } => pretokenizers,
        _ => alone,
    };
    match steps {
        [bytes!(true)] => Some("gpt-2"),
        [
            Split::Digits {
                individual_digits: true,
            },
            bytes!(true),
        ] => Some("smollm"),
        [
            Split::Expression {
                pattern: Pattern::Regex(found),
            },
            bytes!(false),
        ] => {
            let mut all = EXPRESSIONS.iter();
            all.find_map(|(expression, name)| (expression == found).then_some(*name))
        }
        _ => None,
    }
}
