#!/usr/bin/env bash
# Fuzzes the readers of files with libFuzzer, each for the given seconds or inputs. It needs stable Rust and a C++ compiler.
#
#     scripts/fuzz.sh                       every target, 20 seconds each
#     scripts/fuzz.sh 600 peft pickle       these two, ten minutes each
#     scripts/fuzz.sh 1000000x model_config a million inputs
#
# This is for long runs. Every `cargo test` reads the corpus and some mutants of it, in the module `hostile` of lora-train:
#
#     LORA_MUTANTS=500 cargo test --release -p lora-train --test it -- hostile::
#
# Another number in LORA_SEED takes another way. `cov` counts edges of the code, and `ft` these with how often they were taken.
#
# An input that breaks a reader ends the run and is left in target/fuzz/broken/. Fix the reader, and keep the input in
# fuzz/corpus/TARGET/ under a name that says what broke: the tests read it from then on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-20}" in
  *x) limit=-runs=${1%x} ;;
  *) limit=-max_total_time=${1:-20} ;;
esac
shift || true

mapfile -t targets < <(basename --suffix .rs --multiple fuzz/fuzz_targets/*.rs)
if [ "$#" -gt 0 ]; then
  targets=("$@")
fi

# The flags are those of `cargo fuzz build --sanitizer none`, which works too, but gives them to every dependency. Sanitizers
# need nightly Rust: without one libFuzzer still sees panics, aborts, hangs and overflows, and the targets' own allocator
# bounds the memory.
RUSTC_WRAPPER=$PWD/fuzz/instrument.sh CARGO_TARGET_DIR=target/fuzz \
  cargo build --release --locked --manifest-path fuzz/Cargo.toml --features libfuzzer
binaries=target/fuzz/release

# Every input makes files: in memory, where the system has a place for that.
scratch=$(mktemp --directory --tmpdir="$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" lora-fuzz.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

mkdir -p target/fuzz/broken
for target in "${targets[@]}"; do
  mkdir -p "target/fuzz/found/$target"
  log=target/fuzz/$target.log
  # What is found on the way is kept apart from the corpus of the repository.
  if ! TMPDIR=$scratch "$binaries/$target" -seed="${LORA_SEED:-1}" "$limit" -max_len=16384 -timeout=20 \
    -rss_limit_mb=1024 -dict=fuzz/files.dict -artifact_prefix="target/fuzz/broken/$target-" -print_final_stats=1 \
    "target/fuzz/found/$target" "fuzz/corpus/$target" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    printf 'target %s broke: see %s and target/fuzz/broken/\n' "$target" "$log" >&2
    exit 1
  fi
  last=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -n 1)
  printf '%s: %s inputs, %s a second, %s\n' "$target" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
    "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")" "$last"
done
