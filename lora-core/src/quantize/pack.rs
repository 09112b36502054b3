//! Putting packed weights on parameters.

use super::collect::packed_weights;
use super::weight::PackedWeight;
use crate::bare::placeholder;
use crate::error::LoraError;
use crate::layout::{Matrix, put};
use burn::module::{Module, Param, ParamId, Reparameterizer};
use burn::tensor::{Device, Shape, Tensor};
use std::collections::BTreeMap;

/// Packs the chosen weights of a module, by path, one after another.
///
/// # Errors
/// The first error of `pack`.
pub(super) fn pack_all<M: Module>(
    module: M,
    chosen: BTreeMap<&str, &Matrix>,
    pack: impl FnMut(&Matrix, Tensor<2>, ParamId) -> Result<PackedWeight, LoraError>,
) -> Result<M, LoraError> {
    let mut error = None;
    let module = module.apply_reparameterization(Pack {
        chosen,
        pack,
        error: &mut error,
    });
    error.map_or(Ok(module), Err)
}

/// Refuses matrices with an adapter, or with a packed weight that `refuse` selects.
///
/// # Errors
/// [`LoraError::AlreadyAttached`] or [`LoraError::UnsupportedTarget`].
pub(super) fn check_bare<M: Module>(
    module: &M,
    matrices: &[Matrix],
    refuse: impl Fn(&PackedWeight) -> bool,
) -> Result<(), LoraError> {
    let packed = packed_weights(module);
    for matrix in matrices {
        if matrix.adapted {
            return Err(LoraError::AlreadyAttached {
                module: matrix.module.clone(),
            });
        }
        if let Some(packed) = packed.get(&matrix.parameter)
            && refuse(packed)
        {
            let message = if packed.format().is_half() {
                "its weight is in 16 bits already"
            } else {
                "its weight is quantized already"
            };
            return Err(LoraError::unsupported_target(&matrix.module, message));
        }
    }
    Ok(())
}

/// Creates the parameter of a packed weight.
pub(crate) fn on_placeholder(
    id: ParamId,
    packed: PackedWeight,
    device: &Device,
) -> Param<Tensor<2>> {
    let shape = Shape::new(packed.shape());
    let empty = Param::initialized(id, placeholder(shape, device)).set_require_grad(false);
    // Alone, a parameter is a module without a path.
    put(empty, BTreeMap::from([(String::new(), packed)]))
}

struct Pack<'a, F> {
    chosen: BTreeMap<&'a str, &'a Matrix>,
    pack: F,
    error: &'a mut Option<LoraError>,
}

impl<F> Reparameterizer for Pack<'_, F>
where
    F: FnMut(&Matrix, Tensor<2>, ParamId) -> Result<PackedWeight, LoraError>,
{
    type Reparam = PackedWeight;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<PackedWeight>) {
        let matrix = self.chosen.get(path).filter(|_| self.error.is_none());
        let Some(&matrix) = matrix else {
            return (param, None);
        };
        match (self.pack)(matrix, param.val().reshape(matrix.shape), param.id) {
            Ok(packed) => {
                let device = packed.device();
                let param = param
                    .map(|weight| placeholder(weight.shape(), &device))
                    .set_require_grad(false);
                (param, Some(packed))
            }
            Err(error) => {
                *self.error = Some(error);
                (param, None)
            }
        }
    }
}
