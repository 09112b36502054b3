//! Inputs of the fuzzer: honest files, hostile ones, those that broke a reader before, and mutants of them all. Each ends in
//! a value or an error, soon and within bounded memory.

#[path = "../../../fuzz/src/lib.rs"]
pub mod fuzz;
mod mutation;

use mutation::{dictionary, mutant};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use test_support::process::passed_alone;
use test_support::random::Random;

/// Time limit of an input. The slowest takes a second on a loaded machine in a debug build.
const LONGEST: Duration = Duration::from_secs(60);

/// Stack that an input is read on, in bytes: as large as that of a program's main thread on Linux.
const STACK: usize = 8 << 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Returns names and bytes of a target's corpus.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder().join("corpus").join(target)).unwrap();
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read(entry.path()).unwrap())
    };
    let mut inputs: Vec<(String, Vec<u8>)> = entries.map(read).collect();
    inputs.sort();
    inputs
}

/// Runs an entry in a thread of that name, by which the message of an abort tells the input. Returns true if the input came to a
/// value.
fn run(name: &str, run: fn(&[u8]) -> bool, input: Vec<u8>) -> Result<bool, String> {
    let (done, ended) = mpsc::channel();
    let work = move || {
        let _ = done.send(run(&input));
    };
    let named = thread::Builder::new().name(name.into()).stack_size(STACK);
    let worker = named.spawn(work).unwrap();
    match ended.recv_timeout(LONGEST) {
        Ok(is_value) => Ok(is_value),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let _ = worker.join();
            Err(format!("{name}: panicked"))
        }
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("{name}: no end after {LONGEST:?}")),
    }
}

#[test]
fn every_input_of_the_corpus_ends_and_an_honest_one_in_a_value() {
    if passed_alone("hostile::every_input_of_the_corpus_ends_and_an_honest_one_in_a_value") {
        return;
    }
    fuzz::memory::bound();
    let mut failures = Vec::new();
    for entry in fuzz::ENTRIES {
        let inputs = corpus(entry.name);
        let honest = inputs
            .iter()
            .filter(|(name, _)| name.starts_with("honest-"));
        assert!(honest.count() > 0 && inputs.len() > 3, "{}", entry.name);
        for (name, input) in inputs {
            let is_honest = name.starts_with("honest-");
            let name = format!("{}/{name}", entry.name);
            // An honest server is waited for, however loaded the machine is.
            let limit = if is_honest { 10_000 } else { 20 };
            fuzz::TIME_LIMIT_MS.store(limit, Ordering::Relaxed);
            match run(&name, entry.run, input) {
                Err(failure) => failures.push(failure),
                // A reader that refuses everything would pass all tests of hostile files.
                Ok(false) if is_honest && is_built(entry.name) => {
                    failures.push(format!("{name}: honest, and refused"))
                }
                Ok(_) => {}
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Returns true if the reader of a target is part of this build: without the feature `hub` no server is asked.
fn is_built(target: &str) -> bool {
    cfg!(feature = "hub") || !target.starts_with("hub")
}

/// Mutants of each input: a number that takes some seconds, or that of `LORA_MUTANTS` for a longer search.
fn mutants() -> u64 {
    let asked = std::env::var("LORA_MUTANTS").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(20)
}

#[test]
fn every_mutant_of_the_corpus_ends_in_a_value_or_an_error() {
    if passed_alone("hostile::every_mutant_of_the_corpus_ends_in_a_value_or_an_error") {
        return;
    }
    fuzz::memory::bound();
    let words = dictionary(&std::fs::read_to_string(folder().join("files.dict")).unwrap());
    let mut failures = Vec::new();
    for entry in fuzz::ENTRIES {
        let inputs = corpus(entry.name);
        for (name, input) in &inputs {
            for seed in 1..=mutants() {
                let mut random = Random::new(seed);
                let (_, other) = random.choose(&inputs);
                let mutant = mutant(input, other, &words, &mut random);
                let name = format!("{}/{name}, mutant {seed}", entry.name);
                failures.extend(run(&name, entry.run, mutant).err());
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_entry_has_a_target_and_every_folder_an_entry() {
    let names = |of: &str, ending: &str| -> Vec<String> {
        let entries = std::fs::read_dir(folder().join(of)).unwrap();
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
