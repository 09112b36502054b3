"""Puts trained weights beside this script, in half precision.

    python to_float16.py path/to/model

The directory holds the `model.safetensors` of `lora train --full`. Needs `pip install torch safetensors`.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent


def main(model):
    tensors = {name: tensor.half() for name, tensor in load_file(model / "model.safetensors").items()}
    for name, tensor in tensors.items():
        assert torch.isfinite(tensor).all(), f"{name} does not fit into half precision"
    save_file(tensors, HERE / "model.safetensors", metadata={"format": "pt"})
    count = sum(tensor.numel() for tensor in tensors.values())
    print(f"{count:,} parameters, {(HERE / 'model.safetensors').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
