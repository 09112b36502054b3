"""Timing of PyTorch + PEFT on E2E with its real lengths: the peer of `lora bench epoch`.

    pip install torch transformers peft
    python benchmarks/peft_epoch.py --make DIR          a GPT-2 small with random weights with the shipped tokenizer
    python benchmarks/peft_epoch.py --model DIR --data examples/data/e2e/train.txt

Batches are shuffled and padded to their longest, as transformers' `Trainer` does by default; the loss is on the reference
and the end-of-text token. The first step is not counted. The last line is JSON.
"""

import argparse
import json
import pathlib
import random
import resource
import shutil
import statistics
import time

import torch
from peft_models import GPT2_DROPOUT, with_adapter
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

parser = argparse.ArgumentParser()
parser.add_argument("--make", type=pathlib.Path, metavar="DIR")
parser.add_argument("--model", type=pathlib.Path, metavar="DIR")
parser.add_argument("--data", type=pathlib.Path, metavar="FILE")
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--max-steps", type=int, default=40)
parser.add_argument("--rank", type=int, default=8)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)

if args.make:
    shipped = pathlib.Path(__file__).parents[1] / "examples/models/wiki-gpt2"
    eos = AutoTokenizer.from_pretrained(shipped).eos_token_id
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=eos, eos_token_id=eos, **GPT2_DROPOUT))
    model.save_pretrained(args.make)
    for file in shipped.glob("tokenizer*.json"):
        shutil.copy(file, args.make)
    raise SystemExit

tokenizer = AutoTokenizer.from_pretrained(args.model)
model = with_adapter(GPT2LMHeadModel.from_pretrained(args.model), ["c_attn"], args.rank).train()
trainable = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trainable, lr=2e-4)

examples = []
for line in args.data.read_text().splitlines():
    if not line.strip():
        continue
    meaning, reference = (half.strip() for half in line.split("||"))
    prompt = tokenizer.encode(f"{meaning} ||", add_special_tokens=False)
    completion = tokenizer.encode(f" {reference}", add_special_tokens=False) + [tokenizer.eos_token_id]
    examples.append((prompt + completion, [-100] * len(prompt) + completion))
random.Random(42).shuffle(examples)
batches = [examples[i:i + args.batch_size] for i in range(0, len(examples), args.batch_size)]

ends, learned = [], []
for batch in batches[:args.max_steps]:
    longest = max(len(tokens) for tokens, _ in batch)
    pad = lambda rows, value: torch.tensor([row + [value] * (longest - len(row)) for row in rows])
    ids = pad([tokens for tokens, _ in batch], tokenizer.eos_token_id)
    mask = pad([[1] * len(tokens) for tokens, _ in batch], 0)
    labels = pad([labels for _, labels in batch], -100)
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    loss.item()
    ends.append(time.perf_counter())
    learned.append((labels != -100).sum().item())
seconds = [after - before for before, after in zip(ends, ends[1:])]
total = ends[-1] - ends[0]
print(json.dumps({
    "peer": f"torch {torch.__version__}",
    "bench": "epoch",
    "batch_size": args.batch_size,
    "steps": len(seconds),
    "median_s": round(statistics.median(seconds), 4),
    "min_s": round(min(seconds), 4),
    "tokens": sum(learned[1:]),
    "seconds": round(total, 3),
    "tokens_per_s": round(sum(learned[1:]) / total, 2),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    "trainable": sum(p.numel() for p in trainable),
}))
