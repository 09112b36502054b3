"""Common head of the fixture generators: paths, seeds, quiet libraries, and writers.

A generator imports it before any other library, since the environment variables below count at their import.
`scripts/fixtures.py` runs the generators with this folder on their path.
"""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
warnings.filterwarnings("ignore")
sys.dont_write_bytecode = True

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "lora-core/tests/fixtures"
MODELS = ROOT / "lora-models/tests/fixtures"
TRAIN = ROOT / "lora-train/tests/fixtures"
# Metadata of a safetensors file that PyTorch wrote.
META = {"format": "pt"}


def load_generator(folder):
    """Imports the generator of another folder, under a name of its own: all are called generate.py."""
    path = folder / "generate.py"
    name = "generate_" + "_".join(path.relative_to(ROOT).parent.parts).replace("-", "_")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def deterministic():
    """Makes PyTorch compute the same each time, and transformers quiet."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        import transformers
    except ImportError:
        return
    transformers.utils.logging.disable_progress_bar()


def generator(seed):
    import torch

    return torch.Generator().manual_seed(seed)


def normal(shape, std, g):
    """Normal numbers drawn in float64, as float32."""
    import torch

    return torch.randn(tuple(shape), generator=g, dtype=torch.float64).mul(std).float()


def normal_double(shape, std, g):
    """Normal numbers that float32 can hold, as float64."""
    return normal(shape, std, g).double()


def stored(tensors, nonzero=False):
    """Tensors as a file stores them: contiguous, float64 as float32, all of them finite, none zero everywhere if asked."""
    import torch

    out = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        out[name] = tensor.float() if tensor.is_floating_point() else tensor
        assert torch.isfinite(out[name]).all(), name
        assert not nonzero or tensor.abs().max() > 0, name
    return out


def e2e_lines():
    """Lines of the E2E NLG Challenge's validation split; the variable E2E_VALID names another copy."""
    named = os.environ.get("E2E_VALID")
    path = Path(named) if named else ROOT / "examples/data/e2e/train.txt"
    return path.read_text(encoding="utf-8").splitlines()


def fresh(folder):
    """Empties a folder, or makes it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def neutral_adapter(folder, base):
    """Makes what PEFT saved independent of the machine: a neutral name of the base, targets in a fixed order, no README."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": base}
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2) + "\n")


def write_json(path, value, **options):
    text = json.dumps(value, indent=2, ensure_ascii=True, **options)
    path.write_text(text + "\n", encoding="utf-8")


def write_rows(path, value):
    """Writes an object whose lists have one item a line."""
    parts = []
    for key, item in value.items():
        text = json.dumps(item)
        if isinstance(item, list):
            text = "[\n    " + ",\n    ".join(map(json.dumps, item)) + "\n  ]"
        parts.append(f"  {json.dumps(key)}: {text}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def versions(*packages):
    """Versions of packages by name, without the part that names a build; `python` is Python's own."""
    python = sys.version.split()[0]
    return {name: python if name == "python" else importlib.metadata.version(name).split("+")[0] for name in packages}


def write_versions(folder, *packages):
    lines = [f"{name} {version}\n" for name, version in versions(*packages).items()]
    (folder / "VERSIONS.txt").write_text("".join(lines), encoding="utf-8", newline="\n")


def finish(folder, *packages):
    """Writes the versions of packages, and gives all files the same permissions."""
    if packages:
        write_versions(folder, *packages)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
