"""Lets the n-th system call fail, or kills the program at it, for every n, in every command that writes, and asserts that nothing is
lost: each output is the old one or the new one, complete and readable, and the command then runs to its end.

    cargo build --release
    python scripts/fault_campaign.py                       all commands, every call
    python scripts/fault_campaign.py --every 30 --seed 2   of trainings, one call in thirty, as `.ci/run` does

Needs Linux, Python and `strace`, which injects the faults. Prints a table in Markdown. The models are those of the tests.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from kill_campaign import LIMIT, ROOT, Lost, Overwriting, Program, Tidy, Training, commands

# System calls that change files, each with the error that a file system may answer.
CALLS = {
    "rename": "EIO",
    "renameat2": "EIO",
    "link": "EIO",
    "linkat": "EIO",
    "unlink": "EBUSY",
    "unlinkat": "EBUSY",
    "rmdir": "EBUSY",
    "mkdir": "ENOSPC",
    "fsync": "EIO",
    "ftruncate": "EIO",
    "flock": "ENOLCK",
    "write": "ENOSPC",
}
# Answers of file systems that lack the call. The command then succeeds.
LACKS = {"fsync": "EINVAL", "flock": "ENOTSUP", "fchmod": "EPERM", "linkat": "EPERM", "renameat2": "EINVAL"}


class Faulty(Program):
    """The program under `strace`, with a fault at one call."""

    def at(self, call, number, action):
        self.fault = f"inject={call}:{action}:when={number}"
        self.calls = call

    def calls_of(self, command):
        """Counts the calls that a run without a fault makes."""
        self.at("write", 65535, "error=ENOSPC")
        self.calls = ",".join(CALLS)
        if command.once(self):
            raise Lost(f"{command.title}: writes more often than a fault can be placed")
        return self.made

    def killed(self, args, _watched, _seconds):
        with tempfile.NamedTemporaryFile() as log:
            trace = ["strace", "-f", "-qq", "-o", log.name, "-e", f"trace={self.calls}", "-e", self.fault]
            done = subprocess.run([*trace, self.path, *map(str, args)], capture_output=True, text=True, timeout=LIMIT)
            lines = Path(log.name).read_text(errors="replace")
            injected = done.returncode == -9 or "(INJECTED)" in lines
            self.made = Counter(re.findall(r"^\d+ +(\w+)\(", lines, re.MULTILINE))
        if "panicked" in done.stderr:
            raise Lost(f"a panic: {done.stderr}")
        self.last = done.returncode
        return injected


def assert_synced(program, training):
    """Asserts that each file of a checkpoint is on the disk before the checkpoint has its name."""
    with tempfile.NamedTemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        trace = ["strace", "-f", "-y", "-s", "4096", "-o", log.name, "-e", "trace=fsync,rename,renameat2"]
        subprocess.run([*trace, program.path, *map(str, training.args(run))], check=True, capture_output=True, timeout=LIMIT)
        lines = Path(log.name).read_text(errors="replace").splitlines()
        files = [file for file in next((run / "checkpoints").glob("step-*")).rglob("*") if file.is_file()]
    end = next(index for index, line in enumerate(lines) if "rename" in line and "/checkpoints/step-" in line)
    synced = {line.split("<", 1)[1].split(">", 1)[0] for line in lines[:end] if "fsync(" in line}
    # Under their temporary names; what was deleted is a trial.
    new = lines[end].split('"')[1]
    synced = [path for path in synced if path.endswith(".tmp") and path.startswith(new)]
    if len(synced) < len(files):
        raise Lost(f"{len(synced)} of {len(files)} files were synced before the checkpoint had its name")


def faults(call):
    yield "killed", "signal=KILL"
    yield "failed", f"error={CALLS[call]}"


def try_all(command, program, every):
    """Tries the calls of one command. Returns how many of them killed it, failed, and were lacking."""
    is_training = isinstance(command, (Training, Overwriting))
    if isinstance(command, Training):
        command.kills = 1
        assert_synced(program, command)
    counts = {"killed": 0, "failed": 0, "lacking": 0}
    for call, error in LACKS.items():
        program.at(call, "1+", f"error={error}")
        if command.once(program):
            if program.last != 0:
                raise Lost(f"{command.title}: ends without {call}")
            counts["lacking"] += 1
    made = program.calls_of(command)
    for call in CALLS:
        for kind, action in faults(call):
            Tidy.expected = kind != "failed" or CALLS[call] != "EBUSY"
            # Most writes are lines of the terminal.
            step = (every if is_training else 1) * (4 if call == "write" else 1)
            for number in range(program.random.randint(1, step), made[call] + 1, step):
                program.at(call, number, action)
                try:
                    counts[kind] += bool(command.once(program))
                except Lost as lost:
                    raise Lost(f"{command.title}, {call} {number} {kind}: {lost}") from lost
    return counts


def start_process(path, root):
    """Makes the inputs of one process of the pool, in a folder of its own."""
    global folder, program, every_command
    folder = Path(tempfile.mkdtemp(dir=root))
    program = Faulty(path, random.Random())
    every_command = {command.title: command for command in commands(program, folder, steps=4, save=2)}


def titles():
    return list(every_command)


def campaign(title, every, seed):
    """Tries the calls of the command with this title, in a process of the pool."""
    command = every_command[title]
    program.random.seed(f"{seed} {title}")
    command.prepare(program, folder)
    return title, try_all(command, program, every)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/lora")
    parser.add_argument("--every", type=int, default=1, help="try one of so many calls of trainings")
    parser.add_argument("--seed", type=int, default=1, help="which of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="commands tried at once")
    args = parser.parse_args()
    start = time.monotonic()
    counts = {}
    with (
        tempfile.TemporaryDirectory() as root,
        ProcessPoolExecutor(args.jobs, initializer=start_process, initargs=(args.program, root)) as pool,
    ):
        every = pool.submit(titles).result()
        tried = [pool.submit(campaign, title, args.every, args.seed) for title in every]
        try:
            for future in as_completed(tried):
                title, counts[title] = future.result()
                print(f"{title}: {counts[title]}", file=sys.stderr)
        except Lost:
            pool.shutdown(cancel_futures=True)
            raise
    print("| command | calls killed at | calls failed | calls that the file system lacks |\n| --- | --- | --- | --- |")
    for title in every:
        print(f"| `{title}` | {counts[title]['killed']} | {counts[title]['failed']} | {counts[title]['lacking']} |")
    total = {kind: sum(count[kind] for count in counts.values()) for kind in ("killed", "failed")}
    print(f"\n{total['killed']} kills and {total['failed']} failures in {time.monotonic() - start:.0f} s; nothing was lost")


if __name__ == "__main__":
    try:
        main()
    except Lost as lost:
        sys.exit(f"LOST: {lost}")
