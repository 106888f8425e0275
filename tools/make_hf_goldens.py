"""Makes tests/goldens/hf/: random Llamas of a few shapes as transformers saves them, each with the logits that it computes.

    python3 -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch transformers
    /tmp/goldens/bin/python tools/make_hf_goldens.py
"""

import json
import pathlib

import torch
from transformers import LlamaConfig, LlamaForCausalLM

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
BASE = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, intermediate_size=24,
            vocab_size=32, rms_norm_eps=1e-5, tie_word_embeddings=False)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8, rope_theta=500.0)
SHAPES = {
    "plain": {},
    "grouped": dict(num_key_value_heads=2),
    "tied": dict(tie_word_embeddings=True),
    "scaled": dict(rope_parameters=LLAMA3),
    "head_dim": dict(num_key_value_heads=2, head_dim=6),
    "odd": dict(vocab_size=37, intermediate_size=21),
}


def main() -> None:
    root = pathlib.Path(__file__).parent.parent / "tests/goldens/hf"
    for name, changes in SHAPES.items():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**{**BASE, **changes})).float().eval()
        for parameter in model.parameters():  # norms that are not all ones, and heads that differ
            parameter.data += 0.3 * torch.randn_like(parameter)
        folder = root / name
        # "odd" in several files of bf16, as large models come.
        if name == "odd":
            model = model.bfloat16()
        model.save_pretrained(folder, max_shard_size="4KB" if name == "odd" else "5GB")
        # As it lies there: rounded to bf16 are the weights alone, not the frequencies of RoPE.
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS])).logits[0]
        (folder / "logits.json").write_text(json.dumps({"tokens": TOKENS, "logits": logits.tolist()}) + "\n")


main()
