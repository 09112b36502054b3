//! Named adapters on a model, one for each example.

use super::adapters::AdapterOptions;
use super::session::check_base;
use super::sources::Sources;
use crate::TrainError;
use crate::data::{Example, Origin};
use crate::progress::Screen;
use lora_core::LoraError;
use lora_core::named::NamedAdapters;
use lora_models::{ModelAdapters, Pretrained};

impl AdapterOptions {
    /// Adds the named adapters to a model.
    pub(crate) fn put<M: Pretrained>(
        &self,
        model: M,
        sources: &Sources,
        screen: &Screen,
    ) -> Result<NamedAdapters<M>, TrainError> {
        let mut set = model.named_adapters()?;
        for (name, adapter) in sources.named() {
            let report = set.load_opened(name, &adapter.dir)?;
            let path = adapter.path();
            check_base(Some(path), Some(&report), self.strict_base, screen)?;
            screen.line(&format!(
                "adapter   {name}: {}, {} modules, {} parameters",
                path.display(),
                report.modules.len(),
                report.parameters() + report.saved_parameters()
            ));
        }
        Ok(set)
    }

    /// Adds the named adapters to a model, and assigns to each example the adapter that its record names, else `default`.
    /// Without names the model stays as it is.
    pub(crate) fn assign<M: Pretrained>(
        &self,
        model: M,
        sources: &Sources,
        examples: &[Example],
        default: Option<&str>,
        screen: &Screen,
    ) -> Result<(M, Option<AdapterAssignment<M>>), TrainError> {
        if !sources.is_named() {
            return Ok((model, None));
        }
        let set = self.put(model, sources, screen)?;
        let mut names = Vec::with_capacity(examples.len());
        for example in examples {
            let name = example.adapter().or(default);
            check(&set, name, example.origin())?;
            names.push(name.map(String::from));
        }
        Ok((set.model().clone(), Some(AdapterAssignment { set, names })))
    }
}

/// Named adapters, assigned to a set of examples.
pub(crate) struct AdapterAssignment<M: Pretrained> {
    set: NamedAdapters<M>,
    /// Adapter of each example; `None` for the model alone.
    names: Vec<Option<String>>,
}

/// Runs `work` on a batch of examples, each with its adapter if adapters are assigned.
pub(crate) fn within<M: Pretrained, T>(
    assignment: Option<&AdapterAssignment<M>>,
    examples: &[usize],
    work: impl FnOnce() -> T,
) -> Result<T, TrainError> {
    let Some(AdapterAssignment { set, names }) = assignment else {
        return Ok(work());
    };
    let names: Vec<Option<&str>> = examples.iter().map(|&at| names[at].as_deref()).collect();
    Ok(set.assign(&names)?.run(work))
}

/// Refuses an unknown name, and a missing name if the model alone has random weights.
pub(crate) fn check<M: Pretrained>(
    set: &NamedAdapters<M>,
    name: Option<&str>,
    origin: &Origin,
) -> Result<(), TrainError> {
    match name {
        Some(name) => match set.report(name) {
            Ok(_) => Ok(()),
            Err(error @ LoraError::UnknownAdapter { .. }) => Err(origin.error(error.to_string())),
            Err(error) => Err(error.into()),
        },
        None if set.base().random_modules().is_empty() => Ok(()),
        None => Err(origin.error(format!(
            "names no adapter, but the model alone has no trained {}: its outputs would be random",
            set.base().random_modules().join(" and no ")
        ))),
    }
}
