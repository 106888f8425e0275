"""Makes tests/goldens/gguf/ with the package gguf: blocks of each format with their numbers, the Llama of tests/goldens/hf/scaled as
llama.cpp's converter writes it, and a small SentencePiece vocabulary with what SentencePiece and llama.cpp make of some texts.

    python3 -m venv /tmp/goldens && /tmp/goldens/bin/pip install gguf safetensors sentencepiece llama-cpp-python
    /tmp/goldens/bin/python tools/make_gguf_goldens.py
"""

import gzip
import json
import math
import pathlib
import tempfile

import llama_cpp
import numpy as np
import sentencepiece
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).parent.parent
OUT = ROOT / "tests/goldens/gguf"
# Bytes of a block, and where its f16 scales lie.
FORMATS = {
    "Q4_0": (18, [0]), "Q4_1": (20, [0, 2]), "Q5_0": (22, [0]), "Q5_1": (24, [0, 2]), "Q8_0": (34, [0]),
    "Q4_K": (144, [0, 2]), "Q5_K": (176, [0, 2]), "Q6_K": (210, [208]),
}
TEXTS = ["", "a", "Hello world", "  two  spaces ", "We, the people of 1789", "\n\ttab\u00e9\u65e5\u672c \U0001f600", "it's\u2581odd", "zzzzqqqq"]


def blocks() -> dict:
    random, formats = np.random.default_rng(0), {}
    for name, (size, scales) in FORMATS.items():
        data = random.integers(0, 256, (3, size), dtype=np.uint8)
        for at in scales:
            data[:, at:at + 2] = (random.standard_normal(3) * 0.01).astype(np.float16).view(np.uint8).reshape(3, 2)
        numbers = dequantize(data.ravel(), GGMLQuantizationType[name])
        formats[name.lower()] = {"bytes": data.tobytes().hex(), "numbers": numbers.ravel().astype("<f4").tobytes().hex()}
    # Halves of a step, which are rounded away from zero; zeros; one large value; and numbers of any size.
    numbers = np.concatenate([
        np.r_[127, np.arange(-15, 16) + 0.5], np.zeros(32), np.r_[1e4, np.full(31, 1e-3)], random.standard_normal(32 * 5),
    ]).astype("<f4")
    quantized = quantize(numbers, GGMLQuantizationType.Q8_0)
    return {"decoded": formats, "encoded": {"numbers": numbers.tobytes().hex(), "bytes": quantized.tobytes().hex()}}


def llama() -> None:
    """As convert_hf_to_gguf.py does: rows of wq and wk turned back into pairs of neighbours, Llama 3.1's scaling as factors."""
    folder = ROOT / "tests/goldens/hf/scaled"
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    heads, dim, size, rope = config["num_attention_heads"], config["hidden_size"], config["head_dim"], config["rope_parameters"]
    writer = GGUFWriter(OUT / "scaled.gguf", "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(dim)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(size)
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_vocab_size(config["vocab_size"])

    def permute(weights: np.ndarray, heads: int) -> np.ndarray:
        rows, *rest = weights.shape
        return weights.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(weights.shape)

    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, values in tensors.items():
        module = name.removesuffix(".weight")
        if module in whole:
            writer.add_tensor(whole[module] + ".weight", values)
            continue
        _, _, layer, part = module.split(".", 3)
        if part in ("self_attn.q_proj", "self_attn.k_proj"):
            values = permute(values, heads)
        writer.add_tensor(f"blk.{layer}.{names[part]}.weight", values)
    factors = []
    low, high = (rope["original_max_position_embeddings"] / rope[f"{end}_freq_factor"] for end in ("low", "high"))
    for pair in range(size // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * pair / size)
        smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (
            rope["high_freq_factor"] - rope["low_freq_factor"])
        factors.append(1 if wavelength < high else rope["factor"] if wavelength > low else
                       1 / ((1 - smooth) / rope["factor"] + smooth))
    writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    finish(writer)


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sentence_piece() -> dict:
    """A vocabulary of 450 tokens, learned from the sample."""
    with gzip.open(ROOT / "data/sample/c4-train.00000-of-00004.json.gz", "rt") as shard:
        text = "\n".join(json.loads(line)["text"] for line in shard)[:200_000]
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "text").write_text(text)
        sentencepiece.SentencePieceTrainer.train(
            input=f"{folder}/text", model_prefix=f"{folder}/m", vocab_size=450, model_type="bpe", byte_fallback=True,
            character_coverage=0.99, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2)
        model = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/m.model")
    writer = GGUFWriter(OUT / "sentencepiece.gguf", "llama")
    ids = range(model.vocab_size())
    kinds = [TokenType.UNKNOWN if model.is_unknown(i) else TokenType.CONTROL if model.is_control(i) else
             TokenType.BYTE if model.is_byte(i) else TokenType.NORMAL for i in ids]
    writer.add_vocab_size(len(ids))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([model.id_to_piece(i).encode() for i in ids])
    writer.add_token_scores([model.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    for add in (writer.add_block_count, writer.add_context_length, writer.add_embedding_length,
                writer.add_feed_forward_length, writer.add_head_count):
        add(1)
    writer.add_layer_norm_rms_eps(1e-5)
    finish(writer)
    other = llama_cpp.Llama(str(OUT / "sentencepiece.gguf"), vocab_only=True, verbose=False)
    made = {text: model.encode(text) for text in TEXTS}
    for text, tokens in made.items():
        assert tokens == other.tokenize(text.encode(), add_bos=False, special=False), text
    return made


OUT.mkdir(exist_ok=True)
(OUT / "blocks.json").write_text(json.dumps(blocks()) + "\n")
llama()
(OUT / "sentencepiece.json").write_text(json.dumps(sentence_piece()) + "\n")
