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

/// Implements the conversion from another library's type, most of whose variants have the same names.
macro_rules! convert_from {
    ($source:ty, [$($same:ident)*], $($other:ident => $dtype:expr,)* $(_ => $rest:expr)?) => {
        impl From<$source> for DType {
            fn from(dtype: $source) -> Self {
                type Source = $source;
                match dtype {
                    $(Source::$same => Self::$same,)*
                    $(Source::$other => $dtype,)*
                    $(_ => $rest,)?
                }
            }
        }
    };
}

convert_from!(safetensors::Dtype, [F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8],
    BOOL => DType::Bool,
    C64 => DType::Other("C64"),
    F8_E4M3 => DType::Other("F8_E4M3"),
    F8_E5M2 => DType::Other("F8_E5M2"),
    _ => DType::Other("a float of 8 bits or fewer")
);
convert_from!(pytorch_reader::DType, [F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 Bool],);
