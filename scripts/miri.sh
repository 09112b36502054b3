#!/usr/bin/env bash
# Runs the unit tests of lora-core's unsafe code under Miri, or all its unit tests under AddressSanitizer. Nightly Rust:
#
#     rustup toolchain install nightly --component miri,rust-src
#
#     scripts/miri.sh            Miri: kernels, products, host tensors
#     scripts/miri.sh asan       AddressSanitizer: every unit test, with threads and foreign code
#     scripts/miri.sh native     the tests that Miri would run, without it
