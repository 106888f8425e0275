"""A Llama training step in PyTorch on a CPU or a GPU, eager or compiled, timed: the peers that bench.ts runs beside ours.

Meant to be as good as plain PyTorch gets without exotic tricks: scaled_dot_product_attention, fused RMSNorm, one
product for q, k and v and one for w1 and w3, fused AdamW; bf16 is autocast over f32 weights. Prints `first step` when
that step has ended, and at the end

    tokens/s MEDIAN best BEST peak GB RESIDENT [compile s SECONDS] loss LOSS threads N version torch VERSION

where RESIDENT is what the process has had, of a GPU what PyTorch has had of it, and `compile s` is how much longer the first step took than the median one: what torch.compile spends.

Shape letters: B batch, T tokens, D model, F hidden, H query heads, G key/value heads, K head size, V vocabulary.
"""

import argparse
import contextlib
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

NORM_EPS = 1e-5
ROPE_THETA = 500000.0


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_BTD):
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, NORM_EPS)


def rope(x_BTHK, cos_TK, sin_TK):
    """Rotates the adjacent pairs of a head."""
    even, odd = x_BTHK.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos_TK - odd * sin_TK, even * sin_TK + odd * cos_TK), dim=-1).flatten(-2)


class Attention(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.heads, self.kv_heads, self.head_size = size["numHeads"], size["numKvHeads"], size["dim"] // size["numHeads"]
        self.wqkv = nn.Linear(size["dim"], (self.heads + 2 * self.kv_heads) * self.head_size, bias=False)
        self.wo = nn.Linear(size["dim"], size["dim"], bias=False)

    def forward(self, x_BTD, cos_TK, sin_TK):
        B, T, _ = x_BTD.shape
        qkv = self.wqkv(x_BTD).view(B, T, -1, self.head_size)
        q_BTHK, k_BTGK, v_BTGK = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=2)
        q_BHTK, k_BGTK = rope(q_BTHK, cos_TK, sin_TK).transpose(1, 2), rope(k_BTGK, cos_TK, sin_TK).transpose(1, 2)
        o_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BGTK, v_BTGK.transpose(1, 2), is_causal=True, enable_gqa=self.kv_heads != self.heads
        )
        return self.wo(o_BHTK.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.w13 = nn.Linear(size["dim"], 2 * size["ffnHiddenDim"], bias=False)
        self.w2 = nn.Linear(size["ffnHiddenDim"], size["dim"], bias=False)

    def forward(self, x_BTD):
        gate_BTF, up_BTF = self.w13(x_BTD).chunk(2, dim=-1)
        return self.w2(F.silu(gate_BTF) * up_BTF)


class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.attention, self.feed_forward = Attention(size), FeedForward(size)
        self.attention_norm, self.ffn_norm = RMSNorm(size["dim"]), RMSNorm(size["dim"])

    def forward(self, x_BTD, cos_TK, sin_TK):
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_TK, sin_TK)
        return x_BTD + self.feed_forward(self.ffn_norm(x_BTD))


class Llama(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.tok_embeddings = nn.Embedding(size["vocabSize"], size["dim"])
        self.layers = nn.ModuleList(Block(size) for _ in range(size["numLayers"]))
        self.norm = RMSNorm(size["dim"])
        self.output = nn.Linear(size["dim"], size["vocabSize"], bias=False)
        half = torch.arange(0, size["dim"] // size["numHeads"], 2) / (size["dim"] // size["numHeads"])
        angle_TK = torch.outer(torch.arange(size["seqLen"]).float(), ROPE_THETA**-half)[:, None]
        self.register_buffer("cos_TK", angle_TK.cos(), persistent=False)
        self.register_buffer("sin_TK", angle_TK.sin(), persistent=False)

    def forward(self, tokens_BT):
        x_BTD = self.tok_embeddings(tokens_BT)
        for layer in self.layers:
            x_BTD = layer(x_BTD, self.cos_TK, self.sin_TK)
        return self.output(self.norm(x_BTD))


def main():
    sizes = json.loads((Path(__file__).parent / "sizes.json").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sizes, default="debug")
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the timed ones")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=None, help="default: what PyTorch takes, one per core")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32", help="bf16: autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile (needs a C++ compiler)")
    parser.add_argument("--mode", default="default", help="of torch.compile")
    arguments = parser.parse_args()
    size = sizes[arguments.size]
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    torch.set_default_device(arguments.device)
    torch.manual_seed(0)
    model = Llama(size)
    for parameter in model.layers.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02)
    nn.init.normal_(model.output.weight, std=size["dim"] ** -0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True)

    def loss_of(row_BT):
        logits_BTV = model(row_BT[:, :-1])
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), row_BT[:, 1:].flatten())

    forward = torch.compile(loss_of, mode=arguments.mode) if arguments.compile else loss_of
    precision = torch.autocast(arguments.device, torch.bfloat16) if arguments.dtype == "bf16" else contextlib.nullcontext()

    def step(row_BT):
        with precision:
            loss = forward(row_BT)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    seconds = []
    for index in range(arguments.warmup + arguments.steps):
        row_BT = torch.randint(size["vocabSize"], (size["batch"], size["seqLen"] + 1))
        start = time.perf_counter()
        loss = step(row_BT)
        seconds.append(time.perf_counter() - start)
        if index == 0:
            print("first step", flush=True)
    timed = seconds[arguments.warmup :]
    # Linux counts in KiB, macOS in bytes
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if arguments.device == "cuda":
        peak_bytes = torch.cuda.max_memory_reserved()
    tokens = size["batch"] * size["seqLen"]
    compiling = f" compile s {seconds[0] - statistics.median(timed):.2f}" if arguments.compile else ""
    print(
        f"tokens/s {tokens / statistics.median(timed):.1f} best {tokens / min(timed):.1f}"
        f" peak GB {peak_bytes / 1e9:.2f}{compiling} loss {loss:.4f}"
        f" threads {torch.get_num_threads()} version torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
