"""Writes the fixtures of the tests again, all of them or those of some folders.

    python scripts/fixtures.py                     every generator, in the order of what they read
    python scripts/fixtures.py --list              their names
    python scripts/fixtures.py core/ops train      these two, without what they read

Each folder has a VERSIONS.txt: with these versions, a second run writes the same bytes, except of the files `legacy.bin`, whose
format holds addresses in memory. Together the generators need

    pip install torch transformers peft bitsandbytes loralib sentencepiece tokenizers safetensors numpy datasets pandas \
        scikit-learn scipy seqeval sacrebleu rouge_score nltk pycocoevalcap records babel tensorboard gguf pyarrow

`train/texts` needs Java besides, and checkouts that its head names.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
# A generator stands after those whose files it reads.
GENERATORS = [
    "lora-core/tests/fixtures/generate.py",
    "lora-core/tests/fixtures/spellings/generate.py",
    "lora-core/tests/fixtures/combine/generate.py",
    "lora-core/tests/fixtures/quantized/generate.py",
    "lora-core/tests/fixtures/ops/generate.py",
    "lora-models/tests/fixtures/generate.py",
    "lora-models/tests/fixtures/generation/generate.py",
    "lora-models/tests/fixtures/torch_layouts/generate.py",
    "lora-models/tests/fixtures/wrapped/generate.py",
    "lora-models/tests/fixtures/hostile/generate.py",
    "lora-models/tests/fixtures/encoders/generate.py",
    "lora-models/tests/fixtures/deberta/generate.py",
    "lora-models/tests/fixtures/decoders/generate.py",
    "lora-models/tests/fixtures/gguf/generate.py",
    "lora-models/tests/fixtures/chat/generate.py",
    "lora-models/tests/fixtures/kinds/generate.py",
    "lora-models/tests/fixtures/named/generate.py",
    "lora-models/tests/fixtures/vocabulary/generate.py",
    "lora-models/tests/fixtures/formats/generate.py",
    "lora-models/tests/fixtures/prefix/generate.py",
    "lora-models/tests/fixtures/prompt/generate.py",
    "lora-models/tests/fixtures/adapter_layers/generate.py",
    "lora-models/tests/fixtures/quantized/generate.py",
    "lora-models/tests/fixtures/tokenizer_families/generate.py",
    "lora-train/tests/fixtures/generate.py",
    "lora-train/tests/fixtures/decoder20/generate.py",
    "lora-train/tests/fixtures/prefix/generate.py",
    "lora-train/tests/fixtures/methods/generate.py",
    "lora-train/tests/fixtures/classify/generate.py",
    "lora-train/tests/fixtures/generate_classification_metrics.py",
    "lora-train/tests/fixtures/glue/generate.py",
    "lora-train/tests/fixtures/tables/generate.py",
    "lora-train/tests/fixtures/parquet/generate.py",
    "lora-train/tests/fixtures/inspect/generate.py",
    "lora-train/tests/fixtures/texts/generate.py",
    "lora-train/tests/fixtures/loralib/generate.py",
    "lora-train/tests/fixtures/tensorboard/generate.py",
    "lora-train/tests/fixtures/analyze/generate.py",
    "fuzz/seeds.py",
]


def name(path):
    """Short name of a generator: `core`, `core/ops`, `train/classification_metrics`, `fuzz`."""
    path = Path(path)
    folder = path.parent.as_posix().removeprefix("lora-").replace("/tests/fixtures", "")
    rest = path.stem.removeprefix("generate_")
    return folder if rest in ("generate", "seeds") else f"{folder}/{rest}"


def check_complete():
    found = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("lora-*/tests/fixtures/**/generate*.py")}
    missing = found - set(GENERATORS)
    assert not missing, f"not in GENERATORS: {sorted(missing)}"


def main():
    check_complete()
    names = {name(path): path for path in GENERATORS}
    parser = argparse.ArgumentParser(description="Writes the fixtures of the tests again.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="generators to run (default: all)")
    parser.add_argument("--list", action="store_true", help="print the names of the generators")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(names))
        return
    unknown = [wanted for wanted in arguments.names if wanted not in names]
    if unknown:
        parser.error(f"no generator {', '.join(unknown)}; there are {', '.join(names)}")
    path = os.pathsep.join([str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    # The order of a set, in which PEFT writes its targets, depends on the seed of hashes.
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    for wanted in arguments.names or names:
        start = time.monotonic()
        # A process each: seeds and settings of one do not reach the next.
        subprocess.run([sys.executable, ROOT / names[wanted]], check=True, env=environment)
        print(f"{wanted}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
