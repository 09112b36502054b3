"""Compares this project's program with PEFT on the same batches and initial weights, and prints a table.

    python benchmarks/glue/prepare.py --model MODEL --data DATA --out OUT
    cargo build --release
    python benchmarks/glue/compare.py --model MODEL --prepared OUT --results FILE.jsonl --table FILE.md \
        --program lora=target/release/lora --program peft

Each run adds a line to the results file when it ends. Runs with a line are not repeated, so that a stopped comparison
can be continued. Without `--program` only the table is printed. The programs run in turn, under the same conditions.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tasks import TASKS, score

METHODS = {"lora": "LoRA", "full": "full"}
PROGRAMS = {"lora": "this project", "peft": "PyTorch + PEFT"}
PEFT_RUN = Path(__file__).resolve().parent / "peft_run.py"
# Metric of each task's score.
SCORES = {"sst2": "SST-2, accuracy", "cola": "CoLA, Matthews", "mrpc": "MRPC, accuracy and F1"}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="base model; required for runs")
    parser.add_argument("--prepared", type=Path, help="output of prepare.py; required for runs")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="file for the table, which is also printed")
    parser.add_argument("--program", action="append", default=[], metavar="peft | lora=PATH")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--lr-lora", type=float, default=2e-3)
    parser.add_argument("--lr-full", type=float, default=5e-5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contended", action="store_true", help="marks runs beside other work, whose seconds do not count")
    args = parser.parse_args()
    args.programs = dict(program.partition("=")[::2] for program in args.program)
    if unknown := args.programs.keys() - PROGRAMS.keys():
        parser.error(f"--program {', '.join(unknown)}: expected peft or lora=PATH")
    if "lora" in args.programs and not Path(args.programs["lora"]).is_file():
        parser.error(f"--program lora={args.programs['lora']}: no such file; build it with `cargo build --release`")
    if args.programs and not (args.model and args.prepared):
        parser.error("to run a program, give --model and --prepared")
    args.lr = {"lora": args.lr_lora, "full": args.lr_full}
    return args


def options(args, method: str, seed: int):
    """Returns the options that both programs share."""
    return [
        "--batch-size", str(args.batch_size), "--lr", str(args.lr[method]), "--max-length", "128",
        "--warmup-ratio", "0.06", "--weight-decay", "0.01", "--seed", str(seed),
    ]  # fmt: skip


def files(args, task: str, method: str, seed: int):
    """Returns the paths of training data, evaluation data and initial weights."""
    start = f"start-{seed}" if method == "lora" else f"start-full-{seed}"
    names = (f"train-{task}-{seed}.jsonl", f"dev-{task}.jsonl", start)
    return [args.prepared / name for name in names]


def execute(command, threads: int):
    """Runs a program; returns the last line of its output as JSON, and its peak memory in MiB."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=env)
    output = process.stdout.read()
    # Only wait4 reports the memory of this child alone.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    lines = output.strip().splitlines()
    if process.returncode != 0 or not lines:
        raise SystemExit(f"exit status {process.returncode}: {' '.join(map(str, command))}")
    return json.loads(lines[-1]), usage.ru_maxrss // 1024


def run_peft(args, task: str, method: str, seed: int):
    train, dev, start = files(args, task, method, seed)
    command = [
        sys.executable, PEFT_RUN, "--model", args.model, "--train", train, "--dev", dev, "--start", start,
        "--method", method, "--threads", args.threads, *options(args, method, seed),
    ]  # fmt: skip
    return execute(command, args.threads)[0]


def run_lora(args, task: str, method: str, seed: int):
    train, dev, start = files(args, task, method, seed)
    starts = {
        "lora": ["--model", args.model, "--adapter", start],
        "full": ["--model", start, "--full"],
    }
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        command = [
            Path(args.programs["lora"]).resolve(), "train", *starts[method], "--task", f"glue/{task}",
            "--data", train, "--eval-data", dev, "--no-shuffle", "--epochs", "1",
            *options(args, method, seed), "--output", output, "--json",
        ]  # fmt: skip
        printed, peak_mib = execute(command, args.threads)
        events = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    result = {"task": task, "method": method, "seed": seed, "program": "lora", "lr": args.lr[method]}
    return result | from_lora(task, printed, events) | {"peak_mib": peak_mib}


def from_lora(task: str, printed: dict, events: list):
    """Converts the result line and metrics.jsonl of `lora train` to the keys of peft_run.py.

    The seconds of the last step cover training alone: the only evaluation comes after it.
    """
    last_step = [event for event in events if "loss" in event][-1]
    last_eval = [event for event in events if "eval" in event][-1]
    return {
        "score": score(task, printed["after"]),
        "metrics": printed["after"],
        "train_seconds": round(last_step["seconds"], 2),
        "eval_seconds": round(last_eval["eval_seconds"], 2),
        "trainable": printed["trainable"],
        "steps": last_step["step"],
        "versions": {"lora": printed["version"]},
    }


def read_results(path: Path, args):
    """Returns the last line of each run; lines with another learning rate belong to another comparison."""
    results = {}
    if path.exists():
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            result = json.loads(line)
            expected = args.lr[result["method"]]
            if result["lr"] != expected:
                message = f"learning rate {result['lr']}, expected {expected}: use another file"
                raise SystemExit(f"{path}:{number}: {message}")
            results[tuple(result[name] for name in ("task", "method", "program", "seed"))] = result
    return results


def table(results: dict) -> str:
    """Returns mean and sample standard deviation of the score, mean seconds of uncontended runs, and peak memory."""
    lines = [
        "| task, score | method | program | score, mean ± std (seeds) | training, s | peak memory, MiB | trainable |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for task, method, program in ((t, m, p) for t in TASKS for m in METHODS for p in PROGRAMS):
        runs = [result for key, result in results.items() if key[:3] == (task, method, program)]
        if not runs:
            continue
        scores = [100 * run["score"] for run in runs]
        seconds = [run["train_seconds"] for run in runs if not run.get("contended")]
        deviation = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        lines.append(
            f"| {SCORES[task]} | {METHODS[method]} | {PROGRAMS[program]} "
            f"| {statistics.mean(scores):.2f}{deviation} ({len(runs)}) "
            f"| {f'{statistics.mean(seconds):.1f}' if seconds else ''} "
            f"| {max(run['peak_mib'] for run in runs)} | {runs[0]['trainable']:,} |"
        )
    return "\n".join(lines) + "\n"


def main():
    args = parse()
    runners = {"lora": run_lora, "peft": run_peft}
    results = read_results(args.results, args)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for task, method, program in ((t, m, p) for t in args.tasks for m in args.methods for p in args.programs):
            key = (task, method, program, seed)
            if key in results:
                continue
            print(f"{program}: {task}, {method}, seed {seed}", file=sys.stderr)
            results[key] = runners[program](args, task, method, seed) | ({"contended": True} if args.contended else {})
            with args.results.open("a") as file:
                file.write(json.dumps(results[key]) + "\n")
    text = table(results)
    print(text, end="")
    if args.table:
        args.table.write_text(text)


if __name__ == "__main__":
    main()
