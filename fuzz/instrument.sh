#!/bin/sh
# Stands before the compiler (RUSTC_WRAPPER): what reads files is compiled with the coverage that libFuzzer steers by, and ours
# with overflows checked, and all else as usual. Burn under coverage would take twenty minutes, and little of it reads a file.
compiler=$1
shift
coverage="-C codegen-units=1 -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4
  -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table
  -C llvm-args=-sanitizer-coverage-trace-compares"
case " $* " in
*" --crate-name lora_"* | *" --crate-name safetensors "* | *" --crate-name pytorch_reader "*)
  # shellcheck disable=SC2086
  exec "$compiler" "$@" --cfg fuzzing -C debug-assertions -C overflow-checks $coverage
  ;;
*" --crate-name tokenizers "* | *" --crate-name burn_pack "*)
  # What a release wraps shall not end here in a panic.
  # shellcheck disable=SC2086
  exec "$compiler" "$@" $coverage
  ;;
esac
exec "$compiler" "$@"
