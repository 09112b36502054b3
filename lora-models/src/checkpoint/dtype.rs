//! Element types that occur in checkpoints.

pub use safetensors::Dtype as DType;

/// True if [`Checkpoint::read_f32`](super::Checkpoint::read_f32) can read the type. The others are only shown, in
/// reports and messages.
pub fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
}
