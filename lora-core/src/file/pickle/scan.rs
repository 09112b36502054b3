//! Scan of a pickle for anything but tensors, before it is parsed.
//!
//! A pickle is a program for a small stack machine. Its `GLOBAL` instruction names a function of any Python module,
//! and `REDUCE` calls it: that is how a file of weights can carry `os.system`. `pytorch_reader` does not execute such
//! a call, but drops it and keeps parsing. A file with such a call is not one to train from, so it is refused here,
//! and the error names the function. The scan also counts instructions, because one byte of pickle can become a
//! hundred bytes of memory while it is parsed.
//!
//! Source for the instructions and their operands: `pickletools` of the Python standard library.

use std::io::{self, BufRead, Read};

/// Limit for the pickle of a file, in bytes. The pickle holds names and shapes, not elements: some 150 bytes a tensor.
pub(super) const MAX_PICKLE_BYTES: u64 = 16 << 20;

/// Limit for the instructions of a file: a tensor has some 30, and each takes some 100 bytes of memory.
const MAX_INSTRUCTIONS: usize = 2_000_000;

/// Limit for a line of text in a pickle, in bytes: the name of a Python module or function.
const MAX_LINE_BYTES: u64 = 4096;

/// Instructions without an operand: constants, containers, the stack, the memo, persistent ids, REDUCE and BUILD. The last
/// two act on the objects of GLOBAL, which are checked.
const WITHOUT_OPERAND: &[u8] = b"N\x88\x89)]}\x8f(012RbdltsaeuQ\x85\x86\x87\x90\x91\x94";

/// Scans `count` consecutive pickles.
///
/// # Errors
/// A description of what is wrong with them, for a message that names the file.
pub(super) fn scan(pickles: impl BufRead, count: usize) -> Result<(), String> {
    let mut scanner = Scanner {
        input: pickles.take(MAX_PICKLE_BYTES),
        instructions: 0,
    };
    for _ in 0..count {
        while scanner.instruction()? {}
    }
    Ok(())
}

struct Scanner<R> {
    input: io::Take<R>,
    instructions: usize,
}

impl<R: BufRead> Scanner<R> {
    /// Skips one instruction; returns false after the last one of a pickle.
    fn instruction(&mut self) -> Result<bool, String> {
        self.instructions += 1;
        if self.instructions > MAX_INSTRUCTIONS {
            return Err(format!(
                "its pickle has more than {MAX_INSTRUCTIONS} instructions"
            ));
        }
        let [opcode] = self.operand()?;
        match opcode {
            b'.' => return Ok(false),
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                if !is_part_of_a_tensor(&module, &name) {
                    return Err(format!(
                        "its pickle refers to the Python object `{module}.{name}`, but weights need only tensors; \
                         it was not executed"
                    ));
                }
            }
            // Operands of a fixed length.
            b'K' | b'h' | b'q' | 0x80 => self.skip(1)?,
            b'M' => self.skip(2)?,
            b'J' | b'j' | b'r' => self.skip(4)?,
            b'G' | 0x95 => self.skip(8)?,
            // Operands preceded by their length in one, four or eight bytes.
            b'U' | b'C' | 0x8a | 0x8c => {
                let [length] = self.operand()?;
                self.skip(u64::from(length))?;
            }
            b'T' | b'X' | b'B' | 0x8b => {
                let length = u32::from_le_bytes(self.operand()?);
                self.skip(u64::from(length))?;
            }
            0x8d | 0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.operand()?);
                self.skip(length)?;
            }
            // Operands that end with the line.
            b'I' | b'L' | b'F' | b'V' | b'g' | b'p' | b'P' => {
                self.line()?;
            }
            known if WITHOUT_OPERAND.contains(&known) => {}
            // STACK_GLOBAL, INST, OBJ, NEWOBJ and the extension registry, among others: other ways to name a Python
            // object, which `torch.save` does not use for tensors.
            other => {
                return Err(format!(
                    "its pickle has the instruction 0x{other:02x}, which torch.save does not write for tensors"
                ));
            }
        }
        Ok(true)
    }

    fn operand<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.input
            .read_exact(&mut bytes)
            .map_err(|err| self.ended(&err))?;
        Ok(bytes)
    }

    fn skip(&mut self, length: u64) -> Result<(), String> {
        // Checked first: a length of 2^64 must not be copied from an endless reader.
        if length > self.input.limit() {
            return Err(format!(
                "its pickle has a value of {length} bytes, more than the limit"
            ));
        }
        let skipped = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())
            .map_err(|err| err.to_string())?;
        if skipped < length {
            return Err("its pickle is truncated in a value".to_string());
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        self.input
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|err| err.to_string())?;
        if line.pop() != Some(b'\n') {
            return Err("its pickle has an unfinished or too long line of text".to_string());
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn ended(&self, err: &io::Error) -> String {
        if self.input.limit() == 0 {
            format!("its pickle is longer than {MAX_PICKLE_BYTES} bytes")
        } else {
            format!("its pickle is truncated: {err}")
        }
    }
}

/// True for the Python objects from which `torch.save` builds a dictionary of tensors.
fn is_part_of_a_tensor(module: &str, name: &str) -> bool {
    match module {
        "collections" => name == "OrderedDict",
        "torch._utils" => matches!(
            name,
            "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" | "_rebuild_parameter"
        ),
        "torch" => match name.strip_suffix("Storage") {
            Some(elements) => [
                "Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte",
                "Bool",
            ]
            .contains(&elements),
            // Element types without a storage class of their own.
            None => ["uint16", "uint32", "uint64"].contains(&name),
        },
        "torch.storage" => name == "UntypedStorage",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pickle: &[u8]) -> Result<(), String> {
        scan(pickle, 1)
    }

    #[test]
    fn a_dictionary_of_numbers_passes() {
        // pickle.dumps({"a": 1, "b": [1.5, True, None]}, protocol=2)
        check(b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01X\x01\x00\x00\x00bq\x02]q\x03(G?\xf8\x00\x00\x00\x00\x00\x00\x88Neu.")
            .unwrap();
    }

    #[test]
    fn calls_of_other_python_functions_are_named() {
        // pickle.dumps of an object whose __reduce__ is (os.system, ("true",)), protocol 0 and 2; and one whose result
        // is thrown away before an innocent dictionary.
        for pickle in [
            b"cposix\nsystem\np0\n(Vtrue\np1\ntp2\nRp3\n.".as_slice(),
            b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.",
            b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R0}.",
        ] {
            let message = check(pickle).unwrap_err();
            assert!(message.contains("posix.system"), "{message}");
        }
    }

    #[test]
    fn other_ways_to_name_a_python_object_are_refused() {
        // STACK_GLOBAL (protocol 4), INST, and the extension registry.
        for pickle in [
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93.".as_slice(),
            b"(Vtrue\niposix\nsystem\n.",
            b"\x80\x02\x82\x01.",
        ] {
            assert!(
                check(pickle).unwrap_err().contains("instruction"),
                "{pickle:?}"
            );
        }
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        for pickle in [
            b"".as_slice(),
            b"X\xff\xff\xff\xff",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"X\x10\x00\x00\x00abc",
            b"cposix",
            b"K",
        ] {
            assert!(check(pickle).is_err(), "{pickle:?}");
        }
    }

    #[test]
    fn endless_pickles_are_cut_off() {
        assert!(
            check(&vec![b'N'; MAX_INSTRUCTIONS + 1])
                .unwrap_err()
                .contains("instructions")
        );
        let long = [b"X\x00\x00\x00\x01".as_slice(), &vec![0; 1 << 24], b"."].concat();
        assert!(check(&long).is_err());
        let line = [b"V".as_slice(), &vec![b'a'; 1 << 20]].concat();
        assert!(check(&line).unwrap_err().contains("line"));
    }
}
