//! The corpus of the fuzzer, read once more: honest files, hostile ones, and what broke a reader before. Each ends in a
//! value or an error, soon and within bounded memory.

#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

#[global_allocator]
static MEMORY: fuzz::memory::Bounded = fuzz::memory::Bounded;

/// The limit is for one input at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The slowest takes a second on a loaded machine in a debug build.
const LONGEST: Duration = Duration::from_secs(60);

/// What an input is run in: as much as a program's main thread has on Linux.
const STACK: usize = 8 << 20;

fn inputs(target: &str) -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let folder = std::fs::read_dir(corpus.join(target)).unwrap();
    let mut paths: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Runs an entry in a thread of that name, which an abort is told by.
fn run(name: &str, run: fn(&[u8]), input: Vec<u8>) -> Result<(), String> {
    let (done, ended) = mpsc::channel();
    let work = move || {
        run(&input);
        let _ = done.send(());
    };
    let named = thread::Builder::new().name(name.into()).stack_size(STACK);
    let worker = named.spawn(work).unwrap();
    match ended.recv_timeout(LONGEST) {
        Ok(()) => Ok(()),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let _ = worker.join();
            Err(format!("{name}: panicked"))
        }
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("{name}: no end after {LONGEST:?}")),
    }
}

#[test]
fn every_input_of_the_corpus_ends_in_a_value_or_an_error() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failures = Vec::new();
    for entry in fuzz::ENTRIES {
        let inputs = inputs(entry.name);
        let honest = inputs.iter().filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("honest-")
        });
        assert!(honest.count() > 0 && inputs.len() > 3, "{}", entry.name);
        for path in inputs {
            let name = format!(
                "{}/{}",
                entry.name,
                path.file_name().unwrap().to_string_lossy()
            );
            let input = std::fs::read(&path).unwrap();
            failures.extend(run(&name, entry.run, input).err());
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Mutants of each input: few in every run, as many as `LORA_MUTANTS` says to search without libFuzzer.
fn mutants() -> u64 {
    let asked = std::env::var("LORA_MUTANTS").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(20)
}

/// Numbers that look random, the same on every machine (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        for shift in [13, -7, 17i32] {
            self.0 ^= match shift > 0 {
                true => self.0 << shift,
                false => self.0 >> -shift,
            };
        }
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// What numbers and bytes are replaced with.
const NUMBERS: [&str; 9] = [
    "0",
    "-1",
    "1",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "1073741824",
];

/// An input changed in a few places.
fn mutant(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(16).min(bytes.len() - at);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => {
                bytes.drain(at..at + length);
            }
            2 => {
                let copy = bytes[at..at + length].to_vec();
                let place = random.below(bytes.len() + 1);
                bytes.splice(place..place, copy);
            }
            3 => {
                let from = random.below(other.len() + 1);
                let taken = other[from..].iter().take(64).copied();
                bytes.splice(at..at + length, taken);
            }
            // A number that stands there, if one does.
            4 => {
                let rest = &bytes[at..];
                let Some(first) = rest.iter().position(u8::is_ascii_digit) else {
                    continue;
                };
                let digits = rest[first..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit());
                let range = at + first..at + first + digits.count();
                let number = NUMBERS[random.below(NUMBERS.len())];
                bytes.splice(range, number.bytes());
            }
            _ => {
                let value = [0, 0x7f, 0x80, 0xff][random.below(4)];
                bytes[at..at + length.min(8)].fill(value);
            }
        }
    }
    bytes
}

#[test]
fn every_mutant_of_the_corpus_ends_in_a_value_or_an_error() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failures = Vec::new();
    for entry in fuzz::ENTRIES {
        let read = |path: &PathBuf| std::fs::read(path).unwrap();
        let paths = inputs(entry.name);
        let all: Vec<Vec<u8>> = paths.iter().map(read).collect();
        for (path, input) in paths.iter().zip(&all) {
            let name = path.file_name().unwrap().to_string_lossy();
            for seed in 1..=mutants() {
                let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let other = &all[random.below(all.len())];
                let mutant = mutant(input, other, &mut random);
                let name = format!("{}/{name}, mutant {seed}", entry.name);
                failures.extend(run(&name, entry.run, mutant).err());
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_entry_has_a_target_and_every_folder_an_entry() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let names = |folder: &str, ending: &str| -> Vec<String> {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.map(|name| name.replace(ending, "")).collect();
        names.sort();
        names
    };
    let mut entries: Vec<String> = fuzz::ENTRIES.iter().map(|e| e.name.to_string()).collect();
    entries.sort();
    assert_eq!(names("fuzz_targets", ".rs"), entries);
    assert_eq!(names("corpus", ".rs"), entries);
}
