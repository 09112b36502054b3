#!/usr/bin/env python3
"""Repeats tables and figures of the LoRA paper (arXiv 2106.09685) at the scale of two cores, one name for each.

    python3 examples/paper/paper.py encoders --model MINILM --glue GLUE    # table 2: methods on SST-2, CoLA and MRPC
    python3 examples/paper/paper.py decoder --dart DART --webnlg WEBNLG    # table 3: methods on E2E, DART and WebNLG
    python3 examples/paper/paper.py targets --model MINILM --glue GLUE     # table 5: matrices to adapt under one budget
    python3 examples/paper/paper.py ranks --model MINILM --glue GLUE       # table 6: ranks
    python3 examples/paper/paper.py subspaces --model MINILM --glue GLUE   # figures 3 and 4: similarity of subspaces
    python3 examples/paper/paper.py amplification --model MINILM --glue GLUE   # table 7: updates against weights

README.md in this folder says where models and data are published. Every training is a run of `lora sweep`; a run that is
complete is not repeated, so the same command continues where it was stopped. After each run, OUT/NAME.md and OUT/NAME.json have
the results so far; OUT/analysis has all numbers of `lora analyze` and its figures. `--quick` shows in seconds that everything works: two steps on the models and data of this repository.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent
PROGRAM = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release/lora"
# Seed of the drawn evaluation data; the same for all methods.
DRAW = 17


@dataclass
class Task:
    """Data of a table, and the scores in it by their names in the results."""

    name: str
    options: list
    scores: dict
    # Training examples, passes over them, and examples to evaluate on; a decoder is evaluated on so many prompts.
    examples: int
    epochs: int
    evaluated: int


@dataclass
class Row:
    """Method of a table. Rows with the same folder share their runs."""

    name: str
    folder: str
    options: list = field(default_factory=list)


GLUE = [
    Task("sst2", ["--task", "glue/sst2"], {"accuracy": "SST-2, accuracy"}, 1000, 1, 400),
    Task("cola", ["--task", "glue/cola"], {"matthews_correlation": "CoLA, Matthews"}, 3000, 1, 400),
    Task("mrpc", ["--task", "glue/mrpc"], {"accuracy": "MRPC, accuracy", "f1": "MRPC, F1"}, 1500, 1, 400),
]
# Files as their authors publish them, and as GLUE does: training, evaluation.
GLUE_FILES = {
    "sst2": ("SST-2", [("train.tsv", "dev.tsv")]),
    "cola": ("CoLA", [("in_domain_train.tsv", "in_domain_dev.tsv"), ("train.tsv", "dev.tsv")]),
    "mrpc": ("MRPC", [("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"), ("train.tsv", "dev.tsv")]),
}
FAMILY = Task("family", ["--task", "classification"], {"accuracy": "family, accuracy"}, 600, 1, 16)
TEXTS = {"bleu": "BLEU", "nist": "NIST", "rouge_l": "ROUGE-L", "cider": "CIDEr", "ter": "TER"}
NLG = [Task(name, ["--format", name], TEXTS, 800, 1, 40) for name in ("e2e", "dart", "webnlg")]
NLG_FILES = [("dart-v1.1.1-full-train.json", "dart-v1.1.1-full-dev.json"), ("train.json", "dev.json"), ("dev.json", None)]


def lora(rank: int, targets: str, lr: str) -> Row:
    """Returns a row with LoRA. Alpha is the same for all ranks, as in the paper."""
    name = f"LoRA, r = {rank}, {targets}"
    options = ["--method", "lora", "--rank", rank, "--alpha", 16, "--targets", targets, "--lr", lr]
    return Row(name, f"lora-{rank}-{targets}", options)


def method(name: str, method: str, lr: str, *options) -> Row:
    """Returns a row with another method."""
    return Row(name, method, ["--method", method, "--lr", lr, *options])


# Sizes for 74,000 parameters beside the head, except full fine-tuning, biases and embeddings.
ENCODER = [
    method("full fine-tuning", "full", "1e-4"),
    method("BitFit", "bitfit", "3e-3"),
    method("AdapterH, size 8", "adapter-h", "3e-3", "--adapter-size", 8),
    method("AdapterL, size 16", "adapter-l", "3e-3", "--adapter-size", 16),
    method("AdapterP, size 16", "adapter-p", "3e-3", "--adapter-size", 16),
    method("prefix, 16 keys and values", "prefix", "1e-2", "--virtual-tokens", 16),
    method("prefix, 32 embeddings", "prompt", "3e-2", "--virtual-tokens", 32),
    lora(8, "query,value", "3e-3"),
]
# Sizes for 14,000 to 17,000 parameters, except full fine-tuning, the top layers and embeddings.
DECODER = [
    method("full fine-tuning", "full", "1e-3"),
    method("top 2 layers", "top2", "1e-3"),
    method("AdapterL, size 8", "adapter-l", "5e-3", "--adapter-size", 8),
    method("AdapterH, size 4", "adapter-h", "5e-3", "--adapter-size", 4),
    method("prefix-embedding, 32", "prompt", "3e-2", "--virtual-tokens", 32),
    method("prefix-layer, 16", "prefix-layer", "1e-2", "--virtual-tokens", 16),
    lora(4, "c_attn[q,v]", "5e-3"),
]
RANKS = [lora(rank, "query,value", "3e-3") for rank in (1, 2, 4, 8, 64)]
OUTPUT = "attention.output.dense"
TARGETS = [
    lora(8, "query", "3e-3"),
    lora(8, "key", "3e-3"),
    lora(8, "value", "3e-3"),
    lora(8, OUTPUT, "3e-3"),
    lora(4, "query,key", "3e-3"),
    lora(4, "query,value", "3e-3"),
    lora(2, f"query,key,value,{OUTPUT}", "3e-3"),
]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=TABLES, metavar="NAME", help=f"one or several of {', '.join(TABLES)}")
    parser.add_argument("--model", type=Path, help="pretrained BERT for the tables on GLUE, such as all-MiniLM-L6-v2")
    parser.add_argument("--glue", type=Path, help="directory with SST-2, CoLA and MRPC")
    parser.add_argument("--dart", type=Path, help="directory with the files of DART")
    parser.add_argument("--webnlg", type=Path, help="directory with the files of WebNLG")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="tasks of the table [default: all]")
    parser.add_argument("--out", type=Path, default=Path("out/paper"))
    parser.add_argument("--lora", type=Path, default=PROGRAM, help="the program")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="all of the data, three passes, beam search with 10 beams")
    parser.add_argument("--show", action="store_true", help="print the results so far, and train nothing")
    parser.add_argument("--page", type=Path, help="also put all results so far below their marks, `<!-- NAME -->`, in this file")
    parser.add_argument("--quick", action="store_true", help="two steps and one seed, without other models and data")
    args = parser.parse_args()
    if not args.lora.is_file():
        parser.error(f"--lora {args.lora}: no such file; build it with `cargo build --release`")
    if args.quick:
        args.seeds, args.model = 1, EXAMPLES / "models/tiny-bert"
    elif any(TABLES[name] is not decoder for name in args.tables) and not (args.model and args.glue):
        parser.error("these tables need --model and --glue; README.md beside this program says where to get them")
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def run(args, *command, output=sys.stderr):
    """Runs the program, and returns its exit status and what it printed, if `output` is a pipe."""
    command = [str(part) for part in (args.lora.resolve(), *command)]
    print("+", " ".join(command), file=sys.stderr)
    with subprocess.Popen(command, stdout=output, text=True) as process:
        while True:
            try:
                printed, _ = process.communicate()
                return process.returncode, printed
            except KeyboardInterrupt:
                # The program has it too, and ends by itself.
                continue


def keep(path: Path, text: str) -> Path:
    """Writes a file if it has another content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def put(args, name: str, lines, numbers, indent=None) -> str:
    """Writes a table as Markdown, and its numbers as JSON. Returns the table."""
    text = "\n".join(lines) + "\n"
    keep(args.out / f"{name}.md", text)
    keep(args.out / f"{name}.json", json.dumps(numbers, indent=indent) + "\n")
    return text


def files_in(folder: Path, names):
    """Returns the first pair of files that the directory has."""
    for pair in names:
        found = [folder / name if name else None for name in pair]
        if all(path is None or path.is_file() for path in found):
            return found
    expected = " or ".join(" and ".join(filter(None, pair)) for pair in names)
    sys.exit(f"{folder}: expected {expected}")


def glue_data(args, task: Task):
    """Returns training and evaluation file of a task of GLUE, with rows drawn from the second."""
    if task is FAMILY:
        train, dev = EXAMPLES / "data/family/train.jsonl", EXAMPLES / "data/family/eval.jsonl"
    else:
        folder, names = GLUE_FILES[task.name]
        train, dev = files_in(args.glue / folder, names)
    if args.whole:
        return train, dev
    header, rows = [], dev.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    if rows[0].startswith(("sentence\t", "Quality\t")):
        header, rows = rows[:1], rows[1:]
    chosen = sorted(random.Random(DRAW).sample(range(len(rows)), min(task.evaluated, len(rows))))
    text = "".join(header + [rows[at] for at in chosen])
    return train, keep(args.out / "data" / f"{task.name}{dev.suffix}", text)


def nlg_data(args, task: Task):
    """Returns training and evaluation file of a task of generation.

    Evaluation prompts are drawn, with all of their references. A single file is cut in two. The small model reads 256 tokens, so that
    records of DART and WebNLG have at most three triples here.
    """
    folder = args.out / "data"
    draw = random.Random(DRAW)
    if task.name == "e2e":
        train, dev = EXAMPLES / "data/e2e/train.txt", EXAMPLES / "data/e2e/held_out.txt"
        if args.whole:
            return train, dev
        lines = dev.read_text(encoding="utf-8").splitlines(keepends=True)
        prompts = list(dict.fromkeys(line.split("||")[0] for line in lines))
        chosen = set(draw.sample(prompts, min(task.evaluated, len(prompts))))
        return train, keep(folder / "e2e.txt", "".join(line for line in lines if line.split("||")[0] in chosen))
    given = getattr(args, task.name)
    if not given:
        sys.exit(f"--{task.name} is missing: give the directory with its files, or leave {task.name} out with --tasks")
    train, dev = files_in(given, NLG_FILES)
    if args.whole and dev:
        return train, dev
    train, dev = (path and records(path) for path in (train, dev))
    if not args.whole:
        train, dev = (part and [record for record in part if triples(record) <= 3] for part in (train, dev))
    if dev is None:
        draw.shuffle(train)
        train, dev = train[len(train) // 10 :], train[: len(train) // 10]
    if not args.whole:
        dev = draw.sample(dev, min(task.evaluated, len(dev)))
    write = lambda part: json.dumps({"entries": part} if task.name == "webnlg" else part, ensure_ascii=False)
    return keep(folder / f"{task.name}-train.json", write(train)), keep(folder / f"{task.name}.json", write(dev))


def records(path: Path):
    """Reads the records of a file of DART or WebNLG."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["entries"] if isinstance(found, dict) else found


def triples(record: dict) -> int:
    """Returns the number of triples of a record of DART or WebNLG."""
    if "tripleset" in record:
        return len(record["tripleset"])
    (entry,) = record.values()
    return len(entry["modifiedtripleset"])


def train(args, recipe: str, task: Task, row: Row, data, seeds: int):
    """Trains a row on as many seeds as are not yet complete; returns the runs and their number of parameters."""
    folder = args.out / "runs" / task.name / row.folder.replace("[", "-").replace("]", "")
    sizes = ["--epochs", 3] if args.whole else ["--epochs", task.epochs, "--max-examples", task.examples]
    if args.quick:
        sizes = ["--max-steps", 2, "--max-examples", 16, *([] if recipe == "decoder" else ["--max-length", 64])]
    model = EXAMPLES / "models/wiki-gpt2" if recipe == "decoder" else args.model
    status = 0
    if not args.show:
        status, _ = run(
            args, "sweep", HERE / f"{recipe}.toml", "--model", model, "--data", data[0], "--eval-data", data[1], "--output", folder,
            "--seeds", seeds, "--resume", "--quiet", *task.options, *sizes, *row.options,
        )  # fmt: skip
    if not (folder / "sweep.json").exists():
        if status:
            sys.exit(f"exit status {status}")
        return folder, [], None
    found = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    # A run that failed is told by the program, and is not in the table.
    if status > 1 or found["interrupted"] and not args.show:
        sys.exit(f"exit status {status}; the same command continues")
    return folder, [run for run in found["runs"] if run["state"] == "complete"], found["groups"][0]["parameters"]


def texts(args, task: Task, folder: Path, row: Row, one: dict, data):
    """Returns the scores of the texts of a run: generated once, and kept."""
    path = folder / f"texts-{one['seed']}.json"
    if not path.exists():
        if args.show:
            return {}
        where = folder / "runs" / Path(one["dir"]).name
        source = ["--model", where / "model"]
        if not (where / "model").is_dir():
            source = ["--model", EXAMPLES / "models/wiki-gpt2", "--adapter", where / "adapter"]
        search = ["--beams", 10, "--length-penalty", 0.8, "--no-repeat-ngram", 4] if args.whole else []
        status, printed = run(
            args, "eval", *source, "--data", data[1], *task.options, "--generate", "--quiet",
            "--max-new-tokens", 8 if args.quick else 48, *search, output=subprocess.PIPE,
        )  # fmt: skip
        if status:
            sys.exit(f"exit status {status}; the same command continues")
        rows = (line.split() for line in printed.splitlines())
        keep(path, json.dumps({name: float(value) for name, value in rows}) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))


def tabulate(args, name: str, title: str, tasks, rows, results):
    """Writes the results so far as Markdown and JSON."""
    scores = [(task, key, label) for task in tasks for key, label in task.scores.items()]
    many = len(tasks) > 1 and tasks[0].scores is TEXTS
    heads = [f"{task.name} {label}" if many else label for task, _, label in scores]
    lines = [f"| {title} | parameters | {' | '.join(heads)} |", "| --- |" + " --- |" * (len(heads) + 1)]
    kept = []
    for row in rows:
        cells, parameters = [], None
        for task, key, label in scores:
            count, values = results.get((row.folder, task.name), (None, []))
            parameters = parameters or count
            found = [value[key] for value in values if value.get(key) is not None]
            percent = 1 if task.scores is TEXTS else 100
            found = [percent * value for value in found]
            cells.append(spread(found))
            kept.append({"row": row.name, "task": task.name, "score": key, "values": found, "parameters": count})
        lines.append(f"| {row.name} | {parameters:,} | {' | '.join(cells)} |" if parameters else f"| {row.name} | | {' | '.join(cells)} |")
    return put(args, name, lines, kept, indent=1)


def spread(values) -> str:
    """Formats mean and sample standard deviation, with the number of runs."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation} ({len(values)})"


def table(args, name: str, title: str, recipe: str, tasks, rows):
    """Trains rows on tasks, one seed after another, and prints the table."""
    if args.tasks:
        if unknown := set(args.tasks) - {task.name for task in tasks}:
            sys.exit(f"--tasks {' '.join(unknown)}: {name} has {' '.join(task.name for task in tasks)}")
        tasks = [task for task in tasks if task.name in args.tasks]
    find = nlg_data if recipe == "decoder" else glue_data
    data = {task.name: find(args, task) for task in tasks}
    results, text = {}, ""
    for seeds in range(args.seeds if args.show else 1, args.seeds + 1):
        for task in tasks:
            # LoRA first: with a few runs there is something to compare.
            for row in reversed(rows):
                folder, runs, parameters = train(args, recipe, task, row, data[task.name], seeds)
                if recipe == "decoder":
                    values = [texts(args, task, folder, row, one, data[task.name]) for one in runs]
                else:
                    values = [one["metrics"] for one in runs]
                results[row.folder, task.name] = (parameters, values)
                text = tabulate(args, name, title, tasks, rows, results)
    print(text, end="")


def encoder_tasks(args):
    return [FAMILY] if args.quick else GLUE


def encoders(args):
    table(args, "encoders", "method", "encoder", encoder_tasks(args), ENCODER)


def decoder(args):
    tasks = [Task("e2e", NLG[0].options, TEXTS, 16, 1, 2)] if args.quick else NLG
    table(args, "decoder", "method", "decoder", tasks, DECODER)


def targets(args):
    table(args, "targets", "matrices", "encoder", encoder_tasks(args)[:1], TARGETS)


def ranks(args):
    table(args, "ranks", "rank", "encoder", encoder_tasks(args)[:1], RANKS)


def adapters(args, row: Row, seeds: int):
    """Trains a row on the first task; returns its adapters in the order of the seeds."""
    task = encoder_tasks(args)[0]
    folder, runs, _ = train(args, "encoder", task, row, glue_data(args, task), seeds)
    runs = sorted(runs, key=lambda one: one["seed"])
    if len(runs) < seeds:
        sys.exit(f"{row.name}: {len(runs)} of {seeds} runs are complete")
    return [folder / "runs" / Path(one["dir"]).name / "adapter" for one in runs]


def analyze(args, name: str, adapter: Path, against=None, *options):
    """Analyzes an adapter; returns the numbers."""
    path = args.out / "analysis" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    if not (args.show and path.exists()):
        other = ["--against", against] if against else []
        status, _ = run(args, "analyze", "--model", args.model, "--adapter", adapter, *other, "--json", path, "--overwrite", *options)
        if status:
            sys.exit(f"exit status {status}")
    return json.loads(path.read_text(encoding="utf-8"))


def subspaces(args):
    """Writes φ(i, j) of ranks 8 and 64, and of two seeds, as means over the layers.

    The two adapters of a pair have different seeds, so that their factors do not start from the same random numbers.
    """
    small, large = adapters(args, RANKS[3], 1), adapters(args, RANKS[4], 2)
    pairs = {"ranks 8 and 64": (small[0], large[1]), "two seeds, rank 64": (large[0], large[1])}
    lines = ["| adapters | matrix | i | j | φ of A | φ of B | random |", "| --- | --- | --- | --- | --- | --- | --- |"]
    kept = []
    for name, (first, second) in pairs.items():
        file = "subspaces-" + name.replace(", ", "-").replace(" ", "-")
        figures = args.out / "analysis" / f"{file}-figures"
        found = analyze(args, file, first, second, "--svg", figures)
        for kind in ("query", "value"):
            chosen = [m["similarity"] for m in found["matrices"] if m["similarity"] and f".{kind}" in m["matrix"]]
            for i, j in ((1, 1), (1, 8), (8, 8), (8, 64), (64, 64)):
                rows = [[grid(one[part], i, j) for part in ("a", "b", "random")] for one in chosen]
                if rows and all(row[0] is not None for row in rows):
                    means = [statistics.mean(values) if None not in values else None for values in zip(*rows)]
                    kept.append({"adapters": name, "matrix": kind, "i": i, "j": j, "a_b_random": means, "layers": rows})
                    shown = " | ".join("-" if value is None else f"{value:.3f}" for value in means)
                    lines.append(f"| {name} | {kind} | {i} | {j} | {shown} |")
    print(put(args, "subspaces", lines, kept), end="")


def grid(values, i: int, j: int):
    """Returns φ(i, j); `None` beyond the ranks."""
    if not values or len(values) < i or len(values[0]) < j:
        return None
    return values[i - 1][j - 1]


def amplification(args):
    """Writes ‖UᵀWVᵀ‖ for the directions of updates, of the weight and of random matrices, as means over the layers."""
    lines = [
        "| rank | matrix | ‖W‖ | ‖ΔW‖ | ΔW's directions | W's own | random | amplification, mean | by layer |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    kept = []
    for row in (RANKS[2], RANKS[4]):
        rank = row.options[3]
        found = analyze(args, f"amplification-{rank}", adapters(args, row, 1)[0])
        for kind in ("query", "value"):
            chosen = [m for m in found["matrices"] if f".{kind}" in m["matrix"]]
            updates = [m["updates"][0] for m in chosen]
            # All directions of the update, as in the paper.
            all_of = [max(update["between"], key=lambda one: one["directions"]) for update in updates]
            columns = [
                [m["weight_norm"] for m in chosen],
                [update["norm"] for update in updates],
                *([one[key] for one in all_of] for key in ("update", "weight", "random", "amplification")),
            ]
            kept.append({"rank": rank, "matrix": kind, "weight_norm": columns[0], "update_norm": columns[1], "between": all_of})
            shown = [f"{statistics.mean(values):.2f}" if None not in values else "-" for values in columns]
            layers = ", ".join("-" if value is None else f"{value:.1f}" for value in columns[-1])
            lines.append(f"| {rank} | {kind} | {' | '.join(shown)} | {layers} |")
    print(put(args, "amplification", lines, kept), end="")


TABLES = {
    "encoders": encoders,
    "decoder": decoder,
    "targets": targets,
    "ranks": ranks,
    "subspaces": subspaces,
    "amplification": amplification,
}


def fill(args):
    """Puts the tables that are there into a page: each between `<!-- NAME -->` and the next empty line."""
    text = args.page.read_text(encoding="utf-8")
    for path in sorted(args.out.glob("*.md")):
        mark = f"<!-- {path.stem} -->\n"
        if mark in text:
            before, after = text.split(mark)
            if after.startswith("|"):
                _, _, after = after.partition("\n\n")
            text = f"{before}{mark}{path.read_text(encoding='utf-8')}\n{after.lstrip()}"
    keep(args.page, text)


def main():
    args = parse()
    for name in args.tables:
        TABLES[name](args)
    if args.page:
        fill(args)


if __name__ == "__main__":
    main()
