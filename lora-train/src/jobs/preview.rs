//! Encoded examples of a training run, before it is started.

use super::causal::CausalJob;
use super::job::Job;
use super::labelled::LabelledJob;
use super::plan::TrainPlan;
use super::session::{Base, Session};
use super::sources::Sources;
use super::train::opened;
use super::weights::check_attached;
use crate::TrainError;
use crate::data::{Example, Target};
use crate::device::{self, DeviceName};
use crate::options::{DataCache, RunOptions};
use crate::progress::{Coloring, Piece, Screen};
use crate::task::TaskName;
use lora_models::{Pretrained, dispatch};
use serde::Serialize;
use std::fmt;

/// Options of `lora preview`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct PreviewOptions {
    /// Options of the run.
    #[command(flatten)]
    pub run: RunOptions,
    /// Number of examples to show, from the start of each file of the data; the first one that is cut is shown in any case.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub examples: usize,
    /// Show the text of each example, with the learned parts in colour, or between ⟦ and ⟧, in place of a table of its tokens.
    #[arg(long, conflicts_with = "json")]
    pub text: bool,
    /// Show what is learned in colour: auto (on a terminal, and without the environment variable `NO_COLOR`), always or never.
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        conflicts_with = "json"
    )]
    pub color: Coloring,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Encoded examples of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preview {
    /// Number of examples that the run trains on.
    pub examples: usize,
    /// Number of examples that are cut to the maximum length.
    pub cut: usize,
    /// Number of records of which nothing to learn is left, so that the run leaves them out.
    pub left_out: usize,
    /// The shown examples.
    pub shown: Vec<ShownExample>,
}

/// An encoded example.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownExample {
    /// Place in the data, as `train.jsonl:12`.
    pub origin: String,
    /// Label of the whole: a class, classes, a number, or numbers.
    pub label: Option<String>,
    /// The tokens that the model reads; none if the example is left out.
    pub tokens: Vec<ShownToken>,
    /// The text of these tokens, in parts that are learned or not.
    pub parts: Vec<ShownPart>,
    /// Number of tokens that are cut off.
    pub cut_tokens: usize,
    /// The text that is cut off.
    pub cut_text: String,
}

/// A part of an example's text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownPart {
    /// Text, with the special tokens.
    pub text: String,
    /// True if the model learns to predict its tokens.
    pub learned: bool,
}

/// A token of an encoded example.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownToken {
    /// Id of the token.
    pub id: u32,
    /// The token in the form of the vocabulary: byte-level BPE writes a space as `Ġ`.
    pub token: String,
    /// True if the model learns to predict it.
    pub learned: bool,
    /// Class of the word that begins with it.
    pub label: Option<String>,
}

/// Encodes the data of a training run and returns some of the examples. No weights are read and nothing is written.
///
/// # Errors
/// If data or options are malformed, as the run itself would find.
pub fn preview(options: &PreviewOptions, screen: &Screen) -> Result<Preview, TrainError> {
    let mut run = options.run.clone().resolve()?;
    run.resume = false;
    // Nothing is written there.
    run.output.get_or_insert_with(|| "preview".into());
    run.data_cache = Some(DataCache::Memory);
    let (sources, task, plan) = opened(TrainPlan::new(run)?)?;
    let count = options.examples;
    dispatch!(sources.model.config(),
        causal M(config) => preview_job::<CausalJob<M>>(&sources, config, task, &plan, count, screen),
        encoder M(config) => preview_job::<LabelledJob>(&sources, config, task, &plan, count, screen),
    )
}

fn preview_job<J: Job>(
    sources: &Sources,
    config: &<J::Model as Pretrained>::Config,
    task: TaskName,
    plan: &TrainPlan,
    count: usize,
    screen: &Screen,
) -> Result<Preview, TrainError> {
    let device = device::open(plan.options.device.unwrap_or(DeviceName::Auto))?;
    let mut job = J::new(plan, sources, task, screen)?;
    let load = job.load_options();
    let (outline, mut base) =
        Session::<J::Model>::outline(&sources.model, config, sources.one(), &load, &device)?;
    check_attached(plan, sources, outline, &mut base)?;
    let uncut = job.uncut(plan, &base)?;
    let examples = job.encode(plan, &base, screen)?.examples.into_vec();

    // Records of which nothing is left have no example; the others are in the same order.
    let mut kept = examples.iter().peekable();
    let pairs = uncut.iter().map(|whole| {
        let example = kept.next_if(|example| example.origin() == whole.origin());
        (whole, example)
    });
    let pairs: Vec<(&Example, Option<&Example>)> = pairs.collect();
    let is_cut = |(whole, example): &(&Example, Option<&Example>)| {
        example.is_some_and(|example| example.len() < whole.len())
    };
    let cut = pairs.iter().filter(|pair| is_cut(pair)).count();
    // The first ones of each file.
    let mut of_file = (None, 0);
    let (first, others): (Vec<_>, Vec<_>) = pairs.iter().partition(|(whole, _)| {
        let path = Some(whole.origin().path());
        of_file = match of_file {
            (same, before) if same == path => (path, before + 1),
            _ => (path, 1),
        };
        of_file.1 <= count
    });
    let more = if first.iter().copied().any(is_cut) {
        None
    } else {
        others.into_iter().find(|pair| is_cut(pair))
    };
    let shown = first
        .into_iter()
        .chain(more)
        .map(|&(whole, example)| shown(whole, example, &base, &job));
    Ok(Preview {
        examples: examples.len(),
        cut,
        left_out: uncut.len() - examples.len(),
        shown: shown.collect::<Result<_, _>>()?,
    })
}

fn shown<J: Job>(
    whole: &Example,
    example: Option<&Example>,
    base: &Base,
    job: &J,
) -> Result<ShownExample, TrainError> {
    let name = |class: usize| match job.classes().get(class) {
        Some(name) => name.clone(),
        None => class.to_string(),
    };
    let tags: Vec<(usize, usize)> = example.map_or(Vec::new(), |e| e.tags().collect());
    let is_learned = |position: &usize| {
        example.is_some_and(|example| example.learned().any(|part| part.contains(position)))
    };
    let tokens = example.map_or(&[][..], Example::tokens);
    let mut parts: Vec<(Vec<u32>, bool)> = Vec::new();
    for (position, &id) in tokens.iter().enumerate() {
        let learned = is_learned(&position);
        match parts.last_mut() {
            Some((ids, same)) if *same == learned => ids.push(id),
            _ => parts.push((vec![id], learned)),
        }
    }
    let parts = parts.into_iter().map(|(ids, learned)| {
        let text = base.tokenizer.decode(&ids, false)?;
        Ok(ShownPart { text, learned })
    });
    let shown = tokens.iter().enumerate().map(|(position, &id)| {
        let tag = tags.iter().find(|(at, _)| *at == position);
        ShownToken {
            id,
            token: base.tokenizer.id_to_token(id).unwrap_or_default(),
            learned: is_learned(&position) || tag.is_some(),
            label: tag.map(|&(_, class)| name(class)),
        }
    });
    // What is kept is a part of the whole in the same order.
    let mut kept = tokens.iter().peekable();
    let cut = whole.tokens().iter().copied();
    let cut: Vec<u32> = cut.filter(|id| kept.next_if_eq(&id).is_none()).collect();
    Ok(ShownExample {
        origin: whole.origin().to_string(),
        label: match whole.target() {
            Target::Class(class) => Some(name(*class)),
            Target::Set(classes) if classes.is_empty() => Some("no class".into()),
            Target::Set(classes) => Some(joined(classes.iter().map(|&class| name(class)))),
            Target::Score(score) => Some(score.to_string()),
            Target::Scores(scores) => Some(joined(scores.iter().map(f64::to_string))),
            // Learned by the tokens, if at all.
            Target::Tokens { .. } | Target::Parts(_) | Target::Tags(_) | Target::Unknown => None,
        },
        tokens: shown.collect(),
        parts: parts.collect::<Result<_, TrainError>>()?,
        cut_tokens: cut.len(),
        cut_text: base.tokenizer.decode(&cut, false)?,
    })
}

fn joined(labels: impl Iterator<Item = String>) -> String {
    labels.collect::<Vec<_>>().join(", ")
}

impl Preview {
    /// Returns the lines for people, in pieces that show what is learned or not. `as_text` shows the texts in place of tables.
    pub fn pieces(&self, as_text: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for example in &self.shown {
            pieces.push(Piece::plain(example.heading()));
            if as_text {
                pieces.extend(example.text_pieces());
            } else {
                pieces.extend(example.table());
            }
            pieces.push(Piece::plain(example.ending()));
        }
        pieces.push(Piece::plain(self.summary()));
        pieces
    }

    fn summary(&self) -> String {
        let (examples, cut) = (self.examples, self.cut);
        match self.left_out {
            0 => format!("{examples} examples, {cut} of them cut\n"),
            left_out => format!(
                "{examples} examples, {cut} of them cut; {left_out} more left out, without a token to learn\n"
            ),
        }
    }
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces = self.pieces(false);
        pieces.iter().try_for_each(|piece| f.write_str(&piece.text))
    }
}

impl ShownExample {
    fn heading(&self) -> String {
        let learned = self.tokens.iter().filter(|token| token.learned).count();
        let count = self.tokens.len();
        match &self.label {
            _ if count == 0 => format!("{}: left out, no token to learn is left\n", self.origin),
            Some(label) => {
                let label = label.escape_debug();
                format!("{}: {count} tokens, learned: {label}\n", self.origin)
            }
            None => format!(
                "{}: {count} tokens, {learned} of them learned\n",
                self.origin
            ),
        }
    }

    /// Returns a line for each token.
    fn table(&self) -> impl Iterator<Item = Piece> + '_ {
        self.tokens.iter().enumerate().map(|(position, token)| {
            let (id, text) = (token.id, token.token.escape_debug().to_string());
            let mark = match (&token.label, token.learned) {
                (Some(label), _) => format!("learned: {}", label.escape_debug()),
                (None, true) => "learned".into(),
                (None, false) => String::new(),
            };
            let line = format!("{position:5} {id:7}  {text:24} {mark}");
            Piece {
                text: format!("{}\n", line.trim_end()),
                learned: token.learned,
                marks: None,
            }
        })
    }

    /// Returns the text, part by part.
    fn text_pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let parts = self.parts.iter().map(|part| Piece {
            text: part.text.clone(),
            learned: part.learned,
            marks: Some(["⟦", "⟧"]),
        });
        parts.chain([Piece::plain("\n".into())])
    }

    fn ending(&self) -> String {
        if self.cut_tokens == 0 {
            return "\n".into();
        }
        let text = self.cut_text.escape_debug();
        format!("  cut off: {} tokens, `{text}`\n\n", self.cut_tokens)
    }
}

impl Piece {
    fn plain(text: String) -> Self {
        Self {
            text,
            learned: false,
            marks: None,
        }
    }
}
