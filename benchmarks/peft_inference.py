"""Timing of generation in transformers and PEFT, a token at a time: the peer of `lora bench inference`.

    pip install torch transformers peft
    python benchmarks/peft_inference.py --preset gpt2

Random weights in the published shape, float32 on the CPU. A text of `--max-length` random tokens is read into the cache of keys and
values; then single tokens are timed, with the base, with the merged model and with an active adapter. The last line is JSON.
"""

import argparse
import copy
import json
import statistics
import time

import torch
from peft_models import PRESETS, base, with_adapter

parser = argparse.ArgumentParser()
parser.add_argument("--preset", choices=PRESETS, default="gpt2")
parser.add_argument("--steps", type=int, default=32)
parser.add_argument("--batch-size", type=int, default=1)
parser.add_argument("--max-length", type=int, default=128)
parser.add_argument("--rank", type=int, default=8)
parser.add_argument("--targets", help="comma-separated names, or all-linear [default: PEFT's]")
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)

WARM_UP = 2


@torch.inference_mode()
def timed(model):
    """Returns the seconds of each token."""
    model.eval()
    tokens = torch.randint(5, model.config.vocab_size, (args.batch_size, args.max_length))
    cache = model(input_ids=tokens, use_cache=True, logits_to_keep=1).past_key_values
    seconds = []
    for _ in range(args.steps + WARM_UP):
        token = torch.randint(5, model.config.vocab_size, (args.batch_size, 1))
        start = time.perf_counter()
        cache = model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


model, targets = base(args.preset)
if args.targets:
    targets = "all-linear" if args.targets == "all-linear" else args.targets.split(",")
plain = timed(model)
adapted = with_adapter(model, targets, args.rank)
active = timed(adapted)
merged = timed(copy.deepcopy(adapted).merge_and_unload())
print(json.dumps({
    "peer": f"torch {torch.__version__}",
    "bench": "inference",
    "model": args.preset,
    "batch_size": args.batch_size,
    "max_length": args.max_length,
    "median_s": round(statistics.median(active), 5),
    "base_s": round(statistics.median(plain), 5),
    "merged_s": round(statistics.median(merged), 5),
    "adapter_s": round(statistics.median(active), 5),
}))
