"""Fine-tunes a classifier with PyTorch and PEFT: the peer of the benchmark.

    python benchmarks/glue/peft_run.py --model DIR --train OUT/train-mrpc-1.jsonl --dev OUT/dev-mrpc.jsonl \
        --start OUT/start-1 --method lora --lr 2e-3 --seed 1

`prepare.py` writes the files. The training file is read once, in order; a batch is padded to its longest text. Both
programs share: AdamW without decay on biases and norms, a linear schedule with warm-up, gradients clipped to a
norm of 1, the model's own dropout, float32. The training seconds cover the loop alone, without tokenization and
evaluation. The last line of the output is the result as JSON.
"""

import argparse
import json
import math
import resource
import sys
import time
from pathlib import Path

import peft
import sklearn
import torch
import transformers
from peft import PeftModel
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

from tasks import TASKS, score

MAX_GRAD_NORM = 1.0
# Number of steps between two lines of progress.
PROGRESS = 50


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="base model with its tokenizer")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True, help="dev-TASK.jsonl; the task is taken from the name")
    parser.add_argument("--start", type=Path, required=True, help="initial adapter, or with --method full a full model")
    parser.add_argument("--method", choices=("lora", "full"), required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--warmup-ratio", type=float, default=0.06)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--max-steps", type=int, help="stop after N steps of the full run's schedule; 0 evaluates the initial weights")
    parser.add_argument("--seed", type=int, required=True, help="seed of the dropout")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--predictions", type=Path, help="file for one line per example of --dev")
    args = parser.parse_args()
    args.task = args.dev.stem.removeprefix("dev-")
    if args.task not in TASKS:
        parser.error(f"--dev {args.dev}: expected dev-TASK.jsonl with TASK one of {', '.join(TASKS)}")
    return args


def load(args):
    """Loads the initial model; trainable parameters have `requires_grad`."""
    if args.method == "full":
        return AutoModelForSequenceClassification.from_pretrained(args.start, dtype=torch.float32)
    base = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2, dtype=torch.float32)
    return PeftModel.from_pretrained(base, args.start, is_trainable=True)


class Batches:
    """Tokenizes the examples of a file, in order."""

    def __init__(self, path: Path, tokenizer, max_length: int, size: int):
        with path.open(encoding="utf-8") as file:
            examples = [json.loads(line) for line in file]
        columns = [name for name in examples[0] if name != "label"]
        texts, *pairs = ([example[name] for example in examples] for name in columns)
        tokens = tokenizer(texts, *pairs, truncation=True, max_length=max_length, padding=False)
        self.rows = [{name: tokens[name][i] for name in tokens} for i in range(len(examples))]
        self.labels = [example["label"] for example in examples]
        self.tokenizer, self.size = tokenizer, size

    def __len__(self):
        return math.ceil(len(self.rows) / self.size)

    def __iter__(self):
        for start in range(0, len(self.rows), self.size):
            rows = self.rows[start : start + self.size]
            batch = self.tokenizer.pad(rows, padding="longest", return_tensors="pt")
            yield batch, torch.tensor(self.labels[start : start + self.size])


def train(model, batches, args):
    """Trains on one pass over the file. Returns seconds and steps."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr)
    warmup = math.ceil(args.warmup_ratio * len(batches))
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, len(batches))
    model.train()
    torch.manual_seed(args.seed)
    start, steps = time.perf_counter(), 0
    for batch, labels in batches:
        if steps == args.max_steps:
            break
        loss = cross_entropy(model(**batch).logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        steps += 1
        if steps % PROGRESS == 0:
            seconds = time.perf_counter() - start
            print(f"step {steps}/{len(batches)} loss {loss.item():.4f} {seconds:.0f} s", file=sys.stderr)
    return time.perf_counter() - start, steps


@torch.inference_mode()
def evaluate(model, batches):
    """Returns the metrics, named as in Hugging Face's `evaluate`, and the logits."""
    model.eval()
    logits = torch.cat([model(**batch).logits for batch, _ in batches])
    labels, predicted = batches.labels, logits.argmax(-1).tolist()
    metrics = {
        "loss": cross_entropy(logits, torch.tensor(labels)).item(),
        "accuracy": accuracy_score(labels, predicted),
        "f1": f1_score(labels, predicted, zero_division=0),
        "matthews_correlation": matthews_corrcoef(labels, predicted),
    }
    return {name: float(value) for name, value in metrics.items()}, logits


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    train_batches, dev_batches = (
        Batches(path, tokenizer, args.max_length, args.batch_size) for path in (args.train, args.dev)
    )
    model = load(args)
    train_seconds, steps = train(model, train_batches, args)
    start = time.perf_counter()
    metrics, logits = evaluate(model, dev_batches)
    eval_seconds = time.perf_counter() - start
    if args.predictions:
        with args.predictions.open("w") as file:
            for label, row in zip(dev_batches.labels, logits):
                line = {"prediction": row.argmax().item(), "label": label, "logits": row.tolist()}
                file.write(json.dumps(line) + "\n")
    print(json.dumps({
        "task": args.task,
        "method": args.method,
        "seed": args.seed,
        "program": "peft",
        "lr": args.lr,
        "score": score(args.task, metrics),
        "metrics": metrics,
        "train_seconds": round(train_seconds, 2),
        "eval_seconds": round(eval_seconds, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "steps": steps,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "scikit-learn": sklearn.__version__,
        },
    }))


if __name__ == "__main__":
    main()
