#!/usr/bin/env python3
"""Compares training steps on conversations with PEFT's, on the same batches, without dropout.

    pip install torch transformers peft
    python3 examples/smollm2/data.py out/smollm2
    python3 examples/smollm2/parity.py --lora target/release/lora --model MODEL [--steps 8]

Both start from one adapter with random factors. Tokens and learned turns come from the tokenizer's own chat template in Python.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH, LENGTH, RATE = 4, 256, 1e-3


def example(tokenizer, messages):
    """Tokens, and labels of the last answer alone."""
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    before = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert ids[: len(before)] == before
    return ids, [-100] * len(before) + ids[len(before) :]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lora", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("out/smollm2/train.jsonl"))
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.01)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        model.save_pretrained(work / "init")
        command = ["train", "--model", args.model, "--data", args.data, "--adapter", work / "init", "--output", work / "run"]
        command += ["--no-shuffle", "--batch-size", BATCH, "--max-length", LENGTH, "--max-steps", args.steps, "--lr", RATE]
        command += ["--schedule", "constant", "--weight-decay", 0, "--max-grad-norm", 1, "--device", "flex"]
        done = subprocess.run([str(part) for part in (args.lora, *command)], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        found = [json.loads(line) for line in (work / "run/metrics.jsonl").read_text().splitlines()]
    found = [line["loss"] for line in found if "loss" in line and "step" in line][: args.steps]
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = [json.loads(line)["messages"] for line in args.data.read_text(encoding="utf-8").splitlines()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    worst = 0.0
    for step in range(args.steps):
        batch = [example(tokenizer, row) for row in rows[step * BATCH : (step + 1) * BATCH]]
        longest = max(len(ids) for ids, _ in batch)
        padded = lambda values, fill: values + [fill] * (longest - len(values))
        loss = model(
            input_ids=torch.tensor([padded(ids, tokenizer.pad_token_id) for ids, _ in batch]),
            attention_mask=torch.tensor([padded([1] * len(ids), 0) for ids, _ in batch]),
            labels=torch.tensor([padded(labels, -100) for _, labels in batch]),
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        worst = max(worst, abs(loss.item() - found[step]))
        print(f"step {step + 1}: {found[step]:.5f} here, {loss.item():.5f} by PEFT")
    print(f"largest difference {worst:.1e}")
    if worst > 1e-3:
        sys.exit(1)


if __name__ == "__main__":
    main()
