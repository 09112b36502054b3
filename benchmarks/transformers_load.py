"""Timing of reading a checkpoint with transformers: the peer of `lora bench load`.

    pip install torch transformers
    python benchmarks/transformers_load.py --model DIR

The first two times are not counted. The last line is JSON.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--steps", type=int, default=5)
args = parser.parse_args()
torch.set_num_threads(2)

causal = AutoConfig.from_pretrained(args.model).model_type == "gpt2"
kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
seconds = []
for _ in range(args.steps + 2):
    start = time.perf_counter()
    model = kind.from_pretrained(args.model, dtype=torch.float32)
    # Read every value: a mapped file is read on first use.
    touched = sum(p.detach().view(-1)[::1024].sum().item() for p in model.parameters())
    seconds.append(time.perf_counter() - start)
    del model
seconds = seconds[2:]
print(json.dumps({
    "peer": f"torch {torch.__version__}",
    "bench": "load",
    "median_s": round(statistics.median(seconds), 4),
    "min_s": round(min(seconds), 4),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}))
