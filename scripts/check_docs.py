#!/usr/bin/env python3
"""Counts documentation blocks that a reader cannot understand without the code below them, and checks the tables of files.

    scripts/check_docs.py [--list] [--limit PERCENT] [FOLDER ...]

A block is a run of `///` or `//!` lines. It counts if it opens with a clause that has no head (What, Which, Whether, How, Where,
Who, Whose, Of, Those, None), or if its first sentence is a bare pronoun ("It."). Exits with 1 where more than PERCENT (2) of
the blocks do; `--list` prints each with its place.

A table with the column `file` in the documentation of a `mod.rs` must name every file of its folder, and no other.
"""

import argparse
import re
import sys
from pathlib import Path

HEADLESS = re.compile(r"(?:What|Which|Whether|How|Where|Who|Whose|Of|Those|None)\b(?![`:])")
PRONOUN = re.compile(r"(?:And |As )?(?:It|They|Them|This|That|These|Its|Theirs|His|One|The same|The other|The latter|As above)[.,;:]?$")
MARKER = re.compile(r"\s*//[/!](?!/)\s?(.*)")


def blocks(file):
    """Yields each block's first line number and first paragraph."""
    start, lines = 0, []
    for number, line in enumerate([*file.read_text().splitlines(), ""], 1):
        match = MARKER.match(line)
        if match:
            if not lines:
                start = number
            lines.append(match[1].strip())
        elif lines:
            text = " ".join(lines).strip()
            lines = []
            if text:
                yield start, text


def is_headless(text):
    sentence = re.split(r"(?<=[.:])\s", text, maxsplit=1)[0].rstrip(".")
    return bool(HEADLESS.match(text) or PRONOUN.match(sentence))


def files_in_tables(text):
    """Returns the names in the columns `file` of the tables in a module's documentation; None without such a table."""
    names, column = None, None
    for line in text.splitlines():
        match = MARKER.match(line)
        row = match[1].strip() if match else ""
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        if not cells:
            column = None
        elif "file" in cells:
            column, names = cells.index("file"), names or set()
        elif column is not None:
            names.update(name.removesuffix(".rs") for name in re.findall(r"`([\w.]+)`", cells[column]))
    return names


def wrong_tables(root):
    """Yields a message for each folder whose table of files differs from its files."""
    for file in sorted(root.glob("*/src/**/mod.rs")):
        names = files_in_tables(file.read_text())
        if names is not None:
            found = {path.stem for path in file.parent.iterdir() if path.is_dir() or path.suffix == ".rs"} - {"mod", "tests"}
            for title, difference in [("lacks", found - names), ("names, but there is no", names - found - {"mod", "tests"})]:
                if difference:
                    yield f"{file.relative_to(root)}: its table {title} {', '.join(sorted(difference))}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--limit", type=float, default=2.0)
    parser.add_argument("folders", nargs="*")
    options = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    folders = [Path(folder) for folder in options.folders] or [root]
    total = bad = 0
    for folder in folders:
        for file in sorted(folder.rglob("*.rs")):
            if {"target", "out"} & set(file.relative_to(folder).parts[:-1]):
                continue
            for number, text in blocks(file):
                total += 1
                if is_headless(text):
                    bad += 1
                    if options.list:
                        print(f"{file}:{number}: {text[:110]}")
    share = 100 * bad / max(total, 1)
    print(f"{bad} of {total} documentation blocks ({share:.1f} %) open without a head; the limit is {options.limit:g} %")
    wrong = list(wrong_tables(root))
    print("\n".join(wrong) or "every table of files is complete")
    sys.exit(bool(wrong) or share > options.limit)


main()
