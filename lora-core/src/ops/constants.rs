//! Small tensors that depend on shapes and options alone. They are made once for each device and thread, so that no step
//! uploads them again.

use burn::backend::tensor::{Device, FloatTensor, IntTensor};
use burn::backend::{Backend, DeviceId, DeviceOps, get_device_settings};
use burn::tensor::{BoolDType, DType, FloatDType, IntDType, Shape, TensorData};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::{self, ThreadId};

/// Contents of a constant.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Content {
    /// The integers `first`, `first + step`, `first + 2 · step`, … in the order of the elements.
    Steps {
        first: usize,
        step: usize,
        dtype: IntDType,
    },
    /// Given values, as the bits of f32.
    Values(Vec<u32>, FloatDType),
}

/// A backend, its device, a thread, and the shape and contents of a constant.
///
/// With kernel fusion a tensor belongs to the thread that made it, and another thread's use of it ends a fused block.
type Key = (TypeId, DeviceId, ThreadId, Vec<usize>, Content);

static CONSTANTS: LazyLock<Mutex<HashMap<Key, Box<dyn Any + Send>>>> =
    LazyLock::new(Mutex::default);

/// Largest number of constants that are kept.
const MOST: usize = 512;

/// Returns a constant, made by `make` if it is not kept.
fn constant<B: Backend, T: Clone + Send + 'static>(
    device: &Device<B>,
    shape: &Shape,
    content: Content,
    make: impl FnOnce(Shape) -> T,
) -> T {
    let thread = thread::current().id();
    let key = (
        TypeId::of::<B>(),
        device.id(),
        thread,
        shape.to_vec(),
        content,
    );
    let mut constants = CONSTANTS.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = constants
        .get(&key)
        .and_then(|kept| kept.downcast_ref::<T>());
    if let Some(kept) = kept {
        return kept.clone();
    }
    let made = make(shape.clone());
    if constants.len() >= MOST {
        constants.clear();
    }
    constants.insert(key, Box::new(made.clone()));
    made
}

/// Returns the integers `first`, `first + step`, `first + 2 · step`, … in the order of a shape's elements, wrapped to the
/// type.
pub(super) fn steps<B: Backend>(
    shape: Shape,
    first: usize,
    step: usize,
    dtype: IntDType,
    device: &Device<B>,
) -> IntTensor<B> {
    let content = Content::Steps { first, step, dtype };
    constant::<B, _>(device, &shape, content, |shape| {
        let all = (0..shape.num_elements()).map(|index| (first + index * step) as i64);
        let data = match dtype {
            IntDType::U32 => TensorData::new(all.map(|x| x as u32).collect(), shape),
            IntDType::I32 => TensorData::new(all.map(|x| x as i32).collect(), shape),
            _ => TensorData::new(all.collect::<Vec<i64>>(), shape).convert_dtype(dtype.into()),
        };
        B::int_from_data(data, device)
    })
}

/// Returns a tensor of the given values.
pub(super) fn values<B: Backend>(
    values: &[f32],
    shape: Shape,
    dtype: DType,
    device: &Device<B>,
) -> FloatTensor<B> {
    let bits = values.iter().map(|value| value.to_bits()).collect();
    let content = Content::Values(bits, dtype.into());
    constant::<B, _>(device, &shape, content, |shape| {
        let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
        B::float_from_data(data, device)
    })
}

/// Returns the type of a device's booleans.
pub(super) fn bool_dtype<B: Backend>(device: &Device<B>) -> BoolDType {
    get_device_settings::<B>(device).bool_dtype
}
