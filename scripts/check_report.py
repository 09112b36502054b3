#!/usr/bin/env python3
"""Checks the page of `lora report` in a browser, and the event files of `lora train --tensorboard` with TensorBoard.

    scripts/check_report.py --lora target/release/lora [--work DIR] [--screenshots DIR]

Trains two small runs, writes their page, and opens it in Chromium without a display (Debian: `apt install chromium`): the page
must render in light and dark, wide and narrow, without an error, a request or a horizontal overflow, and the numbers that the
browser has must be those of `metrics.jsonl`. A dataset with markup in its texts must not put an element on the page. If the
Python package `tensorboard` is installed, its EventAccumulator must read the same numbers from the event files.
"""

import argparse
import html.parser
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]
HOSTILE = "<script>document.title='run'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='run'\">"
# Widths and heights of windows, in pixels.
SIZES = {"wide": (1280, 2600), "narrow": (500, 5200)}


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Tables(html.parser.HTMLParser):
    """Exact values of the cells by the class of their table, and the elements of the page."""

    def __init__(self):
        super().__init__()
        self.tables, self.elements, self.rows = {}, [], None

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag == "table":
            self.rows = []
            self.tables.setdefault(attrs.get("class"), []).append(self.rows)
        if tag == "tr" and self.rows is not None:
            self.rows.append([])
        if "data-value" in attrs and self.rows:
            self.rows[-1].append(float(attrs["data-value"]))


def chromium(browser, page, *options):
    with tempfile.TemporaryDirectory() as profile:
        common = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
        return run(browser, *common, f"--user-data-dir={profile}", *options, page.as_uri(), timeout=180)


def train(lora, work, data):
    model = ROOT / "lora-models/tests/fixtures/gpt2_tied"
    outputs = []
    for rank in (2, 8):
        output = work / f"rank-{rank}"
        run(
            lora, "train", "--model", model, "--data", data, "--eval-data", data, "--output", output, "--device", "flex",
            "--rank", rank, "--max-steps", 60, "--eval-steps", 10, "--lr", "1e-2", "--max-length", 48, "--generate-prompts", 5,
            "--max-new-tokens", 12, "--tensorboard",
        )  # fmt: skip
        outputs.append(output)
    return outputs


def lines(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def same(rows, others):
    """Compares tables of numbers up to the last bit, which a fast reader of JSON may round otherwise."""
    if [len(row) for row in rows] != [len(row) for row in others]:
        return False
    pairs = [pair for row, other in zip(rows, others) for pair in zip(row, other)]
    return all(math.isclose(x, y, rel_tol=1e-15) for x, y in pairs)


def check_numbers(page, outputs):
    for index, output in enumerate(outputs):
        steps = [line for line in lines(output) if "loss" in line]
        keys = ["step", "epoch", "loss", "lr", "grad_norm", "seconds"]
        shown = [row for row in page.tables["steps"][index] if row]
        assert same(shown, [[step[key] for key in keys] for step in steps]), f"{output}: the steps differ"
        evaluations = [line for line in lines(output) if "eval" in line]
        shown = [row for row in page.tables["evaluations"][index] if row]
        expected = [[e["step"], *[e["eval"][key] for key in sorted(e["eval"])], e["eval_seconds"]] for e in evaluations]
        assert same(shown, expected), f"{output}: the evaluations differ"


def check_page(browser, page, outputs, screenshots):
    found = Tables()
    # The elements that the browser has, not those of the file.
    found.feed(chromium(browser, page, "--dump-dom"))
    check_numbers(found, outputs)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "img", "iframe", "link", "object", "embed"}, f"elements of others: {tags}"
    assert "svg" in tags and "polyline" in tags, "no curves"
    handlers = [name for _, attrs in found.elements for name in attrs if name.startswith("on")]
    assert not handlers, f"handlers of events: {handlers}"
    screenshots.mkdir(parents=True, exist_ok=True)
    for size, (width, height) in SIZES.items():
        for scheme, option in (("light", []), ("dark", ["--blink-settings=preferredColorScheme=0"])):
            target = screenshots / f"report-{size}-{scheme}.png"
            chromium(browser, page, f"--screenshot={target}", f"--window-size={width},{height}", *option)
            assert target.stat().st_size > 10_000, f"{target} is empty"
            print(f"  {target}")


def check_tensorboard(outputs):
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        print("tensorboard is not installed: event files are not checked")
        return
    for output in outputs:
        events = EventAccumulator(str(output / "tensorboard"), size_guidance={"scalars": 0})
        events.Reload()
        for tag, key in (("train/loss", "loss"), ("train/lr", "lr"), ("train/grad_norm", "grad_norm")):
            expected = [(line["step"], line[key]) for line in lines(output) if "loss" in line]
            scalars = [(event.step, event.value) for event in events.Scalars(tag)]
            assert [step for step, _ in scalars] == [step for step, _ in expected], f"{output} {tag}: steps"
            # In f32.
            close = [math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-12) for (_, x), (_, y) in zip(scalars, expected)]
            assert all(close), f"{output} {tag}: {scalars} is not {expected}"
        before = next(line["before"] for line in lines(output) if "before" in line)
        evaluations = [(0, before["loss"])] + [(line["step"], line["eval"]["loss"]) for line in lines(output) if "eval" in line]
        scalars = [(event.step, event.value) for event in events.Scalars("eval/loss")]
        assert [step for step, _ in scalars] == [step for step, _ in evaluations], f"{output}: evaluations"
    print("TensorBoard reads the numbers of metrics.jsonl")


def main():
    parser = argparse.ArgumentParser(description="Checks the pages of `lora report` and the event files for TensorBoard.")
    parser.add_argument("--lora", default=ROOT / "target/release/lora", type=Path, help="program (default: target/release/lora)")
    parser.add_argument("--work", type=Path, help="directory for the runs (default: a temporary one)")
    parser.add_argument("--screenshots", type=Path, help="directory for screenshots (default: that of the runs)")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        sys.exit("no Chromium: install it (Debian: apt install chromium)")
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        texts = (ROOT / "lora-train/tests/fixtures/train20/train.jsonl").read_text().splitlines()
        data = work / "data.jsonl"
        hostile = json.loads(texts[0])
        hostile = {"prompt": f"{hostile['prompt']}<img src=x>", "completion": f"{hostile['completion']} {HOSTILE}"}
        data.write_text("\n".join([json.dumps(hostile), *texts]) + "\n")
        outputs = train(arguments.lora, work, data)
        page = work / "report.html"
        run(arguments.lora, "report", *outputs, "--output", page, "--overwrite")
        assert re.search(r"&lt;script&gt;", page.read_text()), "the hostile text is not on the page"
        check_page(browser, page, outputs, arguments.screenshots or work)
        print("the page renders, and its numbers are those of metrics.jsonl")
        check_tensorboard(outputs)


if __name__ == "__main__":
    main()
