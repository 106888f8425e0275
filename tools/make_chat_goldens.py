"""Makes tests/goldens/chats/goldens.json: ids and masks that `transformers` gives the conversations of chats.jsonl by each template, and
the loss that PyTorch computes of the tokens that the assistant has said, each conversation in a row of its own.

    python3 -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch numpy transformers jinja2 sentencepiece pyarrow
    /tmp/goldens/bin/python tools/make_chat_goldens.py
"""

import base64
import json
import pathlib

import pyarrow
import pyarrow.parquet
import sentencepiece
import torch
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import Prepend, Replace, Sequence as Normalizers
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from transformers import PreTrainedTokenizerFast

import make_goldens

ROOT = pathlib.Path(__file__).parent.parent / "tests/goldens"
CHATS = [json.loads(line)["messages"] for line in (ROOT / "chats/chats.jsonl").read_text().splitlines()]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# The templates of each tokenizer, and its tokens that begin and end a text.
CHATML = ["<|im_start|>", "<|im_end|>"]
CASES = {
    "chatml": ("byte_level", *CHATML), "smollm2": ("byte_level", *CHATML),
    "llama3": ("llama3", "<|begin_of_text|>", "<|end_of_text|>"), "zephyr": ("sentencepiece", "<s>", "</s>"),
}


def splits(vocab: dict[str, int], rank) -> list[tuple[str, str]]:
    """All pairs of tokens that make a token, the best one first."""
    merges = [(a, b) for text in vocab for a, b in ((text[:i], text[i:]) for i in range(1, len(text))) if a in vocab and b in vocab]
    return sorted(merges, key=lambda pair: (rank(pair[0] + pair[1]), vocab[pair[0]], vocab[pair[1]]))


def byte_level(special: list[str]) -> Tokenizer:
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in prints]
    characters = {byte: chr(byte) for byte in prints} | {byte: chr(256 + n) for n, byte in enumerate(rest)}
    lines = [line.split() for line in (ROOT / "tokenizers/tiktoken/tokenizer.model").read_text().splitlines()]
    vocab = {"".join(characters[byte] for byte in base64.b64decode(text)): int(rank) for text, rank in lines}
    made = Tokenizer(BPE(vocab, splits(vocab, vocab.get), ignore_merges=True))
    made.pre_tokenizer = Sequence([Split(Regex(LLAMA3), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = ByteLevelDecoder()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return made


def sentence_piece() -> Tokenizer:
    model = sentencepiece.SentencePieceProcessor(model_file=str(ROOT / "tokenizers/sentencepiece_bpe/tokenizer.model"))
    vocab = {model.id_to_piece(n): n for n in range(model.vocab_size())}
    plain = {text: n for text, n in vocab.items() if not (model.is_byte(n) or model.is_control(n) or model.is_unknown(n))}
    merges = splits(plain, lambda text: -model.get_score(plain[text]))
    made = Tokenizer(BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = Normalizers([Prepend("\u2581"), Replace(" ", "\u2581")])
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ["<unk>", "<s>", "</s>"]])
    return made


def llama3_specials() -> list[str]:
    def reserved(n: int) -> str:
        return f"<|reserved_special_token_{n}|>"
    named = ["<|begin_of_text|>", "<|end_of_text|>", *map(reserved, range(4)), "<|start_header_id|>", "<|end_header_id|>", reserved(4),
             "<|eot_id|>"]
    return named + [reserved(n + 5) for n in range(256 - len(named))]


def loss(rows: list[tuple[list[int], list[int]]], size: int) -> dict:
    """Of the tokens with mask 1, by the Llama of make_goldens.py with more tokens."""
    make_goldens.MODEL["vocab_size"] = size
    parameters = make_goldens.make_parameters()
    total, count = 0.0, 0
    for ids, mask in rows:
        tokens, targets = torch.tensor([ids[:-1]]), torch.tensor([ids[1:]])
        targets[torch.tensor([mask[1:]]) == 0] = make_goldens.IGNORE
        sum_, valid = make_goldens.loss_sum_and_count(make_goldens.llama(parameters, tokens), targets)
        total, count = total + sum_.item(), count + valid
    return {"vocab_size": size, "count": count, "loss": total / count}


made = {"byte_level": byte_level(CHATML), "llama3": byte_level(llama3_specials()), "sentencepiece": sentence_piece()}
goldens = {}
for name, (kind, bos, eos) in CASES.items():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made[kind], bos_token=bos, eos_token=eos)
    plain, marked = ((ROOT / f"chats/templates/{name}{end}.jinja").read_text() for end in ["", "_marked"])
    rows = []
    for messages in CHATS:
        text = tokenizer.apply_chat_template(messages, chat_template=plain, tokenize=False)
        assert text == tokenizer.apply_chat_template(messages, chat_template=marked, tokenize=False), (name, text)
        ids = tokenizer.apply_chat_template(messages, chat_template=plain, return_dict=True)["input_ids"]
        other = tokenizer.apply_chat_template(messages, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True)
        assert ids == other["input_ids"]
        rows.append({"text": text, "ids": ids, "mask": other["assistant_masks"]})
    goldens[name] = {"chats": rows, **loss([(row["ids"], row["mask"]) for row in rows], made[kind].get_vocab_size())}
pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"messages": chat} for chat in CHATS]), ROOT / "chats/chats.parquet")
(ROOT / "chats/byte_level").mkdir(exist_ok=True)
made["byte_level"].save(str(ROOT / "chats/byte_level/tokenizer.json"), pretty=False)
config = {"bos_token": CHATML[0], "eos_token": CHATML[1], "tokenizer_class": "PreTrainedTokenizerFast"}
(ROOT / "chats/byte_level/tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
(ROOT / "chats/goldens.json").write_text(json.dumps(goldens, ensure_ascii=False) + "\n")
