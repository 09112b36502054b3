"""Tasks of this benchmark: their published files and their scores.

The files have no quoting: a quotation mark is data, and columns end at tabs.
"""

from pathlib import Path

TASKS = ("sst2", "cola", "mrpc")


def rows(path: Path, columns: int):
    """Reads the rows of a file without a header, each with the columns of the layout."""
    text = path.read_text(encoding="utf-8-sig")
    for number, line in enumerate(text.rstrip("\n").split("\n"), start=1):
        row = line.rstrip("\r").split("\t")
        if len(row) != columns:
            raise SystemExit(f"{path}:{number}: {len(row)} columns, expected {columns}")
        yield row


def sst2(path: Path):
    """Reads rows of `sentence, label`."""
    return [{"sentence": text, "label": int(label)} for text, label in rows(path, 2)]


def cola(path: Path):
    """Reads rows of `source, label, the authors' mark, sentence`."""
    return [{"sentence": text, "label": int(label)} for _, label, _, text in rows(path, 4)]


def mrpc(path: Path):
    """Reads rows of `Quality, #1 ID, #2 ID, #1 String, #2 String`, with that header."""
    header, *pairs = rows(path, 5)
    if header != ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]:
        raise SystemExit(f"{path}:1: not the header of the paraphrase corpus: {header}")
    return [{"sentence1": first, "sentence2": second, "label": int(label)} for label, _, _, first, second in pairs]


def read(task: str, data: Path):
    """Returns the training and evaluation examples of a task."""
    if task == "sst2":
        return sst2(data / "SST-2/train.tsv"), sst2(data / "SST-2/dev.tsv")
    if task == "cola":
        folder = data / "CoLA"
        dev = cola(folder / "in_domain_dev.tsv") + cola(folder / "out_of_domain_dev.tsv")
        return cola(folder / "in_domain_train.tsv"), dev
    folder = data / "MRPC"
    return mrpc(folder / "msr_paraphrase_train.txt"), mrpc(folder / "msr_paraphrase_test.txt")


def score(task: str, metrics: dict) -> float:
    """Returns the GLUE score of a task."""
    if task == "sst2":
        return metrics["accuracy"]
    if task == "cola":
        return metrics["matthews_correlation"]
    return (metrics["accuracy"] + metrics["f1"]) / 2
