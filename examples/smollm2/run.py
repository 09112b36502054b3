#!/usr/bin/env python3
"""Runs the first block of commands of README.md beside this file.

    python3 examples/smollm2/run.py --model MODEL [--lora PROGRAM]

From the root of the repository. With --lora, the program stands for `cargo run --release --`.
"""

import argparse
import shlex
import subprocess
from pathlib import Path

README = Path(__file__).resolve().with_name("README.md")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lora")
    args = parser.parse_args()
    block = README.read_text(encoding="utf-8").split("```sh\n")[1].split("```")[0]
    for line in block.splitlines():
        if args.lora:
            line = line.replace("cargo run --release --", shlex.quote(args.lora))
        print(f"$ {line}", flush=True)
        command = [args.model if part == "MODEL" else part for part in shlex.split(line)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
