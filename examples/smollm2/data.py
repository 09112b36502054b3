#!/usr/bin/env python3
"""Writes the shipped part of the E2E NLG Challenge as conversations: OUT/train.jsonl and OUT/valid.jsonl.

    python3 examples/smollm2/data.py OUT
"""

import argparse
import json
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data/e2e"
REQUEST = "Describe the restaurant in one sentence: "
# Descriptions to train on, and restaurants to evaluate on; the first of these are not among the former.
TRAIN, HELD_OUT = 1600, 40


def rows(name):
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [tuple(part.strip() for part in line.split("||")) for line in lines]


def conversation(meaning, text):
    return {"messages": [{"role": "user", "content": REQUEST + meaning}, {"role": "assistant", "content": text}]}


def put(path, objects):
    lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in objects)
    path.write_text("".join(lines), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    args = parser.parse_args()
    args.path.mkdir(parents=True, exist_ok=True)
    train, held_out = rows("train.txt"), rows("held_out.txt")
    step = len(train) / TRAIN
    put(args.path / "train.jsonl", (conversation(*train[int(at * step)]) for at in range(TRAIN)))
    meanings = list(dict.fromkeys(meaning for meaning, _ in held_out))[:HELD_OUT]
    put(args.path / "valid.jsonl", (conversation(*row) for row in held_out if row[0] in meanings))


if __name__ == "__main__":
    main()
