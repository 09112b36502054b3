//! Loss and gradients of a step, by the names of the parameters.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_train::TrainStep;
use lora_train::trainer::{MicroBatch, StepOutput};
use std::collections::BTreeMap;

/// Gradients by the path of their parameter.
struct Named<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Named<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            let values = grad.into_data().convert::<f32>().try_to_vec().unwrap();
            self.found.insert(self.path.join("."), values);
        }
    }
}

/// Loss and gradients of a step.
pub fn step<B: Clone, M>(task: &M, micro: &MicroBatch<B>) -> (f32, BTreeMap<String, Vec<f32>>)
where
    M: Module + TrainStep<Input = MicroBatch<B>, Output = StepOutput>,
{
    let output = task.step(micro.clone());
    let mut named = Named {
        grads: &output.grads,
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    task.visit(&mut named);
    (output.item.loss.into_scalar::<f32>(), named.found)
}

/// Asserts that two steps have the same loss and the same gradients.
pub fn assert_same(
    kept: &(f32, BTreeMap<String, Vec<f32>>),
    again: &(f32, BTreeMap<String, Vec<f32>>),
    what: &str,
) {
    assert!(
        (kept.0 - again.0).abs() < 1e-6,
        "{what}: {} {}",
        kept.0,
        again.0
    );
    let names = |found: &BTreeMap<String, Vec<f32>>| found.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&kept.1), names(&again.1), "{what}");
    assert!(!kept.1.is_empty(), "{what}");
    for (name, kept) in &kept.1 {
        let again = &again.1[name];
        assert_eq!(kept.len(), again.len(), "{what} {name}");
        let scale = kept.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        for (k, a) in kept.iter().zip(again) {
            // What several blocks have a part in is summed in another order.
            assert!(
                (k - a).abs() <= 1e-5 * scale,
                "{what} {name}: {a} is not {k}"
            );
        }
    }
}
