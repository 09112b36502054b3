"""Table of goals: runs the program and its peers in turn, and writes their results.

    cargo build --release --bin lora --example burn_apply_lora
    python -m venv peers && peers/bin/pip install torch transformers peft matplotlib
    peers/bin/python benchmarks/goals.py --results benchmarks/results/DATE-goals.jsonl --table benchmarks/goals.md

Each pair of commands runs in turn, `--rounds` times, with nothing else running. For each side the median of the rounds'
medians counts, and the smallest peak memory. An existing results file is continued: the runs in it are not repeated.
"""

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
LORA = [str(ROOT / "target/release/lora"), "bench"]
STEP = [sys.executable, str(ROOT / "benchmarks/peft_step.py")]
EPOCH = [sys.executable, str(ROOT / "benchmarks/peft_epoch.py")]
LOAD = [sys.executable, str(ROOT / "benchmarks/transformers_load.py")]
APPLY = [str(ROOT / "target/release/examples/burn_apply_lora")]
E2E = str(ROOT / "examples/data/e2e/train.txt")

parser = argparse.ArgumentParser()
parser.add_argument("--results", type=pathlib.Path, required=True)
parser.add_argument("--table", type=pathlib.Path)
parser.add_argument("--chart", type=pathlib.Path, help="chart of the ratios; needs matplotlib")
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--only", help="run only work whose name contains this text")
args = parser.parse_args()

made = tempfile.TemporaryDirectory()


def checkpoint():
    """Writes a GPT-2 small with random weights, 500 MB, and a tokenizer."""
    place = pathlib.Path(made.name) / "gpt2"
    if not place.exists():
        subprocess.run([*EPOCH, "--make", str(place)], check=True)
    return str(place)


def steps(preset, *more):
    return ["--preset", preset, "--steps", str(args.steps), *more]


def pairs():
    """Lists the work: our command, the peer's command, and the comparisons (name, key, goal, lower is better)."""
    time, memory = ("time", "median_s"), ("peak memory", "peak_mib")
    yield "GPT-2 small step / PEFT", [*LORA, "step", *steps("gpt2"), "--json"], [*STEP, *steps("gpt2")], [
        (*time, 0.8, True), (*memory, 0.35, True)]
    for targets in ["c_attn", "all-linear"]:
        yield f"GPT-2 small step, {targets} / Burn's apply_lora", [
            *LORA, "step", *steps("gpt2", "--targets", targets), "--json"], [
            *APPLY, "--steps", str(args.steps), "--targets", targets], [(*time, 0.55, True)]
    for preset in ["roberta-base", "deberta-v3-base"]:
        yield f"{preset} step / PEFT", [*LORA, "step", *steps(preset), "--json"], [*STEP, *steps(preset)], [
            (*time, 0.9, True)]
    model = checkpoint()
    yield "E2E epoch / PEFT", [
        *LORA, "epoch", "--model", model, "--data", E2E, "--max-steps", "40", "--lr", "2e-4", "--json"], [
        *EPOCH, "--model", model, "--data", E2E], [("tokens of labels a second", "tokens_per_s", 1.5, False)]
    yield "GPT-2 small step, LoRA / full", [*LORA, "step", *steps("gpt2"), "--json"], [
        *LORA, "step", *steps("gpt2", "--full"), "--json"], [(*time, 0.6, True), (*memory, 0.4, True)]
    yield "reading 500 MB / transformers", [*LORA, "load", "--model", model, "--json"], [*LOAD, "--model", model], [
        (*time, 0.5, True)]
    yield "GPT-2 small, a token at a time", [*LORA, "inference", "--preset", "gpt2", "--steps", "64", "--json"], None, [
        ("merged / base", "merged_to_base", 1.01, True), ("adapter / merged", "adapter_to_merged", 1.05, True)]


def last_line(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    # Without the path of the checkpoint, which differs in each run.
    return json.loads(done.stdout.strip().splitlines()[-1].replace(f"{made.name}/", ""))


found = []
if args.results.exists():
    found = [json.loads(line) for line in args.results.read_text().splitlines()]
rows = []
for name, ours, peer, goals in pairs():
    if args.only and args.only not in name:
        continue
    for turn in range(args.rounds):
        for side, command in [("ours", ours), ("peer", peer)]:
            key = dict(work=name, side=side, round=turn)
            if command is None or any(key.items() <= line.items() for line in found):
                continue
            line = {**key, **last_line(command), "machine": platform.processor() or platform.machine()}
            found.append(line)
            with args.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    for what, key, goal, less in goals:
        sides = {side: [line[key] for line in found if line["work"] == name and line["side"] == side]
                 for side in ["ours", "peer"]}
        middle = min if key == "peak_mib" else statistics.median
        ours_value = middle(sides["ours"])
        peer_value = middle(sides["peer"]) if sides["peer"] else None
        ratio = ours_value / peer_value if peer_value else ours_value
        met = ratio <= goal if less else ratio >= goal
        rows.append((name, what, ours_value, peer_value, ratio, goal, less, met))

digits = lambda value: "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"
table = ["| work | what | ours | peer | ratio | goal | |", "| --- | --- | --- | --- | --- | --- | --- |"]
for name, what, ours_value, peer_value, ratio, goal, less, met in rows:
    shown = digits(ours_value) if peer_value is not None else ""
    sign = "≤" if less else "≥"
    table.append(f"| {name} | {what} | {shown} | {digits(peer_value)} | {ratio:.3f} | {sign} {goal} | {'met' if met else 'missed'} |")
print("\n".join(table))
if args.table:
    args.table.write_text("\n".join(table) + "\n")
if args.chart:
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    shown = list(reversed(rows))
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(shown) + 1), layout="constrained")
    axes.barh(range(len(shown)), [row[4] for row in shown], color=["#3b7d4f" if row[7] else "#b5651d" for row in shown])
    for place, row in enumerate(shown):
        axes.plot([row[5]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [f"{row[0]}: {row[1]}" for row in shown])
    axes.set_xlabel("ratio; the black line is the goal")
    figure.savefig(args.chart, metadata={"Date": None})
