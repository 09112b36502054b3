"""Converts WikiText-2's validation and test splits to plain English text for pretraining.

    python prepare_wikitext.py path/to/wikitext-2 path/to/output

The first directory holds WikiText's `valid.txt` and `test.txt`; the second receives `wikitext-train.txt` and
`wikitext-valid.txt`. A document is a section of an article, a line is a paragraph, and a blank line ends a document.
Needs only Python; a second run writes the same bytes.

WikiText is tokenized (`a guest @-@ starring role , in 1 @,@ 500 " words "`), and each rare word is
`<unk>`: one in seventeen. The script reverts this:

1. Headings, formulas, and sentences with an unpaired quote or bracket are left out.
2. Consecutive unknown words become one. A sentence with more than three of them is left out; in the others, each is
   replaced by a word that occurs between the same neighbours in the corpus, drawn with a fixed seed. The text is
   fluent, but not a source of facts.
3. The spaces that tokenization added around punctuation are removed: `a guest-starring role, in 1,500 "words"`.
"""

import random
import re
import sys
from bisect import bisect
from collections import Counter, defaultdict
from itertools import accumulate
from pathlib import Path

SEED = 42
UNKNOWN = "<unk>"
START = "<start>"
MAX_UNKNOWN = 3
MIN_WORDS = 4
# The most frequent words are never unknown, so they are not drawn.
FUNCTION_WORDS = 150
# Every N-th article is held out.
HELD_OUT = 20

SENTENCE_END = {".", "!", "?"}
CLOSING = {",", ".", ";", ":", "!", "?", ")", "]", "%", "″", "′"}
OPENING = {"(", "[", "$", "£", "¥", "#", "+", "−"}
BOTH = {"/", "⁄"}


def articles(path):
    """Returns the sections of each article, as lists of paragraphs, which are lists of tokens."""
    sections = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        match line.split():
            case []:
                pass
            case ["=", "=", *_]:  # = = Section = =
                sections.append([])
            case ["=", *_]:  # = Article =
                if sections:
                    yield sections
                sections = [[]]
            case paragraph:
                sections[-1].append(paragraph)
    yield sections


def join_unknown(tokens):
    """Replaces each run of unknown words by one."""
    return [token for before, token in zip([None, *tokens], tokens) if not token == before == UNKNOWN]


def sentences(tokens):
    """Splits a paragraph into sentences. Closing marks after a full stop belong to the sentence before it, and a full stop
    before a comma or a small letter belongs to an abbreviation."""
    sentence = []
    for index, token in enumerate(tokens):
        sentence.append(token)
        following = tokens[index + 1] if index + 1 < len(tokens) else ""
        open_quote = sentence.count('"') % 2 == 1
        goes_on = following in CLOSING or following == "'" or (following == '"' and open_quote) or following[:1].islower()
        ended = token in SENTENCE_END or (token in ('"', "'", ")") and len(sentence) > 1 and sentence[-2] in SENTENCE_END)
        if ended and not goes_on:
            yield sentence
            sentence = []


def is_kept(sentence):
    return (
        sum(token[0].isalnum() for token in sentence) >= MIN_WORDS
        and "<formula>" not in sentence
        and sentence.count('"') % 2 == 0
        and sentence.count("(") == sentence.count(")")
        and sentence.count("[") == sentence.count("]")
        and sentence.count(UNKNOWN) <= MAX_UNKNOWN
        and not any(UNKNOWN in pair and pair & {"@,@", "@.@"} for pair in map(set, zip(sentence, sentence[1:])))
    )


class Filler:
    """Draws replacements for unknown words: words seen between the same neighbours, else words that follow the left and
    precede the right neighbour, else words that do either."""

    def __init__(self, corpus):
        self.random = random.Random(SEED)
        count = Counter(token for sentence in corpus for token in sentence)
        frequent = {token for token, _ in count.most_common(FUNCTION_WORDS)}
        self.between = defaultdict(Counter)
        self.after = defaultdict(Counter)
        self.before = defaultdict(Counter)
        for sentence in corpus:
            for left, word, right in zip([START, *sentence], sentence, sentence[1:]):
                if re.fullmatch(r"[^\W\d_]{2,}", word) and word not in frequent:
                    self.between[left, right][word] += 1
                    self.after[left][word] += 1
                    self.before[right][word] += 1
        # Last resort: any word, weighted by how often it follows one of its left neighbours.
        self.any = {word: n for after in self.after.values() for word, n in after.items()}

    def word(self, left, right):
        choices = self.between[left, right]
        if len(choices) < 2:
            after, before = self.after[left], self.before[right]
            choices = {word: after[word] * before[word] for word in after if word in before}
        if len(choices) < 2:
            choices = self.after[left] or self.before[right] or self.any
        words = sorted(choices)
        totals = list(accumulate(choices[word] for word in words))
        return words[bisect(totals, self.random.random() * totals[-1])]

    def fill(self, sentence):
        filled = list(sentence)
        for index, token in enumerate(filled):
            if token == UNKNOWN:
                left = filled[index - 1] if index else START
                right = sentence[index + 1] if index + 1 < len(sentence) else "."
                filled[index] = self.word(left, right)
        return filled


def join_pairs(tokens):
    """Replaces `@-@`, `@,@` and `@.@`, which mark punctuation without spaces on either side."""
    text = " ".join(tokens)
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    return text.split(" ")


def detokenise(tokens):
    """Joins the tokens of a sentence with English spacing."""
    tokens = join_pairs(tokens)
    text = ""
    space = False
    open_quote = {'"': False, "'": False}
    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else ""
        after = tokens[index + 1] if index + 1 < len(tokens) else ""
        space_before, space_after = True, True
        if token == "'" and not open_quote["'"] and tokens[index:].count("'") % 2 == 1:
            if before.endswith("s"):
                space_before = False  # the ships' guns
            else:
                space_after = False  # the '70s
        elif token in open_quote:
            open_quote[token] = not open_quote[token]
            space_before, space_after = open_quote[token], not open_quote[token]
        elif token in CLOSING or token.startswith("'"):  # the ship's, don't
            space_before = False
            space_after = not (token == ":" and before[-1:].isdigit() and after[:1].isdigit())
        elif token in OPENING:
            space_after = False
        elif token in BOTH or (token == "–" and before[-1:].isdigit() and after[:1].isdigit()):
            space_before = space_after = False
        text += " " + token if space and space_before else token
        space = space_after
    return text


def main(source, output):
    kept = []  # article, section, paragraph, sentence
    for name in ("test.txt", "valid.txt"):
        for article in articles(source / name):
            sections = [[[s for s in sentences(join_unknown(p)) if is_kept(s)] for p in section] for section in article]
            kept.append(sections)
    every = [s for article in kept for section in article for paragraph in section for s in paragraph]
    filler = Filler([s for s in every if UNKNOWN not in s])

    parts = {"wikitext-train.txt": [], "wikitext-valid.txt": []}
    for number, article in enumerate(kept, start=1):
        part = parts["wikitext-train.txt" if number % HELD_OUT else "wikitext-valid.txt"]
        for section in article:
            lines = [" ".join(detokenise(filler.fill(s)) for s in paragraph) for paragraph in section if paragraph]
            if lines:
                part.append("\n".join(lines))
    output.mkdir(parents=True, exist_ok=True)
    for name, documents in parts.items():
        (output / name).write_text("\n\n".join(documents) + "\n", encoding="utf-8", newline="\n")
        print(f"{name}: {len(documents)} documents, {sum(len(text.split()) for text in documents)} words")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
