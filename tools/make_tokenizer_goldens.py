"""Makes tests/goldens/tokenizers/: small models as Llama 2 (SentencePiece) and Llama 3 (tiktoken) ship them, learned from the sample, and
hashes of the ids that Python's `sentencepiece`, `tiktoken` and `tokenizers` give for the sample and for 10,000 lines out of all planes of
Unicode. `tests/data/unicode_lines.ts` makes the same lines.

    python3 -m venv /tmp/goldens && /tmp/goldens/bin/pip install tokenizers tiktoken sentencepiece
    /tmp/goldens/bin/python tools/make_tokenizer_goldens.py
"""

import base64
import gzip
import hashlib
import io
import json
import pathlib

import sentencepiece
import tiktoken
import tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split
from tokenizers.trainers import BpeTrainer

ROOT = pathlib.Path(__file__).parent.parent
OUT = ROOT / "tests/goldens/tokenizers"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\u00a0", "\u2003", "\u3000", " \n", "\u2581"]
WORDS = ["the", "The", " of", " and", "'s", "'LL", "don't", "Union", " Congress", "1789", "3.14", "12345678", "caf\u00e9", "cafe\u0301",
         "\u65e5\u672c\u8a9e", "\u0645\u0631\u062d\u0628\u0627", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea",
         "<s>", "</s>", "<unk>", "<0x0A>", "<|begin_of_text|>", "<|eot_id|>", "...", "!?", "{}", "==", "/*", "\ufb01", "\uff21", "\u017f"]


def lines(count: int = 10_000) -> list[str]:
    """Lines of spaces, words, ASCII, and characters of the basic plane and of all planes."""
    state = 1

    def below(n: int) -> int:
        nonlocal state
        state = (state * 1664525 + 1013904223) % 2**32
        return (state >> 8) % n

    def part() -> str:
        kind = below(6)
        if kind == 0:
            return SPACES[below(len(SPACES))]
        if kind <= 2:
            return WORDS[below(len(WORDS))]
        if kind == 3:
            return chr(32 + below(95))
        code = below(0x10000 - 0x800) if kind == 4 else below(0x110000 - 0x800)
        return chr(code if code < 0xD800 else code + 0x800)

    return ["".join(part() for _ in range(1 + below(40))) for _ in range(count)]


def documents() -> list[str]:
    made = []
    for name in ["c4-train.00000-of-00004", "c4-validation.00000-of-00001"]:
        with gzip.open(ROOT / f"data/sample/{name}.json.gz", "rt") as shard:
            made += [json.loads(line)["text"] for line in shard]
    return made


def hashed(encode, texts: list[str]) -> str:
    """Of the ids of each text, as 32-bit integers with their number before them."""
    sha = hashlib.sha256()
    for text in texts:
        ids = encode(text)
        sha.update(b"".join(n.to_bytes(4, "little") for n in [len(ids), *ids]))
    return sha.hexdigest()


def sentence_piece(name: str, text: str, **options) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.split("\n")), model_writer=model, byte_fallback=True, minloglevel=2,
        max_sentence_length=400_000, num_threads=1, **options)
    data = model.getvalue()
    (OUT / name).mkdir(exist_ok=True)
    (OUT / name / "tokenizer.model").write_bytes(data)
    return sentencepiece.SentencePieceProcessor(model_proto=data)


def byte_level(texts: list[str], size: int) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(BPE())
    made.pre_tokenizer = Sequence([Split(tokenizers.Regex(LLAMA3), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = ByteLevelDecoder()
    made.train_from_iterator(
        texts, BpeTrainer(vocab_size=size, initial_alphabet=ByteLevel.alphabet(), show_progress=False))
    return made


def rank_file(made: tokenizers.Tokenizer) -> tiktoken.Encoding:
    """The ranks of tiktoken: bytes first, then what each merge makes."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {byte: chr(byte) for byte in prints}
    for n, byte in enumerate(byte for byte in range(256) if byte not in prints):
        characters[byte] = chr(256 + n)
    back = {character: byte for byte, character in characters.items()}
    merges = json.loads(made.to_str())["model"]["merges"]
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [bytes(back[character] for character in "".join(merge)) for merge in merges]
    ranks = {token: rank for rank, token in enumerate(dict.fromkeys(tokens))}
    text = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    (OUT / "tiktoken").mkdir(exist_ok=True)
    (OUT / "tiktoken/tokenizer.model").write_text(text)
    return tiktoken.Encoding("small", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={})


def smollm(made: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same tokens, with text split as SmolLM2 and GPT-2 do it."""
    other = tokenizers.Tokenizer.from_str(made.to_str())
    other.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)])
    (OUT / "smollm").mkdir(exist_ok=True)
    other.save(str(OUT / "smollm/tokenizer.json"), pretty=False)
    (OUT / "smollm/tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}\n')
    return other


OUT.mkdir(exist_ok=True)
texts, unicode = documents(), lines()
corpus = "\n".join(texts[:400])
sample = tokenizers.Tokenizer.from_file(str(ROOT / "data/sample/tokenizer.json"))
trained = byte_level(texts[:400], 1024)
bpe = sentence_piece("sentencepiece_bpe", corpus, vocab_size=1024, model_type="bpe", character_coverage=0.999, split_digits=True,
                     normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True)
unigram = sentence_piece("sentencepiece_unigram", corpus, vocab_size=1024, model_type="unigram", character_coverage=0.999,
                         normalization_rule_name="identity")
rank = rank_file(trained)
split = smollm(trained)
sample.encode_special_tokens = True
encoders = {
    "sample": lambda text: sample.encode(text, add_special_tokens=False).ids,
    "smollm": lambda text: split.encode(text, add_special_tokens=False).ids,
    "tiktoken": rank.encode_ordinary,
    "sentencepiece_bpe": bpe.encode,
    "sentencepiece_unigram": unigram.encode,
}
goldens = {name: {"lines": hashed(encode, unicode), "documents": hashed(encode, texts)} for name, encode in encoders.items()}
goldens["text"] = {name: hashlib.sha256("\0".join(some).encode()).hexdigest() for name, some in [("lines", unicode), ("documents", texts)]}
(OUT / "hashes.json").write_text(json.dumps(goldens, indent=2) + "\n")
(OUT / "trained.json").write_text(json.dumps(json.loads(trained.to_str())["model"]["merges"]) + "\n")
