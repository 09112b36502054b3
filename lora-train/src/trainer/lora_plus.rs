//! LoRA+: the factors `B` learn faster than `A` (Hayou et al. 2024, arXiv 2402.12354).

use super::Schedule;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::LearningRate;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::tensor::Tensor;

/// Learning rates of LoRA+. The groups are those of PEFT's `create_loraplus_optimizer`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraPlus {
    /// Factor on the learning rate of the factors `B` and of all vectors: biases and
    /// magnitudes.
    pub ratio: f64,
    /// Peak learning rate of the adapters on embeddings.
    pub embedding_lr: LearningRate,
}

impl Default for LoraPlus {
    /// Returns the ratio that the paper recommends and PEFT's learning rate for embeddings.
    fn default() -> Self {
        Self {
            ratio: 16.0,
            embedding_lr: 1e-6,
        }
    }
}

impl LoraPlus {
    /// Builds a schedule for each parameter group, all of the same form.
    pub(crate) fn schedule<M: Module>(&self, model: &M, schedule: &Schedule) -> ModuleLrScheduler {
        let mut groups = Groups::default();
        model.visit(&mut groups);
        let faster = schedule.with_peak(self.ratio * schedule.peak());
        ModuleLrScheduler::new(schedule.clone())
            .with_group(ParamGroup::from_ids(groups.faster), faster)
            .with_group(
                ParamGroup::from_ids(groups.embeddings),
                schedule.with_peak(self.embedding_lr),
            )
    }
}

/// Parameter groups. The factors `A` and fully trained matrices are in no group.
#[derive(Default)]
struct Groups {
    /// Names and types of the modules that contain the parameter.
    path: Vec<(String, String)>,
    faster: Vec<ParamId>,
    embeddings: Vec<ParamId>,
}

impl ModuleVisitor for Groups {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.into(), container.into()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let is_adapter = |(_, container): &(String, String)| container == "Reparameterization";
        let adapter = self.path.iter().position(is_adapter);
        let layer = adapter.and_then(|at| self.path.get(at.checked_sub(1)?));
        let name = self.path.last().map_or("", |(name, _)| name);
        if layer.is_some_and(|(_, container)| container.ends_with("Embedding")) {
            self.embeddings.push(param.id);
        } else if D == 1 || (adapter.is_some() && name == "b") {
            self.faster.push(param.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::ScheduleKind;
    use burn::tensor::Device;
    use lora_core::{
        LoraConfig, LoraEmbedding, LoraEmbeddingConfig, LoraLinear, LoraLinearConfig,
        TargetModules, attach,
    };

    #[derive(Module, Debug)]
    struct Net {
        words: LoraEmbedding,
        layer: LoraLinear,
    }

    #[test]
    fn each_group_has_its_rate() {
        let device = Device::flex();
        let net = Net {
            words: LoraEmbeddingConfig::new(7, 4).init(&device),
            layer: LoraLinearConfig::new(4, 5).init(&device),
        };
        let config = LoraConfig::new(2)
            .with_dora(true)
            .with_targets(TargetModules::names(["words", "layer"]));
        let net = attach(net, &config).unwrap().into_module();
        let plus = LoraPlus {
            ratio: 4.0,
            embedding_lr: 0.25,
        };
        let schedule = Schedule::new(ScheduleKind::Linear, 0.5, 0, 10);
        let rates = plus.schedule(&net, &schedule).step();
        let rate = |param: ParamId| rates.lr_from_param(param, None);
        let (words, layer) = (net.words.adapter().unwrap(), net.layer.adapter().unwrap());
        assert_eq!(rate(layer.a.id), 0.5);
        assert_eq!(rate(layer.b.id), 2.0);
        assert_eq!(rate(layer.magnitude.as_ref().unwrap().id), 2.0);
        assert_eq!(rate(net.layer.bias.as_ref().unwrap().id), 2.0);
        assert_eq!(rate(net.layer.weight.id), 0.5);
        assert_eq!((rate(words.a.id), rate(words.b.id)), (0.25, 0.25));
    }
}
