#!/usr/bin/env bash
# Checks the types for other platforms than this one, from Linux on x86-64, without running anything:
#
#     scripts/cross_check.sh               all three
#     scripts/cross_check.sh wasm          lora-core and lora-models, for WebAssembly in a browser
#     scripts/cross_check.sh windows       the workspace, for Windows with the tools of GNU
#     scripts/cross_check.sh aarch64       the workspace, for Linux on ARM
#
# Needs the targets of Rust (`rustup target add wasm32-unknown-unknown x86_64-pc-windows-gnu aarch64-unknown-linux-gnu`), and C
# compilers for what is compiled as C (Debian: gcc-mingw-w64-x86-64 and gcc-aarch64-linux-gnu).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Macros and build scripts run too short to be optimized.
check=(cargo check --locked --config 'profile.dev.package."*".opt-level=0')

if [ "$#" -eq 0 ]; then
  set -- wasm windows aarch64
fi
for platform in "$@"; do
  case $platform in
    # Training and the program need threads, a clock and files.
    wasm) "${check[@]}" --target wasm32-unknown-unknown --package lora-core --package lora-models --features lora-core/flex,lora-models/flex ;;
    windows) "${check[@]}" --target x86_64-pc-windows-gnu --workspace ;;
    aarch64) "${check[@]}" --target aarch64-unknown-linux-gnu --workspace ;;
    *)
      printf 'usage: scripts/cross_check.sh [wasm|windows|aarch64]…\n' >&2
      exit 2
      ;;
  esac
done
