#!/usr/bin/env bash
# Measures a GPU in at most nine minutes: nine blocks in the order of their value, each under a time limit. Writes one JSON object a
# line. A block whose tool is missing is skipped, with a line that says so.
#
#     benchmarks/gpu.sh --device cuda [--lora PATH] [--no-fusion PATH] [--tests PATH] [--python PATH] [--small] [--blocks 1,2,5]
#
#     --lora        program built with the backend [target/release/lora]
#     --no-fusion   program built with `--no-default-features --features flex,BACKEND`, for block 3
#     --tests       test binary `it` of lora-train, for block 2
#     --python      Python with torch, transformers and peft, for block 5 [python3]
#     --small       small models only, as for software Vulkan
#     --results     file to append to [benchmarks/results/DATE-gpu-DEVICE.jsonl]
#
# A line has `block`, `name`, `device`, `status` (ok, failed, timeout or skipped), `seconds`, and `report`, the JSON of the program.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

device=cuda lora=target/release/lora plain="" tests="" python=python3 small=0 blocks=1,2,3,4,5,6,7,8,9 results=""
while [ "$#" -gt 0 ]; do
  case $1 in
    --device) device=$2 ;;
    --lora) lora=$2 ;;
    --no-fusion) plain=$2 ;;
    --tests) tests=$2 ;;
    --python) python=$2 ;;
    --blocks) blocks=$2 ;;
    --results) results=$2 ;;
    --small)
      small=1
      shift
      continue
      ;;
    *)
      sed -n '2,/^set/p' "$0" | sed -n 's/^# \{0,1\}//p' >&2
      exit 2
      ;;
  esac
  shift 2
done
results=${results:-benchmarks/results/$(date +%F)-gpu-$device.jsonl}
[ -x "$lora" ] || {
  printf '%s is missing: cargo build --release -p lora-train --features %s\n' "$lora" "$device" >&2
  exit 2
}

TOTAL=540
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
block=0
model=examples/models/wiki-gpt2
data=examples/data/e2e/train.txt

# quoted TEXT: a JSON string of its last 300 characters.
quoted() {
  printf '"%s"' "$(printf '%s' "$1" | tail -c 300 | tr '\n\t' '  ' | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

# write NAME STATUS SECONDS JSON
write() {
  printf '{"block":%d,"name":"%s","device":"%s","status":"%s","seconds":%s,"report":%s}\n' \
    "$block" "$1" "$device" "$2" "$3" "$4" | tee -a "$results"
}

skip() {
  write "$1" skipped 0 "$(quoted "$2")"
}

# report FILE...: the last line of the first file if it is JSON, or else a string of all files.
report() {
  local last
  last=$(tail -n 1 "$1")
  case $last in
    "{"*"}") printf '%s' "$last" ;;
    *) quoted "$(cat "$@")" ;;
  esac
}

# run NAME LIMIT COMMAND...: runs a command for at most LIMIT seconds, and no longer than the nine minutes. Its last line is the
# report, if it is JSON. Returns the status of the command.
run() {
  local name=$1 limit=$2 left=$((TOTAL - SECONDS)) status=ok code=0 report begin
  shift 2
  if [ "$left" -lt 5 ]; then
    skip "$name" "no time is left of the nine minutes"
    return 1
  fi
  begin=$(date +%s.%N)
  timeout --kill-after 5 "$((limit < left ? limit : left))" "$@" >"$scratch/out" 2>"$scratch/err" || code=$?
  case $code in
    0) ;;
    124 | 137) status=timeout ;;
    *) status=failed ;;
  esac
  report=$(report "$scratch/out" "$scratch/err")
  write "$name" "$status" "$(echo "$begin $(date +%s.%N)" | awk '{printf "%.2f", $2 - $1}')" "$report"
  return "$code"
}

wanted() {
  block=$1
  case ",$blocks," in *",$1,"*) return 0 ;; *) return 1 ;; esac
}

# values FILE KEY: the values of a key in a file of JSON lines.
values() {
  grep -o "\"$2\":[^,}]*" "$1" || true
}

# train OUTPUT ARGUMENT...: a short run on the shipped model and data, with a checkpoint in the middle.
train() {
  local output=$1
  shift
  exec timeout --kill-after 5 "$limit" "$lora" train --model "$model" --data "$data" --output "$output" --device "$device" \
    --batch-size 4 --max-length 64 --max-steps "$steps" --save-steps "$((steps / 2))" --seed 7 "$@" \
    >"$scratch/out" 2>"$scratch/err"
}

if [ "$small" = 1 ]; then
  presets=(minilm) lengths=(64) count=2 steps=6 quick=(--preset minilm --batch-size 2 --max-length 32)
else
  presets=(gpt2 gpt2-medium roberta-base deberta-v3-base) lengths=(128 512) count=6 steps=20 quick=(--preset gpt2)
fi

if wanted 1; then
  if command -v nvidia-smi >/dev/null; then
    run "nvidia-smi" 10 nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
  else
    skip "nvidia-smi" "there is no nvidia-smi"
  fi
  if ldd "$lora" 2>/dev/null | grep -q "not found"; then
    write "shared libraries" failed 0 "$(quoted "$(ldd "$lora" | grep "not found")")"
    exit 1
  fi
  if ! run "starts" 150 "$lora" bench step --preset minilm --device "$device" --batch-size 2 --max-length 32 --steps 2 --json; then
    printf 'the program does not start a step on %s; its output is in %s\n' "$device" "$results" >&2
    exit 1
  fi
fi

if wanted 2; then
  run "doctor" 100 "$lora" doctor --device "$device" --time-limit 80 --json || true
  if [ -n "$tests" ]; then
    run "tests of backends" 90 "$tests" --test-threads 1 backends:: || true
  else
    skip "tests of backends" "no --tests"
  fi
fi

if wanted 3; then
  if [ -n "$plain" ]; then
    run "doctor without fusion" 60 "$plain" doctor --device "$device" --time-limit 45 --json || true
    run "step without fusion" 40 "$plain" bench step "${quick[@]}" --device "$device" --steps "$count" --json || true
  else
    skip "without fusion" "no --no-fusion"
  fi
fi

# compare NAME FROM FILE FILE: compares the losses of two runs from a step on.
compare() {
  local first second status=ok
  first=$(values "$3" loss | tail -n +"$2") second=$(values "$4" loss | tail -n +"$2")
  if [ -z "$first" ] || [ "$first" != "$second" ]; then
    status=failed
  fi
  write "$1" "$status" 0 "{\"losses\":$(quoted "$first"),\"others\":$(quoted "$second")}"
}

if wanted 4; then
  limit=$((small ? 150 : 20))
  if (train "$scratch/one") && (train "$scratch/two"); then
    compare "determinism" 1 "$scratch/one/metrics.jsonl" "$scratch/two/metrics.jsonl"
    # A run that is interrupted after the middle, and resumed.
    train "$scratch/cut" &
    running=$!
    while kill -0 "$running" 2>/dev/null && [ "$(values "$scratch/cut/metrics.jsonl" step 2>/dev/null | wc -l)" -le "$((steps / 2))" ]; do
      sleep 0.05
    done
    # `timeout` passes the signal on, and the program writes nothing more than a checkpoint.
    kill -INT "$running" 2>/dev/null || true
    wait "$running" || true
    if (train "$scratch/cut" --resume); then
      compare "resume" 1 "$scratch/one/metrics.jsonl" "$scratch/cut/metrics.jsonl"
    else
      write "resume" failed 0 "$(quoted "$(cat "$scratch/err")")"
    fi
  else
    write "determinism" failed 0 "$(quoted "$(cat "$scratch/err")")"
  fi
fi

if wanted 5; then
  torch=$("$python" -c 'import torch, transformers, peft; print("cuda" if torch.cuda.is_available() else "cpu")' 2>/dev/null || true)
  for preset in "${presets[@]}"; do
    for length in "${lengths[@]}"; do
      shape=(--preset "$preset" --batch-size "$((small ? 2 : 8))" --max-length "$length" --steps "$count")
      run "step $preset $length" 60 "$lora" bench step "${shape[@]}" --device "$device" --json || true
      run "step $preset $length, dropout" 60 "$lora" bench step "${shape[@]}" --device "$device" --model-dropout --json || true
      for precision in f32 tf32 bf16; do
        if [ "$torch" = cuda ]; then
          run "PEFT $preset $length $precision" 40 \
            "$python" benchmarks/peft_step.py "${shape[@]}" --device cuda --precision "$precision" || true
        else
          skip "PEFT $preset $length $precision" "no torch with CUDA, transformers and peft in $python"
        fi
      done
    done
  done
fi

if wanted 6; then
  for variant in "--quantize nf4" --dora --checkpoint-activations; do
    read -ra flags <<<"$variant"
    loss=()
    for on in "$device" flex; do
      run "step $variant on $on" 60 "$lora" bench step "${quick[@]}" "${flags[@]}" --device "$on" --steps 1 --json || true
      loss+=("$(values "$scratch/out" loss | cut -d: -f2)")
    done
    status=$(awk -v a="${loss[0]:-nan}" -v b="${loss[1]:-nan}" \
      'BEGIN { d = a - b; if (d < 0) d = -d; print (a + 0 && b + 0 && d <= 5e-3) ? "ok" : "failed" }')
    write "loss $variant against the CPU" "$status" 0 "[$(printf '%s' "${loss[0]:-null}"),$(printf '%s' "${loss[1]:-null}")]"
  done
fi

if wanted 7; then
  if [ "$device" = vulkan ]; then
    skip "vulkan" "the device is vulkan already"
  elif "$lora" doctor --device vulkan --time-limit 0 >"$scratch/out" 2>&1; then
    run "vulkan: doctor" 60 "$lora" doctor --device vulkan --time-limit 45 --json || true
    run "vulkan: step" 40 "$lora" bench step "${quick[@]}" --device vulkan --steps "$count" --json || true
  else
    skip "vulkan" "$(cat "$scratch/out")"
  fi
fi

if wanted 8; then
  # Caches of kernels of its own, empty at first.
  export XDG_CACHE_HOME=$scratch/cache
  for start in cold warm; do
    run "first step, $start" 120 "$lora" train --model "$model" --data "$data" --output "$scratch/start" --device "$device" \
      --batch-size 4 --max-length 64 --max-steps 1 --overwrite || true
  done
fi

if wanted 9; then
  "$lora" bench step "${quick[@]}" --device "$device" --steps "$count" --json >"$scratch/beside" 2>&1 &
  beside=$!
  run "one of two processes" 60 "$lora" bench step "${quick[@]}" --device "$device" --steps "$count" --json || true
  code=0
  timeout 30 tail --pid="$beside" -f /dev/null || kill "$beside" 2>/dev/null || true
  wait "$beside" || code=$?
  write "the other of two processes" "$([ "$code" = 0 ] && echo ok || echo failed)" 0 "$(report "$scratch/beside")"
fi

printf 'wrote %s in %d s\n' "$results" "$SECONDS" >&2
