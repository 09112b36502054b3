"""Extracts the two slices in this folder from the files of the E2E NLG Challenge.

    python slice.py path/to/e2e

The directory holds `valid.txt` and `test.txt`, with one `meaning representation||reference` per line. `held_out.txt` is
a sample spread over the test split. `train.txt` is the validation split without the meaning representations in
`held_out.txt`. A meaning representation keeps all its references, and lines are copied byte for byte, so a second run
writes the same bytes. Needs only Python.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Every N-th meaning representation of the test split with at least so many references: BLEU is fair only with several
# references.
EVERY = 5
MIN_REFERENCES = 4
DELIMITER = b"||"


def groups(path):
    """Groups the lines by meaning representation, in the order of the first line of each."""
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
