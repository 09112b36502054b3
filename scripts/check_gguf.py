#!/usr/bin/env python3
"""Checks GGUF files with llama.cpp itself: a base in f16 and its adapter compute there what they compute here.

    pip install llama-cpp-python
    scripts/check_gguf.py --lora target/release/lora --model DIR --adapter DIR

Writes both files, and compares tokens, the loss of each text with and without the adapter, and greedy continuations, which may
part only where the base in f16 does. DIR is a Llama, Qwen 2 or 3 or GPT-2 with a tokenizer of BPE over bytes.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np

TEXTS = [
    "The capital of France is Paris, and its river is the Seine.",
    "name : The Punter | food : Italian | area : riverside || The Punter serves Italian food near the river.",
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)",
    "In 2016, 1234567 people — about 3.5 % — voted for it; naïve, isn't it?",
]
PROMPTS = ["The capital of France is", "name : The Punter | food : Italian ||", "def fibonacci(n):\n"]
NEW_TOKENS = 24
# Differences of a mean loss: products of llama.cpp round activations to f16 too.
TOLERANCE = 5e-3


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def loss(model, ids):
    """Mean negative log-likelihood of all tokens but the first."""
    model.reset()
    model.eval(ids)
    logits = np.array(model.scores[: len(ids) - 1], dtype=np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(ids) - 1), ids[1:]] - np.log(np.exp(logits).sum(axis=1))
    return -chosen.mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lora", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    args = parser.parse_args()
    worst, same, compared = 0.0, 0, 0
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        run(args.lora, "merge", "--model", args.model, "--to", "gguf", "--dtype", "f16", "--verify", "--output", work / "base")
        run(args.lora, "convert", args.adapter, "--to", "gguf", "--model", args.model, "--output", work / "adapter")
        data = work / "texts.jsonl"
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        for adapter in (None, args.adapter):
            own = ["--adapter", adapter] if adapter else []
            theirs = dict(lora_path=str(work / "adapter/adapter.gguf")) if adapter else {}
            model = llama_cpp.Llama(str(work / "base/model.gguf"), n_ctx=512, logits_all=True, verbose=False, **theirs)
            predictions = work / "losses.jsonl"
            run(args.lora, "eval", "--model", args.model, *own, "--data", data, "--predictions", predictions, "--overwrite")
            for text, line in zip(TEXTS, predictions.read_text().splitlines(), strict=True):
                ids = model.tokenize(text.encode(), add_bos=True, special=False) + [model.token_eos()]
                found, expected = loss(model, ids), json.loads(line)["loss"]
                worst = max(worst, abs(found - expected))
                if not math.isclose(found, expected, abs_tol=TOLERANCE):
                    sys.exit(f"{text!r} with {adapter}: loss {found} in llama.cpp, {expected} here")
            for prompt in PROMPTS:
                command = ["generate", "--model", args.model, *own, "--prompt", prompt, "--max-new-tokens", NEW_TOKENS]
                expected = run(args.lora, *command, "--quiet")
                found = model.create_completion(prompt, max_tokens=NEW_TOKENS, temperature=0.0)["choices"][0]["text"]
                compared += 1
                same += (prompt + found).strip() == expected.strip()
    print(f"losses differ by {worst:.1e} at most; {same} of {compared} greedy texts are the same")
    if same < compared - 1:
        sys.exit("more than one greedy text differs")


if __name__ == "__main__":
    main()
