//! Check for parameters that are not finite.

use crate::TrainError;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use lora_core::ops::{max_buffer_bytes, sum_of_all};

/// Checks that all parameters are finite: training would only spread other values.
///
/// # Errors
/// If a parameter has a value that is not finite or cannot be read; the error names it.
pub(crate) fn check_finite<M: Module>(module: &M) -> Result<(), TrainError> {
    let mut check = Finite::default();
    module.visit(&mut check);
    match check.bad {
        None => Ok(()),
        Some((name, None)) => {
            let message = format!("`{name}` has values that are not finite");
            Err(TrainError::config("model", message))
        }
        Some((name, Some(error))) => {
            let message = format!(
                "the device did not take the weight `{name}`; it may lack memory, and another program may use it: {error}"
            );
            Err(TrainError::config("device", message))
        }
    }
}

#[derive(Default)]
struct Finite {
    path: Vec<String>,
    /// Name of a parameter, and the device's error if it cannot be read.
    bad: Option<(String, Option<TrainError>)>,
}

impl ModuleVisitor for Finite {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let bytes = 4 * param.lazy_shape().num_elements() as u64;
        let limit = max_buffer_bytes(&param.lazy_device());
        // What no buffer holds is the placeholder of a split weight, whose parts follow.
        if self.bad.is_some() || limit.is_some_and(|limit| bytes > limit) {
            return;
        }
        // The sum of finite weights is finite, and any other value makes it infinite or NaN: only one number per parameter
        // is read back, and nothing of its size is created.
        let sum = crate::host::values(sum_of_all(param.base().without_autodiff()));
        let error = match sum {
            Ok(sum) if sum[0].is_finite() => return,
            Ok(_) => None,
            Err(error) => Some(error),
        };
        self.bad = Some((self.path.join("."), error));
    }
}
