"""Generates the labelled sentences in this folder from the slice of the E2E NLG Challenge.

    python make.py

A sentence describes a restaurant; its label is `family friendly : yes` or `no` in its meaning representation.
`train.jsonl` is taken from `../e2e/train.txt` and `eval.jsonl` from `../e2e/held_out.txt`, which share no meaning
representation: equally many sentences of each label, spread over the file, without duplicates. A second run writes the
same bytes. Needs only Python.
"""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "e2e"
LABELS = ("yes", "no")
# Number of sentences of each label.
FILES = {"train": ("train.txt", 300), "eval": ("held_out.txt", 100)}


def labelled(path, taken):
    """Returns the labelled sentences of a file in order, except those in `taken`, and adds them to `taken`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        meaning, _, text = line.partition("||")
        text = text.strip()
        for label in LABELS:
            if f"family friendly : {label}" in meaning and text not in taken:
                taken.add(text)
                yield text, label


def spread(examples, count):
    """Selects `count` sentences of each label at equal distances, in their order."""
    chosen = set()
    for label in LABELS:
        places = [place for place, (_, found) in enumerate(examples) if found == label]
        if len(places) < count:
            raise SystemExit(f"only {len(places)} sentences with the label {label}, expected {count}")
        chosen.update(places[index * len(places) // count] for index in range(count))
    return [examples[place] for place in sorted(chosen)]


def main():
    taken = set()
    for name, (source, count) in FILES.items():
        examples = spread(list(labelled(SOURCE / source, taken)), count)
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in examples]
        (HERE / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        print(f"{name}.jsonl: {len(lines)} sentences")


if __name__ == "__main__":
    main()
