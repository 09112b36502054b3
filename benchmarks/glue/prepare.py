"""Writes the inputs of both programs in the benchmark: the same batches and the same initial weights.

    pip install torch transformers peft scikit-learn
    python benchmarks/glue/prepare.py --model DIR --data DIR --out DIR --seeds 1 2 3 --epochs 3

    OUT/train-TASK-SEED.jsonl   all epochs, shuffled by seed and epoch, to be read once in order
    OUT/dev-TASK.jsonl          the evaluation examples
    OUT/start-SEED              an untrained PEFT adapter with its classifier
    OUT/start-full-SEED         the full model with the same classifier, and the tokenizer

DATA has the folders SST-2, CoLA and MRPC with the files as published by their authors. MODEL is a BERT in Hugging Face's
format.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from tasks import TASKS, read

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def write(path: Path, examples):
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            file.write(json.dumps(example, ensure_ascii=False) + "\n")


def shuffled(examples, seed: int, epochs: int):
    for epoch in range(epochs):
        for index in numpy.random.default_rng([seed, epoch]).permutation(len(examples)):
            yield examples[index]


def starts(model: Path, out: Path, seed: int):
    """Writes the initial weights. Both share one random classifier; the adapter's `A` is drawn after it, its `B` is zero."""
    torch.manual_seed(seed)
    labels = {"id2label": {0: "0", 1: "1"}, "label2id": {"0": 0, "1": 1}}
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2, dtype=torch.float32, **labels)
    full = out / f"start-full-{seed}"
    base.save_pretrained(full)
    for name in TOKENIZER_FILES:
        if (model / name).exists():
            shutil.copyfile(model / name, full / name)
    lora = LoraConfig(
        task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"]
    )
    get_peft_model(base, lora).save_pretrained(out / f"start-{seed}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        train, dev = read(task, args.data)
        write(args.out / f"dev-{task}.jsonl", dev)
        for seed in args.seeds:
            write(args.out / f"train-{task}-{seed}.jsonl", shuffled(train, seed, args.epochs))
        print(f"{task}: {len(train)} examples, {len(dev)} to evaluate on")
    for seed in args.seeds:
        starts(args.model, args.out, seed)


if __name__ == "__main__":
    main()
