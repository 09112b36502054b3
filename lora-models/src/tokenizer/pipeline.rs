//! What each family does with a text, step by step, as `transformers` 5 sets it up: the normalizer, the splitting into
//! words, the model, the way back, and the special tokens around a text or a pair.
//!
//! `transformers` builds these families from their vocabulary also where `tokenizer.json` describes them, so that is
//! done here too: of that file the vocabulary, the merges, the added tokens and XLM-R's table of characters count.
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
use super::named::Named;
use super::special_tokens::Settings;
use super::vocabulary::{Pieces, Tokens, Vocabulary};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::{BPE, Merges};
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

/// What SentencePiece writes for a space.
const SPACE: char = '▁';

/// The place of `<unk>` in XLM-R's vocabulary, which is fairseq's.
const XLM_UNKNOWN: usize = 3;

/// The tokenizer of a family on a vocabulary, with `tokens` added to it in this order.
///
/// # Errors
///
/// What keeps the parts from fitting together.
pub(super) fn build(
    family: Family,
    vocabulary: Vocabulary,
    named: &Named,
    settings: &Settings,
    tokens: &[AddedToken],
) -> Result<Tokenizer> {
    let mut tokenizer = match vocabulary {
        Vocabulary::WordPiece(vocab) => word_piece(vocab, named, settings)?,
        Vocabulary::Bpe(vocab, merges) => byte_level(vocab, merges, settings)?,
        Vocabulary::Unigram(pieces) if family == Family::XlmRoberta => xlm(pieces, settings)?,
        Vocabulary::Unigram(pieces) => deberta_v2(pieces, named, settings)?,
    };
    tokenizer.add_tokens(tokens);
    let processor = around(family, &tokenizer, named, settings)?;
    tokenizer.with_post_processor(processor);
    Ok(tokenizer)
}

/// BERT: lower case unless told otherwise, then the longest pieces of each word from its start.
fn word_piece(vocab: Tokens, named: &Named, settings: &Settings) -> Result<Tokenizer> {
    let unknown = named.unk.clone().unwrap_or_default();
    // Without it, the first word of no known pieces would be an error in the middle of a corpus.
    if !vocab.contains_key(&unknown) {
        return Err(
            format!("the vocabulary lacks {unknown:?}, the token for what is unknown").into(),
        );
    }
    let model = WordPiece::builder()
        .vocab(
            vocab
                .into_iter()
                .collect::<tokenizers::models::bpe::Vocab>(),
        )
        .unk_token(unknown)
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(
        true,
        settings.tokenize_chinese_chars.unwrap_or(true),
        settings.strip_accents,
        settings.do_lower_case.unwrap_or(true),
    )));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::new("##".to_string(), true)));
    Ok(tokenizer)
}

/// GPT-2, RoBERTa and the first DeBERTa: every byte is a character of its own, so nothing is unknown.
fn byte_level(vocab: Tokens, merges: Merges, settings: &Settings) -> Result<Tokenizer> {
    let vocab: tokenizers::models::bpe::Vocab = vocab.into_iter().collect();
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
        tokenizer.with_normalizer(Some(Precompiled::from(&table)?));
    }
    let space = Metaspace::new(
        SPACE,
        match settings.add_prefix_space.unwrap_or(true) {
            true => PrependScheme::Always,
            false => PrependScheme::Never,
        },
        true,
    );
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        WhitespaceSplit.into(),
        space.clone().into(),
    ])));
    tokenizer.with_decoder(Some(space));
    Ok(tokenizer)
}

/// DeBERTa v2 and v3. The model's own table of characters is not used, NFC stands in its place: so it is in
/// `transformers` 5, while its fourth version used the table. They differ in characters such as `ﬁ` and `Ａ`.
fn deberta_v2(pieces: Pieces, named: &Named, settings: &Settings) -> Result<Tokenizer> {
    let unknown = named.unk.as_deref().unwrap_or_default();
    let unk_id = pieces
        .pieces
        .iter()
        .position(|(text, score)| text == unknown && *score == 0.0)
        .or(pieces.unk_id)
        .or(settings.unk_id)
        .unwrap_or(1);
    let mut tokenizer = Tokenizer::new(Unigram::from(pieces.pieces, Some(unk_id), false)?);

    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if settings.do_lower_case.unwrap_or(false) {
        normalizers.push(Lowercase.into());
    }
    let spaces = ReplacePattern::Regex(r"\s{2,}|[\n\r\t]".to_string());
    normalizers.push(Replace::new(spaces, " ")?.into());
    normalizers.push(NFC.into());
    normalizers.push(Strip::new(false, true).into());
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)));

    let space = Metaspace::new(
        SPACE,
        match settings.add_prefix_space.unwrap_or(true) {
            true => PrependScheme::Always,
            false => PrependScheme::First,
        },
        true,
    );
    let mut splits: Vec<PreTokenizerWrapper> = Vec::new();
    if settings.split_by_punct.unwrap_or(false) {
        splits.push(Punctuation::new(SplitDelimiterBehavior::Isolated).into());
    }
    splits.push(space.clone().into());
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(splits)));
    tokenizer.with_decoder(Some(space));
    Ok(tokenizer)
}

/// The special tokens around a text, and around and between two. The second text and what follows it have the type 1
/// where the family tells the two apart.
fn around(
    family: Family,
    tokenizer: &Tokenizer,
    named: &Named,
    settings: &Settings,
) -> Result<Option<PostProcessorWrapper>> {
    let (single, pair, tokens): (&[&str], &[&str], _) = match family {
        Family::Bert | Family::DebertaV2 => (
            &["cls", "$A", "sep"],
            &["cls", "$A", "sep", "$B:1", "sep:1"],
            [&named.cls, &named.sep],
        ),
        Family::Roberta | Family::Deberta => (
            &["cls", "$A", "sep"],
            &["cls", "$A", "sep", "sep", "$B", "sep"],
            [&named.cls, &named.sep],
        ),
        Family::XlmRoberta => (
            &["cls", "$A", "sep"],
            &["cls", "$A", "sep", "sep", "$B", "sep"],
            [&named.bos, &named.eos],
        ),
        Family::Gpt2 => match (settings.add_bos_token, settings.add_eos_token) {
            (Some(true), Some(true)) => (
                &["cls", "$A", "sep"],
                &["cls", "$A", "sep", "cls:1", "$B:1", "sep:1"],
                [&named.bos, &named.eos],
            ),
            (Some(true), _) => (
                &["cls", "$A"],
                &["cls", "$A", "cls:1", "$B:1"],
                [&named.bos, &named.bos],
            ),
            (_, Some(true)) => (
                &["$A", "sep"],
                &["$A", "sep", "$B:1", "sep:1"],
                [&named.eos, &named.eos],
            ),
            _ => return Ok(None),
        },
    };
    // The template knows them by these names, whatever they are: a token may have a colon or a dollar sign in it.
    let special = |name: &str, token: &Option<String>| {
        let token = token.clone().unwrap_or_default();
        let id = tokenizer
            .token_to_id(&token)
            .ok_or_else(|| format!("no id for {token:?}, which should stand around a text"))?;
        SpecialToken::new(name.to_string(), vec![id], vec![token])
    };
    let processor = TemplateProcessing::builder()
        .try_single(single.to_vec())?
        .try_pair(pair.to_vec())?
        .special_tokens(vec![special("cls", tokens[0])?, special("sep", tokens[1])?])
        .build()?;
    Ok(Some(processor.into()))
}
