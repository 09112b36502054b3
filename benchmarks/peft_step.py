"""Timing of training steps in PyTorch + PEFT: the peer of `lora bench step`.

    pip install torch transformers peft
    python benchmarks/peft_step.py --preset gpt2

Random weights in the published shape, random tokens, no dropout, AdamW, float32 on the CPU. The last line is JSON.
`--device cuda` runs on a GPU, with `--precision tf32` or `bf16` (autocast) in place of PyTorch's default, f32.
"""

import argparse
import contextlib
import json
import resource
import statistics
import time

import torch
from peft_models import PRESETS, base, is_language_model, with_adapter

parser = argparse.ArgumentParser()
parser.add_argument("--preset", choices=PRESETS, default="gpt2")
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--max-length", type=int, default=128)
parser.add_argument("--rank", type=int, default=8)
parser.add_argument("--targets", help="comma-separated names, or all-linear [default: PEFT's]")
parser.add_argument("--full", action="store_true")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--device", default="cpu")
parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
args = parser.parse_args()
torch.backends.cuda.matmul.allow_tf32 = args.precision == "tf32"
torch.set_num_threads(args.threads)
torch.manual_seed(0)

model, targets = base(args.preset)
if not args.full:
    if args.targets:
        targets = "all-linear" if args.targets == "all-linear" else args.targets.split(",")
    model = with_adapter(model, targets, args.rank)
model.train().to(args.device)
trainable = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trainable, lr=1e-4)
tokens = torch.randint(5, model.config.vocab_size, (args.batch_size, args.max_length)).to(args.device)
labels = tokens if is_language_model(model) else torch.arange(args.batch_size, device=args.device) % 2


def precision():
    """Returns the context of a forward pass."""
    if args.precision == "bf16":
        return torch.autocast(args.device, dtype=torch.bfloat16)
    return contextlib.nullcontext()


seconds = []
for _ in range(args.steps + 2):
    start = time.perf_counter()
    with precision():
        loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    loss.item()
    seconds.append(time.perf_counter() - start)
seconds = seconds[2:]
print(json.dumps({
    "peer": f"torch {torch.__version__}",
    "bench": "step",
    "model": args.preset,
    "batch_size": args.batch_size,
    "max_length": args.max_length,
    "median_s": round(statistics.median(seconds), 4),
    "min_s": round(min(seconds), 4),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    "trainable": sum(p.numel() for p in trainable),
    "device": args.device,
    "precision": args.precision,
    **({"device_mib": torch.cuda.max_memory_allocated() / 2**20} if args.device == "cuda" else {}),
}))
