"""Cuts the two slices in this folder out of the E2E NLG Challenge's files.

    python slice.py path/to/e2e

The directory holds `valid.txt` and `test.txt`, one `meaning representation||reference` a line. `train.txt` is what of
the validation split has a meaning representation that `held_out.txt` does not have; `held_out.txt` is a spread over the
test split. Meaning representations are taken or left with all their references, and lines are copied byte for byte, so
a second run writes the same bytes. Nothing but Python is needed.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# One meaning representation of the test split in this many, of those with at least so many references: BLEU is only fair
# to a sentence that can be said in many ways if several ways are known.
EVERY = 5
MIN_REFERENCES = 4
DELIMITER = b"||"


def groups(path):
    """The lines of each meaning representation, in the order of its first line."""
    found = {}
    for line in path.read_bytes().splitlines(keepends=True):
        meaning, _, _ = line.partition(DELIMITER)
        found.setdefault(meaning.strip(), []).append(line)
    return found


def write(name, chosen):
    lines = [line for group in chosen.values() for line in group]
    (HERE / name).write_bytes(b"".join(lines))
    print(f"{name}: {len(chosen)} meaning representations, {len(lines)} references")


def main(source):
    several = [item for item in groups(source / "test.txt").items() if len(item[1]) >= MIN_REFERENCES]
    held_out = dict(several[::EVERY])
    train = groups(source / "valid.txt")
    write("train.txt", {meaning: lines for meaning, lines in train.items() if meaning not in held_out})
    write("held_out.txt", held_out)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
