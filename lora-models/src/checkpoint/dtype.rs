//! Element types that occur in checkpoints.

use std::fmt;

/// Element type of a stored tensor.
///
/// Floating-point types are read as `f32`. The others are only shown, in reports and messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 8-bit integer.
    U8,
    /// One byte holding 0 or 1.
    Bool,
    /// A type that only safetensors files can hold (8-bit floats and narrower, complex numbers), by its name there.
    Other(&'static str),
}

impl DType {
    /// True if [`Checkpoint::read_f32`](super::Checkpoint::read_f32) can read the type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Returns the name that safetensors files use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<safetensors::Dtype> for DType {
    fn from(dtype: safetensors::Dtype) -> Self {
        use safetensors::Dtype;
        match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U64 => Self::U64,
            Dtype::U32 => Self::U32,
            Dtype::U16 => Self::U16,
            Dtype::U8 => Self::U8,
            Dtype::BOOL => Self::Bool,
            Dtype::C64 => Self::Other("C64"),
            Dtype::F8_E4M3 => Self::Other("F8_E4M3"),
            Dtype::F8_E5M2 => Self::Other("F8_E5M2"),
            _ => Self::Other("a float of 8 bits or fewer"),
        }
    }
}

impl From<pytorch_reader::DType> for DType {
    fn from(dtype: pytorch_reader::DType) -> Self {
        use pytorch_reader::DType as Torch;
        match dtype {
            Torch::F64 => Self::F64,
            Torch::F32 => Self::F32,
            Torch::F16 => Self::F16,
            Torch::BF16 => Self::BF16,
            Torch::I64 => Self::I64,
            Torch::I32 => Self::I32,
            Torch::I16 => Self::I16,
            Torch::I8 => Self::I8,
            Torch::U64 => Self::U64,
            Torch::U32 => Self::U32,
            Torch::U16 => Self::U16,
            Torch::U8 => Self::U8,
            Torch::Bool => Self::Bool,
        }
    }
}
