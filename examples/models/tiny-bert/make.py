"""Generates the model in this folder: a tokenizer trained on the E2E slice, and an encoder with random weights.

    python make.py

The vocabulary is trained on the references in `../../data/e2e/train.txt`. Writes `config.json`, `model.safetensors`,
`tokenizer.json` and `tokenizer_config.json` beside this script; with the same versions a second run writes the same bytes.
Needs `pip install tokenizers torch transformers`; made with tokenizers 0.23.3, torch 2.15.0 and transformers 5.24.0.
"""

import json
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "data/e2e/train.txt"
VOCAB_SIZE = 1000
POSITIONS = 128
WIDTH = 64
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer():
    references = [line.partition("||")[2].strip() for line in SOURCE.read_text(encoding="utf-8").splitlines()]
    learner = BertWordPieceTokenizer(lowercase=True)
    # Letters inside words would get ids in the order of a hash table, which also breaks ties: a different vocabulary in each
    # run. As special tokens they keep their order.
    letters = sorted({letter for text in references for letter in learner.normalize(text) if not letter.isspace()})
    fixed = SPECIAL + ["##" + letter for letter in letters]
    learner.train_from_iterator(references, vocab_size=VOCAB_SIZE, special_tokens=fixed, show_progress=False)
    vocab = dict(sorted(learner.get_vocab().items(), key=lambda entry: entry[1]))
    return BertTokenizerFast(vocab=vocab, do_lower_case=True, model_max_length=POSITIONS)


def encoder(vocab_size):
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=POSITIONS,
        # Keeps the scale of the activations from layer to layer. The usual 0.02 is meant for widths of hundreds: at this
        # width the first token would get almost no signal from the others, and no adapter could change that.
        initializer_range=WIDTH**-0.5,
    )
    torch.manual_seed(0)
    # No pooler: it belongs to the head, which is initialized anew and fully trained.
    return BertModel(config, add_pooling_layer=False).half()


def main():
    learnt = tokenizer()
    encoder(len(learnt)).save_pretrained(HERE)
    learnt.save_pretrained(HERE)
    # transformers writes each token on its own line.
    file = HERE / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
