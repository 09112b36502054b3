#!/usr/bin/env python3
"""Compares training steps with PEFT, the library `adapters` and PyTorch: the same batches and initial values, without dropout.

    pip install torch peft adapters        # adapters needs transformers 4
    python3 examples/paper/parity.py --model MINILM --glue GLUE

Each method starts from values that the other library wrote, and trains 20 steps there and here: AdamW, warm-up and linear
decay, clipped gradients. OUT/parity.md and OUT/parity.json have the largest difference of a loss, in float32 on both sides. The
exit code is 1 if one is above 1e-4. Methods that are in OUT are not repeated. Without --model and --glue, only the shipped GPT-2 is compared, on E2E.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import adapters
import peft
import torch
import transformers
from adapters import DoubleSeqBnConfig, SeqBnConfig
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

EXAMPLES = Path(__file__).resolve().parents[1]
PROGRAM = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release/lora"
STEPS, BATCH, WARMUP = 20, 4, 4
MAX_LENGTH = 128
TOLERANCE = 1e-4
# Method: other library, learning rate. At ten times that of prompts, float32 itself differs by 1e-3 after 20 steps on MiniLM.
METHODS = {
    "full": ("PyTorch", 5e-5),
    "bitfit": ("PyTorch", 3e-3),
    "top2": ("PyTorch", 5e-5),
    "lora": ("PEFT", 3e-3),
    "prompt": ("PEFT", 3e-3),
    "prefix": ("PEFT", 3e-3),
    "adapter-h": ("adapters", 3e-3),
    "adapter-l": ("adapters", 3e-3),
    "adapter-p": ("adapters", 3e-3),
}
LAYERS = {
    "adapter-h": DoubleSeqBnConfig(reduction_factor=32),
    "adapter-l": SeqBnConfig(reduction_factor=32, ln_before=True),
    "adapter-p": SeqBnConfig(reduction_factor=32),
}


class Decoder:
    """The shipped GPT-2 on E2E: the loss of completions."""

    name, data, kind = "wiki-gpt2", EXAMPLES / "data/e2e/train.txt", "CAUSAL_LM"
    auto, options = AutoModelForCausalLM, ["--task", "causal-lm", "--format", "e2e"]
    fan_in_fan_out, targets, blocks = True, ["c_attn"], "transformer.h"

    def __init__(self, out: Path):
        self.model = out / self.name
        shutil.copytree(EXAMPLES / "models/wiki-gpt2", self.model, dirs_exist_ok=True)
        without_dropout(self.model, ("attn_pdrop", "embd_pdrop", "resid_pdrop"))

    def load(self):
        return AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32, attn_implementation="eager")

    def batches(self, lines):
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        rows = []
        for line in lines:
            meaning, reference = (half.strip() for half in line.split("||", 1))
            prompt = tokenizer(f"{meaning} ||")["input_ids"]
            rows.append((prompt, tokenizer(f" {reference}")["input_ids"] + [tokenizer.eos_token_id]))
        assert max(len(prompt + completion) for prompt, completion in rows) <= MAX_LENGTH
        for start in range(0, len(rows), BATCH):
            chosen = rows[start : start + BATCH]
            width = max(len(prompt + completion) for prompt, completion in chosen)
            ids, mask, labels = (torch.full((len(chosen), width), value) for value in (0, 0, -100))
            for at, (prompt, completion) in enumerate(chosen):
                end = len(prompt + completion)
                ids[at, :end], mask[at, :end] = torch.tensor(prompt + completion), 1
                labels[at, len(prompt) : end] = torch.tensor(completion)
            yield {"input_ids": ids, "attention_mask": mask}, labels

    def loss(self, logits, labels):
        # Virtual tokens have logits too.
        logits = logits[:, -labels.shape[1] :]
        return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


class Encoder:
    """A pretrained BERT on SST-2, with a random head that both sides start from."""

    name, kind = "MiniLM", "SEQ_CLS"
    options = ["--task", "glue/sst2"]
    fan_in_fan_out, targets, blocks = False, ["query", "value"], "bert.encoder.layer"

    def __init__(self, out: Path, model: Path, glue: Path):
        self.data, self.model = glue / "SST-2/train.tsv", out / "encoder"
        torch.manual_seed(3)
        labels = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
        base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2, dtype=torch.float32, **labels)
        base.save_pretrained(self.model)
        AutoTokenizer.from_pretrained(model).save_pretrained(self.model)
        shutil.copyfile(model / "tokenizer.json", self.model / "tokenizer.json")
        without_dropout(self.model, ("hidden_dropout_prob", "attention_probs_dropout_prob"))

    def load(self):
        return AutoModelForSequenceClassification.from_pretrained(self.model, dtype=torch.float32, attn_implementation="eager")

    def batches(self, lines):
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        for start in range(0, len(lines), BATCH):
            texts, labels = zip(*(line.rstrip("\n").split("\t") for line in lines[start : start + BATCH]))
            batch = tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH, padding="longest", return_tensors="pt")
            yield dict(batch), torch.tensor([int(label) for label in labels])

    def loss(self, logits, labels):
        return cross_entropy(logits, labels)


def without_dropout(folder: Path, keys):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | dict.fromkeys(keys, 0.0)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def is_head(name: str) -> bool:
    return name.split(".")[0] == "classifier" or ".modules_to_save." in name


def start(side, method: str, folder: Path):
    """Returns the model of the other library, and the options for the program; writes the initial adapter if there is one."""
    model, torch_seed = side.load(), 7
    torch.manual_seed(torch_seed)
    library = METHODS[method][0]
    if library == "PyTorch":
        count = len(model.get_submodule(side.blocks))
        tops = tuple(f"{side.blocks}.{at}." for at in (count - 2, count - 1)) + ("bert.pooler.",)
        for name, p in model.named_parameters():
            chosen = {"full": True, "bitfit": name.endswith(".bias"), "top2": name.startswith(tops)}[method]
            p.requires_grad_(chosen or is_head(name))
        return model, ["--method", method]
    if library == "adapters":
        adapters.init(model)
        model.add_adapter("test", config=LAYERS[method], set_active=True)
        for name, p in model.named_parameters():
            p.requires_grad_(".adapters.test." in name or is_head(name))
        stir(model)
        # The normalization of adapter-l shares its values with the layer behind it, which safetensors refuses.
        model.save_adapter(str(folder), "test", with_head=side.kind == "SEQ_CLS")
        return model, ["--method", method, "--adapter", folder]
    config = {
        "lora": lambda: peft.LoraConfig(
            task_type=side.kind, r=4, lora_alpha=8, target_modules=side.targets, fan_in_fan_out=side.fan_in_fan_out
        ),
        "prompt": lambda: peft.PromptTuningConfig(task_type=side.kind, num_virtual_tokens=8),
        "prefix": lambda: peft.PrefixTuningConfig(task_type=side.kind, num_virtual_tokens=8),
    }[method]()
    model = peft.get_peft_model(model, config)
    stir(model)
    model.save_pretrained(folder)
    return model, ["--method", method, "--adapter", folder]


def stir(model):
    """Adds noise to values that start at zero, so that each has a gradient from the first step."""
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.requires_grad and not is_head(name) and not p.any():
                p.normal_(std=0.02)


def trained_there(side, model, lr: float, lines):
    """Trains with PyTorch; returns the losses."""
    chosen = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in chosen if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in chosen if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses = []
    model.train()
    for batch, labels in side.batches(lines):
        loss = side.loss(model(**batch).logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(chosen, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trained_here(args, side, options, lr: float, data: Path, output: Path):
    """Trains with the program; returns the losses."""
    command = [
        args.lora.resolve(), "train", "--model", side.model, "--data", data, "--output", output, "--overwrite", "--quiet",
        *side.options, *options, "--lr", lr, "--batch-size", BATCH, "--max-steps", STEPS, "--warmup-steps", WARMUP,
        "--max-length", MAX_LENGTH, "--no-shuffle", "--save-steps", 0,
    ]  # fmt: skip
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    lines = map(json.loads, (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def compare(args, side, method: str):
    """Trains a method on both sides; returns a row of the table, which is kept."""
    library, lr = METHODS[method]
    folder = args.runs / side.name / method
    kept = folder / "row.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with side.data.open(encoding="utf-8") as file:
        lines = [line for _, line in zip(range(STEPS * BATCH + 1), file) if not line.startswith("sentence\t")]
    lines = lines[: STEPS * BATCH]
    data = folder / f"train{side.data.suffix}"
    data.write_text("".join(lines), encoding="utf-8")
    model, options = start(side, method, folder / "init")
    there = trained_there(side, model, lr, lines)
    here = trained_here(args, side, options, lr, data, folder / "run")
    assert len(there) == len(here) == STEPS, (len(there), len(here))
    difference = max(abs(a - b) for a, b in zip(there, here))
    row = {"model": side.name, "method": method, "library": library, "lr": lr, "difference": difference}
    row |= {"there": there, "here": here}
    kept.write_text(json.dumps(row), encoding="utf-8")
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="pretrained BERT, such as all-MiniLM-L6-v2")
    parser.add_argument("--glue", type=Path, help="directory with SST-2")
    parser.add_argument("--out", type=Path, default=Path("out/paper"))
    parser.add_argument("--lora", type=Path, default=PROGRAM, help="the program")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args = parser.parse_args()
    if bool(args.model) != bool(args.glue):
        parser.error("give --model and --glue together")
    args.runs = args.out / "parity"
    args.runs.mkdir(parents=True, exist_ok=True)
    sides = [Decoder(args.runs)] + ([Encoder(args.runs, args.model, args.glue)] if args.model else [])
    rows = []
    for side, method in ((side, method) for side in sides for method in args.methods):
        row = compare(args, side, method)
        rows.append(row)
        there, here = row["there"], row["here"]
        print(
            f"{side.name:10} {method:10} {row['library']:9} {there[0]:.4f} -> {there[-1]:.4f} there, {here[-1]:.4f} here, "
            f"largest difference {row['difference']:.1e}",
            flush=True,
        )
    text = "| model | method | library | first loss | last loss | largest difference |\n| --- | --- | --- | --- | --- | --- |\n"
    for row in rows:
        losses = f"{row['there'][0]:.4f} | {row['there'][-1]:.4f}"
        text += f"| {row['model']} | {row['method']} | {row['library']} | {losses} | {row['difference']:.1e} |\n"
    (args.out / "parity.md").write_text(text, encoding="utf-8")
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft, adapters)}
    (args.out / "parity.json").write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if any(row["difference"] > TOLERANCE for row in rows):
        sys.exit(f"above {TOLERANCE}")


if __name__ == "__main__":
    main()
