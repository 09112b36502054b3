//! Element types that occur in checkpoints.

pub use safetensors::Dtype as DType;

/// True if [`Checkpoint::read_f32`](super::Checkpoint::read_f32) can read the type. The others are only shown, in
/// reports and messages.
pub fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
}

/// Returns the type of a tensor in a pickle.
pub(super) fn from_pytorch(dtype: pytorch_reader::DType) -> DType {
    use pytorch_reader::DType as Pytorch;
    match dtype {
        Pytorch::F64 => DType::F64,
        Pytorch::F32 => DType::F32,
        Pytorch::F16 => DType::F16,
        Pytorch::BF16 => DType::BF16,
        Pytorch::I64 => DType::I64,
        Pytorch::I32 => DType::I32,
        Pytorch::I16 => DType::I16,
        Pytorch::I8 => DType::I8,
        Pytorch::U64 => DType::U64,
        Pytorch::U32 => DType::U32,
        Pytorch::U16 => DType::U16,
        Pytorch::U8 => DType::U8,
        Pytorch::Bool => DType::BOOL,
    }
}
