#!/bin/sh
# Stands before the compiler (RUSTC_WRAPPER): what reads files is compiled with the coverage that libFuzzer steers by, with
# overflows checked, and all else as usual. Burn under coverage would take twenty minutes, and none of it reads a file.
compiler=$1
shift
case " $* " in
*" --crate-name lora_"* | *" --crate-name safetensors "* | *" --crate-name pytorch_reader "*)
  exec "$compiler" "$@" --cfg fuzzing -C debug-assertions -C overflow-checks -C codegen-units=1 \
    -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares
  ;;
esac
exec "$compiler" "$@"
