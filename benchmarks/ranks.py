#!/usr/bin/env python3
"""Measures the exchange between ranks on this machine, fits a model of its cost, and forecasts it for networks.

    benchmarks/ranks.py LORA [--model gpt2] [--steps N] [--out FILE]

LORA is the program, built with the feature `mpi`. Three measurements, on a machine that does nothing else:

1. one process with two threads against two ranks of one thread each: throughput of both;
2. the exchange for 2 and 4 ranks and ranks 8, 64 and 256 of the adapter, from little to much to send;
3. a fit of `seconds = messages * latency + bytes * host`, where each of W ranks sends `bytes` in `2 (W - 1)` messages. Only
   measurements with a core for each rank are fitted: others wait for cores.

The forecast adds a network to what is shared memory here: each byte also takes its time there, and a message the network's latency.
"""

import argparse
import json
import os
import subprocess
import sys

# Gbit/s, and seconds for a message.
NETWORKS = {25: 20e-6, 100: 5e-6}
RANKS = (8, 64, 512)
# Trained parameters, from `lora plan --targets all-linear`, rank 8.
MODELS = {"GPT-2 XL": 9_830_400, "Qwen3-0.6B": 5_046_272}
# Ranks of a machine, which share its network card.
PER_MACHINE = 8


def bench(lora, ranks, threads, more):
    command = [lora, "bench", "step", "--device", "flex", "--json", *more]
    if ranks > 1:
        launcher = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
        command = [*launcher, *command, "--ranks"]
    result = subprocess.run(command, env={**os.environ, "RAYON_NUM_THREADS": str(threads)}, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")
    return json.loads(next(line for line in reversed(result.stdout.splitlines()) if line.startswith("{")))


def solve(rows, values):
    """Least squares by the normal equations, with Gauss's elimination."""
    n = len(rows[0])
    a = [[sum(r[i] * r[j] for r in rows) for j in range(n)] + [sum(r[i] * v for r, v in zip(rows, values))] for i in range(n)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda k: abs(a[k][i]))
        a[i], a[pivot] = a[pivot], a[i]
        for k in range(n):
            if k != i:
                factor = a[k][i] / a[i][i]
                a[k] = [x - factor * y for x, y in zip(a[k], a[i])]
    return [a[i][n] / a[i][i] for i in range(n)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lora")
    parser.add_argument("--model", default="gpt2", help="a preset of `lora bench step`")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", help="write all measurements to this file, as JSON")
    args = parser.parse_args()
    shape = ["--preset", args.model, "--steps", str(args.steps)]

    one = bench(args.lora, 1, 2, shape)
    two = bench(args.lora, 2, 1, shape)
    share = two["tokens_per_s"] / one["tokens_per_s"]
    print(f"{args.model}: one process with two threads {one['tokens_per_s']:.0f} tokens/s, two ranks of one thread "
          f"{two['tokens_per_s']:.0f}: {share:.3f} of it; exchange {two['exchange_share']:.2%} of a step")

    found = []
    for ranks in (2, 4):
        for rank in (8, 64, 256):
            # Batches are small: the exchange does not depend on them.
            found.append(bench(args.lora, ranks, 1, [*shape, "--rank", str(rank), "--batch-size", "1", "--max-length", "32"]))
    fitted = [f for f in found if f["ranks"] <= (os.cpu_count() or 1)]
    rows = [[2 * (f["ranks"] - 1), f["sent_mib"] * 2**20] for f in fitted]
    latency, host = (max(0.0, value) for value in solve(rows, [f["exchange_s"] for f in fitted]))

    def model(ranks, sent, message=0.0):
        return 2 * (ranks - 1) * (latency + message) + host * sent

    print("\n| ranks | sent by each, MiB | exchange, ms | model, ms |\n| --- | --- | --- | --- |")
    for f in found:
        expected = f"{model(f['ranks'], f['sent_mib'] * 2**20) * 1e3:.2f}" if f in fitted else "more ranks than cores"
        print(f"| {f['ranks']:.0f} | {f['sent_mib']:.2f} | {f['exchange_s'] * 1e3:.2f} | {expected} |")
    print(f"\n{latency * 1e6:.1f} µs for a message, {host * 2**30:.3f} s for a GiB\n")

    print("| model | ranks | sent by each, MiB | " + " | ".join(f"at {gbit} Gbit/s, ms" for gbit in NETWORKS) + " |")
    print("| --- | --- | --- |" + " --- |" * len(NETWORKS))
    for name, trained in MODELS.items():
        for ranks in RANKS:
            sent = 2 * trained * 4 * (ranks - 1) / ranks
            cells = []
            for gbit, message in NETWORKS.items():
                if ranks <= PER_MACHINE:
                    seconds = model(ranks, sent)
                else:
                    seconds = model(ranks, sent, message) + sent * 8 * PER_MACHINE / (gbit * 1e9)
                cells.append(f"{seconds * 1e3:.0f}")
            print(f"| {name} | {ranks} | {sent / 2**20:.1f} | {' | '.join(cells)} |")
    if args.out:
        with open(args.out, "w") as file:
            json.dump({"one": one, "two": two, "exchange": found, "latency": latency, "host": host}, file, indent=1)


if __name__ == "__main__":
    main()
