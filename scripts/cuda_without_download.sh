#!/usr/bin/env bash
# Builds with the feature `cuda` where the prebuilt LLVM of CubeCL cannot be downloaded from GitHub: with the LLVM of the Python
# package registry.
#
#     scripts/cuda_without_download.sh                                the program, as target/release/lora
#     scripts/cuda_without_download.sh test --release --no-run        another command of cargo
#
# Needs cargo, python3 with pip, g++ and unzip, and about 3 GB below target/. A second run downloads nothing. The driver's version
# of CUDA may be older than the newest that the bindings know, and then kernels fail with "Missing symbol": CUDARC_CUDA_VERSION is
# the oldest that the program is to run with, as 12040 for 12.4 [default here]. To run, the program needs NVIDIA's driver and one
# file of the CUDA toolkit, nvvm/libdevice/libdevice.10.bc below CUDA_PATH (pip has it in nvidia-nvvm).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The version that cubecl 0.11.3 links (tracel-llvm-bundler), and the same LLVM in the registry.
bundle=tracel-llvm-23.1.0-4
packages=(mlc-llvm-static==23.1.1.post0 mlc-llvm-static-extra-targets==23.1.1.post0)

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

for tool in cargo python3 g++ unzip; do
  command -v "$tool" >/dev/null || fail "$tool is missing; on Debian: apt-get install python3 python3-pip g++ unzip"
done
python3 -m pip --version >/dev/null 2>&1 || fail "python3 has no pip; on Debian: apt-get install python3-pip"
[ "$(uname -sm)" = "Linux x86_64" ] || fail "the packages are for Linux on x86_64, and this is $(uname -sm)"

place=${CARGO_TARGET_DIR:-target}/llvm
mkdir -p "$place"
place=$(cd "$place" && pwd)

if [ ! -e "$place/complete" ]; then
  rm -rf "$place/wheels" "$place/sdk"
  python3 -m pip download --quiet --no-deps --dest "$place/wheels" "${packages[@]}" ||
    fail "pip could not download ${packages[*]}: check the network, or set PIP_INDEX_URL to a mirror"
  for wheel in "$place"/wheels/*.whl; do
    unzip -qo "$wheel" -d "$place/sdk"
  done
  rm -r "$place/wheels"
  # Wheels keep no permissions.
  chmod +x "$place"/sdk/mlc_llvm_static/static/bin/*
  touch "$place/complete"
fi

# The build script of CubeCL takes a directory of this name with this mark as downloaded.
static=$place/sdk/mlc_llvm_static/static
touch "$static/.tracel-llvm-installed"
mkdir -p "$place/data/tracel"
ln -sfn "$static" "$place/data/tracel/$bundle"
"$static/bin/llvm-config" --version >/dev/null || fail "$static/bin/llvm-config does not run"

export XDG_DATA_HOME=$place/data
export CUDARC_CUDA_VERSION=${CUDARC_CUDA_VERSION:-12040}
if [ "$#" -eq 0 ]; then
  set -- build --release
fi
printf 'LLVM %s from %s, CUDARC_CUDA_VERSION=%s\n' "$("$static/bin/llvm-config" --version)" "$static" "$CUDARC_CUDA_VERSION"
# The features come before `--`, where the arguments of a test begin.
command=$1
shift
exec cargo "$command" --features lora-train/cuda "$@"
