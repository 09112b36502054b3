"""Trains the tokenizer in this folder: byte-level BPE as in GPT-2, with 4,000 tokens.

    python train_tokenizer.py path/to/prepared

The directory holds `wikitext-train.txt`, written by `prepare_wikitext.py`. Writes `tokenizer.json` and
`tokenizer_config.json` beside this script, in the form that transformers 5 gives them. Needs `pip install tokenizers
transformers`; made with tokenizers 0.23.3 and transformers 5.23.0.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2TokenizerFast

HERE = Path(__file__).resolve().parent
VOCAB_SIZE = 4000
N_POSITIONS = 256
END_OF_TEXT = "<|endoftext|>"


def train(text):
    """Returns the vocabulary, with the special token at its end, and the merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    vocab = {**learnt["vocab"], END_OF_TEXT: VOCAB_SIZE - 1}
    assert sorted(vocab.values()) == list(range(VOCAB_SIZE))
    return vocab, [tuple(merge) for merge in learnt["merges"]]


def main(prepared):
    vocab, merges = train((prepared / "wikitext-train.txt").read_text(encoding="utf-8"))
    GPT2TokenizerFast(vocab=vocab, merges=merges, model_max_length=N_POSITIONS).save_pretrained(HERE)
    # transformers writes each token on its own line and each merge on four, which triples the size.
    file = HERE / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
