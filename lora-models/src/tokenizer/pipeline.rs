//! Steps of each family as `transformers` 5 configures them: normalizer, pre-tokenizer, model, decoder and
//! post-processor.
//!
//! `transformers` builds these families from their vocabulary even if `tokenizer.json` describes them. The same is
//! done here: of that file, the vocabulary, the merges, the added tokens and XLM-R's table of characters are used.
//!
//! | family | source of truth in `transformers` |
//! | --- | --- |
//! | BERT | `models/bert/tokenization_bert.py` |
//! | RoBERTa | `models/roberta/tokenization_roberta.py` |
//! | XLM-R | `models/xlm_roberta/tokenization_xlm_roberta.py` |
//! | DeBERTa | `models/deberta/tokenization_deberta.py` |
//! | DeBERTa v2, v3 | `models/deberta_v2/tokenization_deberta_v2.py` |
//! | GPT-2 | `models/gpt2/tokenization_gpt2.py` |

use super::family::Family;
use super::roles::{Role, RoleTexts};
use super::special_tokens::Settings;
use super::vocabulary::{Pieces, Tokens, Vocabulary};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{
    BertNormalizer, Lowercase, NFC, Precompiled, Sequence as Normalizers, Strip,
};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};
use tokenizers::{
    AddedToken, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Result,
    SplitDelimiterBehavior, Tokenizer,
};

/// Character that SentencePiece writes for a space.
const SPACE: char = '▁';

/// Index of `<unk>` in XLM-R's vocabulary, which is fairseq's.
const XLM_UNKNOWN: usize = 3;

/// Builds the tokenizer of a family on a vocabulary, and adds `tokens` to it in this order.
///
/// # Errors
/// The reason why the parts do not fit together.
pub(super) fn build(
    family: Family,
    vocabulary: Vocabulary,
    named: &RoleTexts,
    settings: &Settings,
    tokens: &[AddedToken],
) -> Result<Tokenizer> {
    let mut tokenizer = match vocabulary {
        Vocabulary::WordPiece(vocab) => word_piece(vocab, named, settings)?,
        Vocabulary::Bpe(vocab, merges) => byte_level(vocab, merges, settings)?,
        Vocabulary::Unigram(pieces) if family == Family::XlmRoberta => xlm(pieces, settings)?,
        Vocabulary::Unigram(pieces) => deberta_v2(pieces, named, settings)?,
    };
    tokenizer.add_tokens(tokens.iter().cloned())?;
    let processor = around(family, &tokenizer, named, settings)?;
    tokenizer.with_post_processor(processor);
    Ok(tokenizer)
}

/// Builds BERT's tokenizer: lower case unless configured otherwise, then the longest pieces of each word from its
/// start.
fn word_piece(vocab: Tokens, named: &RoleTexts, settings: &Settings) -> Result<Tokenizer> {
    let unknown = named[Role::Unk].clone().unwrap_or_default();
    // Without it, the first word without known pieces would be an error in the middle of a corpus.
    if !vocab.contains_key(&unknown) {
        return Err(format!("the vocabulary lacks {unknown:?}, the unknown token").into());
    }
    let vocab: Vocab = vocab.into_iter().collect();
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token(unknown)
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(
        true,
        settings.tokenize_chinese_chars.unwrap_or(true),
        settings.strip_accents,
        settings.do_lower_case.unwrap_or(true),
    )))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::new("##".to_string(), true)));
    Ok(tokenizer)
}

/// Builds the tokenizer of GPT-2, RoBERTa or the first DeBERTa: every byte is a character of its own, so no text is
/// unknown.
fn byte_level(vocab: Tokens, merges: Merges, settings: &Settings) -> Result<Tokenizer> {
    let vocab: Vocab = vocab.into_iter().collect();
    let model = BPE::builder().vocab_and_merges(vocab, merges).build()?;
    let mut tokenizer = Tokenizer::new(model);
    let add_prefix_space = settings.add_prefix_space.unwrap_or(false);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

fn xlm(pieces: Pieces, settings: &Settings) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(Unigram::from(pieces.pieces, Some(XLM_UNKNOWN), false)?);
    if let Some(table) = pieces.charsmap {
        tokenizer.with_normalizer(Some(Precompiled::from(&table)?))?;
    }
    let space = metaspace(settings, PrependScheme::Never);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        WhitespaceSplit.into(),
        space.clone().into(),
    ])));
    tokenizer.with_decoder(Some(space));
    Ok(tokenizer)
}

/// Builds the step that writes spaces as SentencePiece does; `otherwise` applies if `add_prefix_space` is off.
fn metaspace(settings: &Settings, otherwise: PrependScheme) -> Metaspace {
    let scheme = match settings.add_prefix_space {
        Some(false) => otherwise,
        _ => PrependScheme::Always,
    };
    Metaspace::new(SPACE, scheme, true)
}

/// Builds the tokenizer of DeBERTa v2 and v3. The normalizer is NFC and not the model's own table of characters, as in
/// `transformers` 5; version 4 used the table. The two differ in characters such as `ﬁ` and `Ａ`.
fn deberta_v2(pieces: Pieces, named: &RoleTexts, settings: &Settings) -> Result<Tokenizer> {
    let unknown = named[Role::Unk].as_deref().unwrap_or_default();
    let is_unknown = |(text, score): &(String, f64)| text == unknown && *score == 0.0;
    let unk_id = pieces.pieces.iter().position(is_unknown);
    let unk_id = unk_id.or(pieces.unk_id).or(settings.unk_id).unwrap_or(1);
    let mut tokenizer = Tokenizer::new(Unigram::from(pieces.pieces, Some(unk_id), false)?);

    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if settings.do_lower_case.unwrap_or(false) {
        normalizers.push(Lowercase.into());
    }
    let spaces = ReplacePattern::Regex(r"\s{2,}|[\n\r\t]".to_string());
    normalizers.push(Replace::new(spaces, " ")?.into());
    normalizers.push(NFC.into());
    normalizers.push(Strip::new(false, true).into());
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)))?;

    let space = metaspace(settings, PrependScheme::First);
    let mut splits: Vec<PreTokenizerWrapper> = Vec::new();
    if settings.split_by_punct.unwrap_or(false) {
        splits.push(Punctuation::new(SplitDelimiterBehavior::Isolated).into());
    }
    splits.push(space.clone().into());
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(splits)));
    tokenizer.with_decoder(Some(space));
    Ok(tokenizer)
}

/// Builds the post-processor, which puts the special tokens around a text, and around and between two texts. The
/// second text and the tokens after it have the type 1 in families that distinguish the two.
fn around(
    family: Family,
    tokenizer: &Tokenizer,
    named: &RoleTexts,
    settings: &Settings,
) -> Result<Option<PostProcessorWrapper>> {
    let cls_sep = [Role::Cls, Role::Sep];
    let (single, pair, roles) = match family {
        Family::Bert | Family::DebertaV2 => ("cls $A sep", "cls $A sep $B:1 sep:1", cls_sep),
        Family::Roberta | Family::Deberta => ("cls $A sep", "cls $A sep sep $B sep", cls_sep),
        Family::XlmRoberta => (
            "cls $A sep",
            "cls $A sep sep $B sep",
            [Role::Bos, Role::Eos],
        ),
        Family::Gpt2 => match (settings.add_bos_token, settings.add_eos_token) {
            (Some(true), Some(true)) => {
                let pair = "cls $A sep cls:1 $B:1 sep:1";
                ("cls $A sep", pair, [Role::Bos, Role::Eos])
            }
            (Some(true), _) => ("cls $A", "cls $A cls:1 $B:1", [Role::Bos; 2]),
            (_, Some(true)) => ("$A sep", "$A sep $B:1 sep:1", [Role::Eos; 2]),
            _ => return Ok(None),
        },
    };
    // The template uses these names and not the tokens, which may contain a colon or a dollar sign.
    let special = |name: &str, role: Role| {
        let token = named[role].clone().unwrap_or_default();
        let id = tokenizer.token_to_id(&token);
        let id = id.ok_or_else(|| format!("no id for {token:?}, which belongs around a text"))?;
        SpecialToken::new(name.to_string(), vec![id], vec![token])
    };
    let processor = TemplateProcessing::builder()
        .try_single(single)?
        .try_pair(pair)?
        .special_tokens(vec![special("cls", roles[0])?, special("sep", roles[1])?])
        .build()?;
    Ok(Some(processor.into()))
}
