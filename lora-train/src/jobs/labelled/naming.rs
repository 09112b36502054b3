//! Names of the outputs of a head: the one place where the namings of options, data, adapter and base meet.

use super::data::label_set;
use super::heads::{described, described_inputs, kind_of};
use super::{FRESH, head_kind};
use crate::TrainError;
use crate::data::{LabelKind, LabelSet, LabelledData};
use crate::jobs::plan::TrainPlan;
use crate::jobs::sources::{AdapterSource, Sources};
use crate::progress::Screen;
use crate::task::TaskName;
use lora_models::classifier::HeadKind;
use lora_models::encoder::Labels;

/// Head that a training run starts from.
pub(super) enum StartingHead<'a> {
    /// A new one: no row has a meaning yet.
    New,
    /// Head that comes with the adapter.
    Adapter(&'a AdapterSource, &'a Labels),
    /// Head of the model.
    Model {
        /// Names of its outputs.
        labels: Labels,
        /// Directory, for messages.
        dir: String,
        /// False if `config.json` names a class without a head, so that its names belong to no row.
        exists: bool,
        /// True if `config.json` names a class with a head for the task.
        is_certain: bool,
    },
}

impl<'a> StartingHead<'a> {
    /// Finds the head that a run starts from.
    ///
    /// # Errors
    /// [`TrainError::Config`] if it is for something else than the task.
    pub fn new(plan: &TrainPlan, sources: &'a Sources, task: TaskName) -> Result<Self, TrainError> {
        if plan.options.fresh_head {
            return Ok(Self::New);
        }
        let adapter = sources.first();
        if let Some((adapter, own)) = adapter.and_then(|adapter| Some((adapter, adapter.labels()?)))
        {
            let start = Self::Adapter(adapter, own);
            // Where the number of outputs alone is known, the task says what they are.
            let described = Some(own).filter(|_| !adapter.is_undescribed());
            start.check_task(adapter.kind(), own, described, task)?;
            return Ok(start);
        }
        let config = sources.encoder()?;
        let (kind, labels) = sources.head(None)?;
        let start = Self::Model {
            labels: labels.clone(),
            dir: sources.model.path().display().to_string(),
            exists: !HeadKind::is_absent(config),
            is_certain: kind.is_some(),
        };
        if kind.is_some() {
            start.check_task(kind, &labels, Some(&labels), task)?;
        }
        Ok(start)
    }

    /// Refuses a head for something else than the task; `described_labels` are its labels if a configuration tells them.
    fn check_task(
        &self,
        kind: Option<HeadKind>,
        labels: &Labels,
        described_labels: Option<&Labels>,
        task: TaskName,
    ) -> Result<(), TrainError> {
        if kind.is_some_and(|kind| kind != head_kind(task)) {
            let described = described_inputs(kind, labels);
            return Err(self.refuse(format!("{described}, and the task is {task}")));
        }
        let own = described_labels.map(kind_of);
        let differs = |kind: &LabelKind| own.is_some_and(|own| own != *kind);
        if let Some(kind) = task.label_kind().filter(differs) {
            let run = match kind {
                LabelKind::Classes => "one of several classes",
                LabelKind::MultiLabel => "any number of several classes",
                LabelKind::Score => "a score",
            };
            let own = described(labels);
            return Err(self.refuse(format!("{own}, and the run is for {run}")));
        }
        Ok(())
    }

    /// Creates the error that the head is for something else.
    fn refuse(&self, what: String) -> TrainError {
        let (option, of) = match self {
            Self::Adapter(adapter, _) => ("adapter", adapter.dir.path().display().to_string()),
            Self::Model { dir, .. } => ("model", dir.clone()),
            Self::New => ("fresh_head", "the new head".into()),
        };
        TrainError::config(option, format!("{of} has a head for {what}; {FRESH}"))
    }

    /// Returns the classes, or the names of several scores, that are known before the data is read.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the options name other classes than the head has.
    pub fn known(
        &self,
        plan: &TrainPlan,
        task: TaskName,
        screen: &Screen,
    ) -> Result<Option<LabelSet>, TrainError> {
        let given = plan.options.labels.clone().map(LabelSet::new).transpose()?;
        let (own, is_adapter) = match self {
            Self::New => return Ok(given),
            Self::Adapter(_, own) => (label_set(own)?, true),
            Self::Model { labels, .. } => (label_set(labels)?, false),
        };
        let Some(own) = own else {
            return Ok(given);
        };
        if let Some(given) = given {
            if own.is_generic() {
                return Ok(Some(given));
            }
            return match own.find_all(given.names()) {
                Some(_) => Ok(Some(own)),
                None if self.exists() => Err(self.other_names(&own, &given)),
                None => Ok(Some(given)),
            };
        }
        if task.label_kind() == Some(LabelKind::Score) {
            // The names of several scores tell which column is which.
            return Ok(Some(own).filter(|_| is_adapter || self.exists()));
        }
        if is_adapter {
            self.say_known(&own, screen);
            return Ok(Some(own));
        }
        let TaskName::Glue(glue) = task else {
            return Ok(None);
        };
        match glue.class_mapping(&own) {
            Ok(_) if own.is_generic() => Ok(None),
            Ok(_) => Ok(Some(own)),
            // A head without names of another size is refused by its shape.
            Err(_) if own.is_generic() || !self.exists() => Ok(None),
            Err(_) => {
                let glue = glue.labels().unwrap_or_else(|| own.clone());
                Err(self.other_names(&own, &glue))
            }
        }
    }

    /// Gives the data the order of the head's classes, if they are the same by name or by index.
    ///
    /// # Errors
    /// [`TrainError::Config`] with both lists if they are others.
    pub fn name(&self, data: &mut LabelledData, screen: &Screen) -> Result<(), TrainError> {
        let Self::Model {
            labels, is_certain, ..
        } = self
        else {
            return Ok(());
        };
        let (Some(own), Some(found)) = (label_set(labels)?, data.labels.clone()) else {
            return Ok(());
        };
        if own.is_generic() {
            if *is_certain && !found.is_generic() && found.len() == own.len() {
                let line = "head      the model's classes have no names; its rows are taken in the order of the labels";
                screen.line(line);
            }
            return Ok(());
        }
        if found.is_generic() && found.len() == own.len() {
            // Flags in a list have no names: they have the order of the head.
            data.labels = Some(own);
            return Ok(());
        }
        if own == found || data.relabel(own.clone()) || !self.exists() {
            return Ok(());
        }
        Err(self.other_names(&own, &found))
    }

    /// Returns true if there is a head whose rows have a meaning.
    fn exists(&self) -> bool {
        match self {
            Self::New => false,
            Self::Adapter(..) => true,
            Self::Model { exists, .. } => *exists,
        }
    }

    /// Refuses a run for another number of outputs than the adapter's head has.
    pub fn check_outputs(&self, labels: &Labels) -> Result<(), TrainError> {
        match self {
            Self::Adapter(_, own) if own.outputs() != labels.outputs() => {
                let (own, labels) = (described(own), described(labels));
                Err(self.refuse(format!("{own}, and the run is for {labels}")))
            }
            _ => Ok(()),
        }
    }

    /// Creates the error that the classes of the run are others than those of the head.
    fn other_names(&self, own: &LabelSet, found: &LabelSet) -> TrainError {
        let classes = |set: &LabelSet| described(&Labels::Classes(set.names().to_vec()));
        let what = format!("{}, and the run is for {}", classes(own), classes(found));
        self.refuse(what)
    }

    /// Says which classes the adapter has, before the data is read, which may have others.
    fn say_known(&self, own: &LabelSet, screen: &Screen) {
        if let Self::Adapter(adapter, _) = self {
            screen.line(&format!(
                "adapter   {} has a head for {}; `fresh_head` starts another",
                adapter.dir.path().display(),
                own.names().join(", ")
            ));
        }
    }
}
