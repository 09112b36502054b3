"""One LoRA training step of PyTorch + PEFT on GPT-2 small, timed: the peer's side.

    pip install torch transformers peft
    python benchmarks/peft_step.py

The same work as `cargo run --release --example gpt2_step`: random weights in the published shape, random tokens, rank 8
on `c_attn`, no dropout, AdamW, float32 on the CPU. Prints one JSON line.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--seq", type=int, default=128)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)

model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
lora = LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
model = get_peft_model(model, lora).train()
trainable = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trainable, lr=1e-4)
tokens = torch.randint(5, model.config.vocab_size, (args.batch, args.seq))

seconds = []
for _ in range(args.steps + 2):
    start = time.perf_counter()
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - start)
seconds = seconds[2:]
print(json.dumps({
    "peer": f"torch {torch.__version__}",
    "batch": args.batch,
    "seq": args.seq,
    "median_s": round(statistics.median(seconds), 4),
    "min_s": round(min(seconds), 4),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    "trainable": sum(p.numel() for p in trainable),
}))
