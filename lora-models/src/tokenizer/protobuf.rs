//! Reader for the part of the protocol buffers wire format that a SentencePiece model needs.
//!
//! The reader is strict and works on a slice: every length is compared with the rest before bytes are taken, nothing
//! is copied, and anything outside the format is an error.

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) value: Value<'a>,
}

/// The value of a field, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Integers, booleans and enumerations.
    Varint(u64),
    /// 64 bits; no field of this type is read.
    Fixed64,
    /// Text, bytes, and messages in messages.
    Bytes(&'a [u8]),
    /// 32 bits, such as a `float`.
    Fixed32([u8; 4]),
}

/// Iterator over the fields of a message. It ends after an error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<Field<'a>, String> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|&number| number > 0);
        let number = number.ok_or_else(|| format!("{} is not a field number", key >> 3))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            kind => return Err(format!("field {number} has the wire type {kind}")),
        };
        Ok(Field { number, value })
    }

    /// Reads an integer of seven bits a byte, the low ones first; at most ten bytes for 64 bits.
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for (place, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[place + 1..];
                return Ok(value);
            }
        }
        Err("it is truncated in a number, or the number has more than 64 bits".to_string())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let taken = usize::try_from(length)
            .ok()
            .and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = taken.ok_or_else(|| {
            format!(
                "a field has {length} bytes, but {} are left",
                self.rest.len()
            )
        })?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Field<'_>>, String> {
        Fields::new(bytes).collect()
    }

    #[test]
    fn fields_of_each_kind_are_read() {
        let bytes = [
            0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 0, 0, 0x80, 0x3f, 0x21, 1, 2, 3, 4, 5,
            6, 7, 8,
        ];
        let fields = read(&bytes).unwrap();
        let values: Vec<(u32, Value)> = fields.iter().map(|f| (f.number, f.value)).collect();
        assert_eq!(
            values,
            [
                (1, Value::Varint(150)),
                (2, Value::Bytes(b"hi")),
                (3, Value::Fixed32(1_f32.to_le_bytes())),
                (4, Value::Fixed64),
            ]
        );
    }

    #[test]
    fn the_largest_number_has_ten_bytes() {
        let mut bytes = vec![0x08];
        bytes.extend([0xff; 9]);
        bytes.push(0x01);
        assert_eq!(read(&bytes).unwrap()[0].value, Value::Varint(u64::MAX));
        *bytes.last_mut().unwrap() = 0x02;
        assert!(read(&bytes).is_err());
    }

    #[test]
    fn what_breaks_the_format_is_an_error() {
        for bytes in [
            [0x12, 0x05, b'h'].as_slice(), // a length past the end
            &[
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
            &[0x08],       // a number that is not there
            &[0x08, 0x80], // a number that does not end
            &[0x1d, 0, 0], // half a float
            &[0x21, 0],    // part of 64 bits
            &[0x00, 0x01], // field 0
            &[0x0b, 0x0c], // a group
            &[0x0f],       // wire type 7
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        // Nothing is read after an error.
        assert_eq!(Fields::new(&[0x00, 0x01, 0x08, 0x01]).count(), 1);
    }
}
