"""Holds the program `lora` against Python's PEFT, both ways: an adapter trained here is loaded there, and one made there is
loaded here, and the loss of each example is the same. Adapters of every kind, and prefixes, are trained for a few steps, and
loaded there. A state dict that is written for loralib is one that PyTorch reads with `weights_only`, and holds the adapter to
the bit.

    cargo run --release -- train examples/e2e.toml
    python scripts/check_with_peft.py

Needs `pip install torch transformers peft`; run with torch 2.15.0, transformers 5.23.0 and peft 0.21.2. A warning from
any of these is an error, unless it is of a deprecation.
"""

import json
import logging
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ["cargo", "run", "--release", "--quiet", "--"]
MODEL = ROOT / "examples/models/wiki-gpt2"
ADAPTER = ROOT / "out/e2e/adapter"
DATA = ROOT / "examples/data/e2e/held_out.txt"
EXAMPLES = 64
# Options of adapters of every kind, trained for a few steps each.
KINDS = [
    ["--dora"],
    ["--dora", "--targets", "c_attn[q,v]", "--rslora"],
    ["--lora-bias"],
    ["--bias", "all"],
    ["--bias", "lora-only"],
    ["--init", "orthogonal"],
    ["--init", "pissa"],
    ["--init", "pissa-niter-4", "--dora", "--targets", "c_attn[q,v]"],
    ["--init", "olora", "--targets", "c_attn,c_fc"],
    ["--targets", "wte,c_attn", "--dora"],
]
# And with a prefix, beside LoRA and alone.
PREFIXES = [
    ["--prefix", "5", "--rank", "4"],
    ["--prefix", "3", "--rank", "4", "--dora", "--targets", "c_attn[q,v]"],
    ["--prefix", "7", "--prefix-only"],
]
# Means over some thirty tokens of float32 sums taken in another order.
TOLERANCE = 1e-4


class NoWarnings(logging.Handler):
    """Makes an error of what transformers and PEFT say through `logging`."""

    def emit(self, record):
        if record.levelno >= logging.WARNING:
            raise AssertionError(f"warned: {record.getMessage()}")


def base_model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def losses_there(model, lines):
    """The mean loss over the completion and the end-of-text token, by PyTorch."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    losses = []
    for line in lines:
        meaning, reference = (half.strip() for half in line.split("||", 1))
        prompt = tokenizer(f"{meaning} ||")["input_ids"]
        completion = tokenizer(f" {reference}")["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
        predictions = logits[len(prompt) - 1 : -1]
        losses.append((cross_entropy(predictions, torch.tensor(completion)).item(), len(completion)))
    return losses


def losses_here(adapter, data, scratch):
    """The same by `lora eval`."""
    predictions = scratch / "predictions.jsonl"
    arguments = ["eval", "--model", MODEL, "--adapter", adapter, "--data", data, "--format", "e2e"]
    arguments += ["--predictions", predictions, "--overwrite"]
    subprocess.run([*PROGRAM, *map(str, arguments)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    rows = map(json.loads, predictions.read_text(encoding="utf-8").splitlines())
    return [(row["loss"], row["tokens"]) for row in rows]


def load_there(adapter):
    """LoRA, a prefix, or LoRA with a prefix inside, which PEFT puts around the merged model."""
    model = PeftModel.from_pretrained(base_model(), adapter).eval()
    prefix = adapter / "prefix"
    if prefix.is_dir():
        model = PeftModel.from_pretrained(model.merge_and_unload(), prefix).eval()
    return model


def train(options, data, output):
    arguments = ["train", "--model", MODEL, "--data", data, "--format", "e2e", "--output", output]
    arguments += ["--max-steps", "6", "--lr", "3e-3", *options]
    subprocess.run([*PROGRAM, *map(str, arguments)], check=True, cwd=ROOT, capture_output=True)
    return output / "adapter"


def check_pickle(adapter, scratch):
    """`lora convert --to loralib` beside the adapter it is of."""
    file = scratch / "loralib.bin"
    arguments = ["convert", adapter, "--to", "loralib", "--output", file]
    subprocess.run([*PROGRAM, *map(str, arguments)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    expected = {}
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        expected[name.removeprefix("base_model.model.").removesuffix(".weight")] = tensor
    for options in ({}, {"mmap": True}):
        state = torch.load(file, weights_only=True, **options)
        assert list(state) == sorted(state) and state.keys() == expected.keys(), list(state)
        for name, tensor in state.items():
            assert tensor.dtype == torch.float32 and torch.equal(tensor, expected[name]), name
    print(f"pickled for loralib, loaded by PyTorch: {len(expected)} tensors are the same")


def compare(name, there, here):
    assert [tokens for _, tokens in there] == [tokens for _, tokens in here], f"{name}: other tokens are learned"
    difference = max(abs(a - b) for (a, _), (b, _) in zip(there, here))
    mean = sum(loss for loss, _ in there) / len(there)
    print(f"{name}: mean loss {mean:.4f}, largest difference {difference:.1e}")
    assert difference < TOLERANCE, f"{name}: {difference} is not below {TOLERANCE}"


def main():
    warnings.simplefilter("error")
    # What PEFT itself calls in transformers.
    for deprecation in (FutureWarning, DeprecationWarning):
        warnings.simplefilter("ignore", deprecation)
    for library in ("transformers", "peft"):
        logging.getLogger(library).addHandler(NoWarnings())
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with DATA.open(encoding="utf-8") as file:
            lines = [line for _, line in zip(range(EXAMPLES), file)]
        data = scratch / "data.txt"
        data.write_text("".join(lines), encoding="utf-8")

        model = PeftModel.from_pretrained(base_model(), ADAPTER).eval()
        compare("trained here, loaded by PEFT", losses_there(model, lines), losses_here(ADAPTER, data, scratch))

        torch.manual_seed(0)
        config = LoraConfig(
            r=4, lora_alpha=12, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"
        )
        model = get_peft_model(base_model(), config).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        made = scratch / "made_by_peft"
        model.save_pretrained(made)
        compare("made by PEFT, loaded here", losses_there(model, lines), losses_here(made, data, scratch))

        for projection in (False, True):
            config = PrefixTuningConfig(num_virtual_tokens=6, prefix_projection=projection, task_type="CAUSAL_LM")
            made = scratch / f"prefix_by_peft_{projection}"
            get_peft_model(base_model(), config).save_pretrained(made)
            there = losses_there(load_there(made), lines)
            compare(f"prefix by PEFT, projection {projection}", there, losses_here(made, data, scratch))

        for number, options in enumerate([["--rank", "4", *kind] for kind in KINDS] + PREFIXES):
            adapter = train(options, data, scratch / str(number))
            compare(" ".join(options), losses_there(load_there(adapter), lines), losses_here(adapter, data, scratch))
        check_pickle(train([], data, scratch / "plain"), scratch)


if __name__ == "__main__":
    main()
