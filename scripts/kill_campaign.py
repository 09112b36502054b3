"""Kills the program with SIGKILL at random moments, in every command that writes, and asserts that nothing is lost: each output
is the old one or the new one, complete and readable; an interrupted training resumes with the same numbers to the bit; and the
next run removes what the killed one left behind.

    cargo build --release
    python scripts/kill_campaign.py                         100 kills
    python scripts/kill_campaign.py --kills 500 --seed 7    more, at other moments

Needs only Python and a POSIX system. The models are those of the tests, so that a run takes less than a second. Half of the kills
are at any moment of a run; the others follow a change in the output directory, because most of a run writes nothing. Prints a
table in Markdown.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GPT2 = ROOT / "lora-models/tests/fixtures/gpt2_tied"
TEXTS = ROOT / "lora-train/tests/fixtures/train20/train.jsonl"
BERT = ROOT / "lora-train/tests/fixtures/classify/models/bert"
VOCABULARY = ROOT / "lora-models/tests/fixtures/tokenizer_families/files/bert.txt"
COLA = ROOT / "lora-train/tests/fixtures/glue/glue/cola"
LEFTOVERS = (".lora-", ".lock", ".previous")
# Longest wait for a run, in seconds.
LIMIT = 600


class Lost(AssertionError):
    """What must not happen."""


class Program:
    """The program, run to its end or killed."""

    def __init__(self, path, randomness):
        self.path = str(path)
        self.random = randomness

    def run(self, *args, code=0):
        command = [self.path, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        if code is not None and done.returncode != code:
            raise Lost(f"exit code {done.returncode}, not {code}: {' '.join(command)}\n{done.stderr}")
        return done

    def killed(self, args, watched, seconds):
        """Starts a run and kills it at a random moment. Returns false if it had ended before."""
        process = subprocess.Popen([self.path, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self.random.random() < 0.5:
            time.sleep(self.random.uniform(0.0, seconds))
        else:
            # After one of the first changes of the output, and then at once or a little later.
            changes, before = self.random.randint(1, 12), names(watched)
            end = time.monotonic() + 2 * seconds
            while changes and process.poll() is None and time.monotonic() < end:
                now = names(watched)
                changes, before = changes - (now != before), now
            time.sleep(self.random.choice([0.0, self.random.uniform(0.0, 0.005)]))
        was_running = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
        return was_running


def names(folder):
    """Names in a folder and its folders; those that go meanwhile do not count."""
    found = []
    for path, folders, files in os.walk(folder):
        found.extend(os.path.join(path, name) for name in [*folders, *files])
    return found


def digest(file):
    """Hash of a file. The metadata of safetensors have no order, and are sorted."""
    data = file.read_bytes()
    if file.suffix == ".safetensors":
        (size,) = struct.unpack("<Q", data[:8])
        header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True)
        data = header.encode() + data[8 + size :]
    return hashlib.sha256(data).hexdigest()


def contents(path):
    """Hash of a file, or of each file below a directory, without what a killed run left and the card, which a resumed run writes
    without the metrics from before the training."""
    if path.is_file():
        return {"": digest(path)}
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "README.md")
    kept = [file for file in files if not any(part.startswith(LEFTOVERS) for part in file.relative_to(path).parts)]
    return {str(file.relative_to(path)): digest(file) for file in kept}


def assert_readable(path):
    """Reads every file of weights and every JSON below a path."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.suffix == ".safetensors":
            data = file.read_bytes()
            (size,) = struct.unpack("<Q", data[:8])
            header = json.loads(data[8 : 8 + size])
            header.pop("__metadata__", None)
            if max(tensor["data_offsets"][1] for tensor in header.values()) != len(data) - 8 - size:
                raise Lost(f"{file} is not complete")
        elif file.suffix == ".json":
            json.loads(file.read_text())


class Tidy:
    """Whether leftovers are looked for: what the system refuses to remove stays."""

    expected = True


def assert_tidy(folder):
    if not Tidy.expected:
        return
    left = [name for name in names(folder) if os.path.basename(name).startswith(LEFTOVERS)]
    if left:
        raise Lost(f"left behind: {left}")


def losses(run):
    """Steps and evaluations of a run, without the times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line or "eval" in line]
    for line in lines:
        line.pop("seconds", None)
        line.pop("eval_seconds", None)
    return lines


def timed(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


class Rewrite:
    """A command that writes one file or directory, with `--overwrite` over an old one."""

    def __init__(self, title, args, output, old):
        self.title, self.args, self.output, self.old = title, args, output, old

    def prepare(self, program, folder):
        """Makes the old content by `old` and the new by `args`, both complete."""
        self.folder = folder / self.title.replace(" ", "_")
        self.folder.mkdir()
        self.place = self.folder / self.output
        program.run(*self.old(self.place))
        self.before = contents(self.place)
        self.kept = self.folder.with_suffix(".old")
        copy(self.place, self.kept)
        self.command = [*self.args(self.place), "--overwrite"]
        self.seconds = timed(lambda: program.run(*self.command))
        self.after = contents(self.place)
        if self.before == self.after:
            raise SystemExit(f"{self.title}: old and new are the same, so that the campaign would show nothing")

    def once(self, program):
        remove(self.place)
        copy(self.kept, self.place)
        if not program.killed(self.command, self.folder, self.seconds):
            return None
        found = contents(self.place) if self.place.exists() else None
        if found not in (self.before, self.after):
            raise Lost(f"{self.title}: {self.place} is neither the old nor the new one: {found}")
        assert_readable(self.place)
        program.run(*self.command)
        if contents(self.place) != self.after:
            raise Lost(f"{self.title}: another result after a kill")
        assert_tidy(self.folder)
        return ("old" if found == self.before else "new"), 1


class Training:
    """A training, killed once or several times, and resumed."""

    def __init__(self, title, args, weights, kills=1):
        self.title, self.args, self.weights, self.kills = title, args, weights, kills

    def prepare(self, program, folder):
        self.folder = folder / self.title.replace(" ", "_")
        self.folder.mkdir()
        whole = self.folder / "whole"
        self.seconds = timed(lambda: program.run(*self.args(whole)))
        self.expected, self.losses = contents(whole / self.weights), losses(whole)
        assert_tidy(whole)

    def once(self, program):
        run = self.folder / "run"
        remove(run)
        killed, resumed = 0, []
        for _ in range(self.kills):
            if program.killed([*self.args(run), *resumed], self.folder, self.seconds):
                killed += 1
            else:
                break
            resumed = ["--resume"] if has_checkpoint(run) else ["--overwrite"]
        if killed == 0:
            return None
        assert_complete_checkpoints(run)
        if (run / self.weights).exists():
            assert_readable(run / self.weights)
        program.run(*self.args(run), *resumed)
        if contents(run / self.weights) != self.expected:
            raise Lost(f"{self.title}: the weights differ from those of an uninterrupted run")
        if losses(run) != self.losses:
            raise Lost(f"{self.title}: the losses differ from those of an uninterrupted run")
        assert_tidy(self.folder)
        return ("resumed" if resumed == ["--resume"] else "anew"), killed


class Overwriting:
    """A training that overwrites another one: that stays until the new one has a checkpoint."""

    title = "train --overwrite"

    def __init__(self, old, new):
        self.old, self.new = old, new

    def prepare(self, program, folder):
        self.folder = folder / "overwriting"
        self.folder.mkdir()
        self.kept = self.folder / "old"
        run = self.folder / "run"
        program.run(*self.old(run))
        self.old_weights, self.old_losses = contents(run / "adapter"), losses(run)
        copy(run, self.kept)
        self.seconds = timed(lambda: program.run(*self.new(run), "--overwrite"))
        self.weights, self.losses = contents(run / "adapter"), losses(run)
        assert_tidy(self.folder)

    def once(self, program):
        run = self.folder / "run"
        remove(run)
        copy(self.kept, run)
        if not program.killed([*self.new(run), "--overwrite"], run, self.seconds):
            return None
        if contents(run / "adapter") not in (self.old_weights, self.weights):
            raise Lost("the adapter is neither the old nor the new one")
        assert_readable(run / "adapter")
        # A run that may not overwrite changes nothing, and puts back what was moved.
        program.run(*self.new(run), code=1)
        assert_complete_checkpoints(run)
        resumed = program.run(*self.new(run), "--resume", code=None)
        if resumed.returncode == 0:
            outcome, weights, expected = "new", self.weights, self.losses
        else:
            program.run(*self.old(run), "--resume")
            outcome, weights, expected = "old", self.old_weights, self.old_losses
        if contents(run / "adapter") != weights or losses(run) != expected:
            raise Lost(f"the {outcome} run is not what it was")
        assert_tidy(self.folder)
        return outcome, 1


class Lines:
    """A command that writes a result at a time, and goes on with `--resume`: to a new file, or with `--overwrite` over old results,
    which stay until the first new one."""

    def __init__(self, title, args, old=None):
        self.title, self.args, self.old = title, args, old

    def prepare(self, program, folder):
        """Makes the old results by `old` and the new by `args`, both complete."""
        self.folder = folder / self.title.replace(" ", "_")
        self.folder.mkdir()
        self.place = self.folder / "lines.jsonl"
        self.before = None
        if self.old:
            program.run(*self.old(self.place))
            self.before = self.place.read_text()
        self.command = [*self.args(self.place), *(["--overwrite"] if self.old else [])]
        self.seconds = timed(lambda: program.run(*self.command))
        self.expected = self.place.read_text()
        if self.before == self.expected:
            raise SystemExit(f"{self.title}: old and new are the same, so that the campaign would show nothing")

    def once(self, program):
        remove(self.place)
        if self.old:
            self.place.write_text(self.before)
        if not program.killed(self.command, self.folder, self.seconds):
            return None
        written = self.place.read_text() if self.place.exists() else None
        if written == self.before:
            outcome, again = ("old" if self.old else "anew"), self.command
        elif written is not None and self.expected.startswith(written):
            outcome, again = "resumed", [*self.args(self.place), "--resume"]
        else:
            raise Lost(f"{self.title}: {self.place} is neither the old results nor a part of the new ones")
        program.run(*again)
        if self.place.read_text() != self.expected:
            raise Lost(f"{self.title}: another result after a kill")
        assert_tidy(self.folder)
        return outcome, 1


def has_checkpoint(run):
    return any((run / "checkpoints").glob("step-*"))


def assert_complete_checkpoints(run):
    """The last checkpoint is complete; one before it may be half removed."""
    last = sorted((run / "checkpoints").glob("step-*"))[-1:]
    for step in last:
        missing = [name for name in ("state.json", "optimizer.bpk") if not (step / name).exists()]
        if missing:
            raise Lost(f"{step} has no {missing}")
        assert_readable(step)


def copy(source, target):
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def commands(program, folder, steps=40, save=4):
    """All commands that write, with inputs made in `folder`. Trainings have so many steps, and a checkpoint every so many."""
    bert = folder / "bert"
    shutil.copytree(BERT, bert)
    shutil.copy(VOCABULARY, bert / "vocab.txt")
    prompts = folder / "prompts.jsonl"
    lines = [json.loads(line) for line in TEXTS.read_text().splitlines()]
    texts = [line.get("prompt") or line["text"] for line in lines]
    prompts.write_text("".join(json.dumps({"prompt": " ".join(text.split()[:4])}) + "\n" for text in texts))

    def train(*more, seed=1):
        base = ["train", "--device", "flex", "--model", GPT2, "--data", TEXTS, "--max-length", 48, "--seed", seed]
        base += ["--batch-size", 3, "--dropout", 0.1, "--lr", "1e-2", "--max-steps", steps, "--save-steps", save]
        base += ["--eval-data", TEXTS, "--eval-steps", max(steps // 4, 1), "--keep-best"]
        return lambda run: [*base, "--output", run, *more]

    full = train()(Path())[:-2]
    at = full.index("--dropout")
    del full[at : at + 2]
    adapters = [folder / "one", folder / "two"]
    for seed, run in enumerate(adapters):
        program.run(*train("--rank", 3, seed=seed)(run))
    one, two = (run / "adapter" for run in adapters)
    cola = folder / "cola"
    task = ["--model", bert, "--task", "glue/cola"]
    program.run("train", *task, "--data", COLA / "train.tsv", "--output", cola, "--max-steps", 6, "--lr", "1e-2", "--rank", 2)

    def merged(*args):
        return lambda place: ["merge", "--device", "flex", "--model", GPT2, "--output", place, *args]

    def converted(kind, adapter):
        return lambda place: ["convert", adapter, "--to", kind, "--output", place]

    def combined(*weights):
        return lambda place: ["combine", one, two, "--weights", ",".join(weights), "--output", place]

    def scored(*args):
        return lambda place: ["eval", "--device", "flex", "--model", GPT2, "--data", TEXTS, "--predictions", place, *args]

    def submitted(*args):
        test = ["--data", COLA / "test.tsv", "--device", "flex"]
        return lambda place: ["predict", *task, *test, *args, "--submission", place]

    every = [
        Training("train", train("--rank", 3), "adapter"),
        Training("train --resume", train("--rank", 3), "adapter", kills=3),
        Training("train --full", lambda run: [*full, "--output", run, "--full"], "model", kills=2),
        Training("train --merge", train("--rank", 3, "--merge"), "merged", kills=2),
        Overwriting(train("--rank", 2, seed=8), train("--rank", 3, seed=9)),
        Rewrite("merge", merged("--adapter", one), "merged", merged("--adapter", two)),
        Rewrite("merge without an adapter", merged("--dtype", "bf16"), "model", merged()),
        Rewrite("convert to PEFT", converted("peft", one), "adapter", converted("peft", two)),
        Rewrite("convert to loralib", converted("loralib", one), "adapter.pt", converted("loralib", two)),
        Rewrite("convert to mlx", converted("mlx", one), "adapters", converted("mlx", two)),
        Rewrite("combine", combined("0.7", "0.3"), "adapter", combined("1", "1")),
        Rewrite("eval --predictions", scored("--adapter", one), "scores.jsonl", scored()),
        Rewrite("predict --submission", submitted("--adapter", cola / "adapter"), "submission", submitted("--adapter", cola / "adapter", "--max-length", 4)),
    ]
    generate = ["generate", "--device", "flex", "--model", GPT2, "--prompts", prompts, "--batch-size", 1, "--max-new-tokens"]
    predict = ["predict", *task, "--device", "flex", "--data", COLA / "test.tsv", "--batch-size", 1, "--adapter", cola / "adapter"]
    for command, args, old in [
        ("generate", lambda place: [*generate, 8, "--output", place], lambda place: [*generate, 2, "--output", place]),
        ("predict", lambda place: [*predict, "--output", place], lambda place: [*predict, "--max-length", 4, "--output", place]),
    ]:
        every += [Lines(command, args), Lines(f"{command} --overwrite", args, old)]
    return every


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/lora")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    program = Program(args.program, random.Random(args.seed))
    counts = {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        every = commands(program, Path(folder))
        for command in every:
            command.prepare(program, Path(folder))
            counts[command.title] = {}
        turn = kills = ended = 0
        while kills < args.kills:
            command = every[turn % len(every)]
            outcome = command.once(program)
            if outcome is None:
                ended += 1  # The run was faster: another moment, with the same command.
                continue
            found, killed = outcome
            print(f"{kills + killed} of {args.kills}: {command.title}, {found}", file=sys.stderr)
            counts[command.title].setdefault(found, []).append(killed)
            kills += killed
            turn += 1
    print("| command | kills | found after them |\n| --- | --- | --- |")
    for title, outcomes in counts.items():
        found = ", ".join(f"{outcome} {len(killed)}" for outcome, killed in sorted(outcomes.items()))
        print(f"| `{title}` | {sum(map(sum, outcomes.values()))} | {found} |")
    print(f"\n{kills} kills in {time.monotonic() - start:.0f} s, {ended} runs ended before theirs; nothing was lost")


if __name__ == "__main__":
    try:
        main()
    except Lost as lost:
        sys.exit(f"LOST: {lost}")
