#!/usr/bin/env bash
# Runs tests of the unsafe code, kernels and host tensors, under Miri or AddressSanitizer. It needs nightly Rust:
#
#     rustup toolchain install nightly --profile minimal --component miri,rust-src
#
#     scripts/miri.sh          Miri: the unit tests of kernels, products, packed weights and host tensors
#     scripts/miri.sh asan     AddressSanitizer: all unit tests of lora-core, with threads and as the processor's vectors allow
#     scripts/miri.sh plain    the tests that Miri runs, without it
#
# Miri was run last on 1 December 2026 and found nothing: over the tests of `lora-core` one at a time, each within 400 seconds, and over
# those of `lora-models` in 94 seconds, with the nightly of 19 May 2026. AddressSanitizer has not been run: its build takes longer than
# there was time for.
#
# Miri interprets a test, some hundred times slower than it runs: of the rest, most would take hours. Files come from the host
# (isolation is off). `rayon` keeps its threads until the process ends, and turns pointers into numbers and back, which is
# allowed here. Floats are deterministic: else Miri adds an error to each exponential. Miri has SSE2 alone, so that the loops of
# `pulp` and `gemm` are those for processors without AVX.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

core=(ops::gemm ops::kernels ops::attention ops::head_loss ops::packed ops::dropout_layer ops::half_float ops::seeded_mask
  quantize:: adapter:: split::)
models=(checkpoint::host_tensor)

export RAYON_NUM_THREADS=2
case "${1:-miri}" in
  miri)
    export CARGO_TARGET_DIR=target/miri
    export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-permissive-provenance -Zmiri-tree-borrows -Zmiri-deterministic-floats ${MIRIFLAGS:-}"
    cargo +nightly miri test --package lora-core --lib -- "${core[@]}"
    cargo +nightly miri test --package lora-models --lib -- "${models[@]}"
    ;;
  asan)
    # A target is named, so that build scripts and macros are compiled without it.
    export CARGO_TARGET_DIR=target/asan RUSTFLAGS=-Zsanitizer=address
    cargo +nightly test --package lora-core --lib --target x86_64-unknown-linux-gnu
    ;;
  plain)
    cargo test --release --package lora-core --lib -- "${core[@]}"
    cargo test --release --package lora-models --lib -- "${models[@]}"
    ;;
  *)
    printf 'usage: scripts/miri.sh [miri|asan|plain]\n' >&2
    exit 2
    ;;
esac
