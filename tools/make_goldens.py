"""Makes tests/goldens/parity: what a two-layer Llama computes in PyTorch, float64, on a CPU.

The model below is written for reading, not for speed: every tensor that a reader may want to compare has a
line of its own. Its behaviour follows torchtitan v0.2.2 (adjacent-pair RoPE, decay on every parameter, clip
coefficient min(1, max_norm / (norm + 1e-6))). Losses are means over valid tokens, summed per batch.

How to run (any PyTorch from 2.4 on; results agree to about 1e-15, so a rerun changes last digits only):

    python3 -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch numpy
    /tmp/goldens/bin/python tools/make_goldens.py

Files are named in tests/goldens/parity/README.md. Shape letters: B batch, T tokens, D model, F hidden, H query
heads, G key/value heads, K head size, V vocabulary, S steps.
"""

import json
import math
import struct
from pathlib import Path

import torch
import torch.nn.functional as F

DIRECTORY = Path(__file__).parent.parent / "tests" / "goldens" / "parity"

MODEL = dict(
    dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_hidden=48, vocab_size=61, norm_eps=1e-5, rope_theta=500000.0,
)
# Llama 3.1's; at a head size of 8 the four pairs fall into all three of its ranges (kept, kept, blended, divided)
SCALING = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
OPTIMIZER = dict(lr=1e-2, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, max_norm=1.0)
BATCH, TOKENS, STEPS = 3, 14, 3
IGNORE = -100
EOS = 0  # ends a document; chosen so that the tokens below contain some


# -- the model ---------------------------------------------------------------------------------------------------


def parameter_shapes():
    """Parameter FQN -> shape, in the order in which a Llama owns them."""
    dim, vocab, hidden = MODEL["dim"], MODEL["vocab_size"], MODEL["ffn_hidden"]
    kv_dim = MODEL["n_kv_heads"] * dim // MODEL["n_heads"]
    shapes = {"tok_embeddings.weight": (vocab, dim)}
    for n in range(MODEL["n_layers"]):
        shapes |= {
            f"layers.{n}.attention.wq.weight": (dim, dim),
            f"layers.{n}.attention.wk.weight": (kv_dim, dim),
            f"layers.{n}.attention.wv.weight": (kv_dim, dim),
            f"layers.{n}.attention.wo.weight": (dim, dim),
            f"layers.{n}.feed_forward.w1.weight": (hidden, dim),
            f"layers.{n}.feed_forward.w2.weight": (dim, hidden),
            f"layers.{n}.feed_forward.w3.weight": (hidden, dim),
            f"layers.{n}.attention_norm.weight": (dim,),
            f"layers.{n}.ffn_norm.weight": (dim,),
        }
    return shapes | {"norm.weight": (dim,), "output.weight": (vocab, dim)}


def make_parameters():
    """Element i of the p-th parameter is mean + scale * sin(1 + 0.7 i + 1.3 p + 0.011 i^2): no generator involved."""
    parameters = {}
    for p, (name, shape) in enumerate(parameter_shapes().items()):
        i = torch.arange(math.prod(shape), dtype=torch.float64)
        wave = torch.sin(1 + 0.7 * i + 1.3 * p + 0.011 * i * i).reshape(shape)
        mean = 1.0 if "norm" in name else 0.0
        scale = 0.25 if "norm" in name else 0.9 if "embeddings" in name else 1.5 / math.sqrt(shape[-1])
        parameters[name] = mean + scale * wave
    return parameters


def rmsnorm(x_BTD, weight_D):
    mean_square = x_BTD.pow(2).mean(-1, keepdim=True)
    return x_BTD * torch.rsqrt(mean_square + MODEL["norm_eps"]) * weight_D


def rope_frequencies(head_size, scaling):
    """Angle per position of each adjacent pair; `scaling` as in Llama 3.1, or None."""
    frequencies = []
    for i in range(head_size // 2):
        frequency = MODEL["rope_theta"] ** (-2 * i / head_size)
        if scaling is not None:
            factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
            original = scaling["original_max_position_embeddings"]
            wavelength = 2 * math.pi / frequency
            if wavelength > original / low:
                frequency /= factor
            elif wavelength >= original / high:
                smooth = (original / wavelength - low) / (high - low)
                frequency = (1 - smooth) * frequency / factor + smooth * frequency
        frequencies.append(frequency)
    return torch.tensor(frequencies, dtype=torch.float64)


def rope(x_BTHK, positions_BT, frequencies):
    angle = (positions_BT[:, :, None].double() * frequencies)[:, :, None, :]
    even, odd = x_BTHK[..., 0::2], x_BTHK[..., 1::2]
    rotated = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
    return torch.stack(rotated, dim=-1).flatten(-2)


def attention(p, prefix, x_BTD, positions_BT, documents_BT, frequencies):
    B, T, _ = x_BTD.shape
    heads, kv_heads = MODEL["n_heads"], MODEL["n_kv_heads"]
    q_BTHK = F.linear(x_BTD, p[f"{prefix}.wq.weight"]).view(B, T, heads, -1)
    k_BTGK = F.linear(x_BTD, p[f"{prefix}.wk.weight"]).view(B, T, kv_heads, -1)
    v_BTGK = F.linear(x_BTD, p[f"{prefix}.wv.weight"]).view(B, T, kv_heads, -1)
    q_BTHK, k_BTGK = rope(q_BTHK, positions_BT, frequencies), rope(k_BTGK, positions_BT, frequencies)
    # query head h reads key/value head h // (heads / kv_heads)
    k_BTHK, v_BTHK = (t.repeat_interleave(heads // kv_heads, dim=2) for t in (k_BTGK, v_BTGK))
    scores_BHTT = torch.einsum("bqhk,bshk->bhqs", q_BTHK, k_BTHK) / math.sqrt(q_BTHK.shape[-1])
    visible_BTT = positions_BT[:, None, :] <= positions_BT[:, :, None]
    if documents_BT is not None:
        visible_BTT = visible_BTT & (documents_BT[:, None, :] == documents_BT[:, :, None])
    weights_BHTT = scores_BHTT.masked_fill(~visible_BTT[:, None], -math.inf).softmax(-1)
    o_BTHK = torch.einsum("bhqs,bshk->bqhk", weights_BHTT, v_BTHK)
    return F.linear(o_BTHK.reshape(B, T, -1), p[f"{prefix}.wo.weight"])


def feed_forward(p, prefix, x_BTD):
    gate_BTF = F.silu(F.linear(x_BTD, p[f"{prefix}.w1.weight"]))
    return F.linear(gate_BTF * F.linear(x_BTD, p[f"{prefix}.w3.weight"]), p[f"{prefix}.w2.weight"])


def llama(p, tokens_BT, documents_BT=None, scaling=None):
    """Logits [B, T, V]. Positions count from 0 in every row, whatever its documents."""
    positions_BT = torch.arange(tokens_BT.shape[1]).expand(tokens_BT.shape)
    frequencies = rope_frequencies(MODEL["dim"] // MODEL["n_heads"], scaling)
    x_BTD = p["tok_embeddings.weight"][tokens_BT]
    for n in range(MODEL["n_layers"]):
        h_BTD = rmsnorm(x_BTD, p[f"layers.{n}.attention_norm.weight"])
        x_BTD = x_BTD + attention(p, f"layers.{n}.attention", h_BTD, positions_BT, documents_BT, frequencies)
        h_BTD = rmsnorm(x_BTD, p[f"layers.{n}.ffn_norm.weight"])
        x_BTD = x_BTD + feed_forward(p, f"layers.{n}.feed_forward", h_BTD)
    return F.linear(rmsnorm(x_BTD, p["norm.weight"]), p["output.weight"])


def loss_sum_and_count(logits_BTV, targets_BT):
    loss_sum = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORE, reduction="sum")
    return loss_sum, int((targets_BT != IGNORE).sum())


# -- data and training -------------------------------------------------------------------------------------------


def make_batch(step):
    """Tokens, targets and document ids [B, T] of one step: token t of row b is (7 t^2 + 11 t + 17 b + 5 step) mod V.
    The target is the next token, but ignored where (t + 2 b + step) mod 5 = 4. A document ends with its EOS."""
    b, t = torch.arange(BATCH)[:, None], torch.arange(TOKENS + 1)[None]
    row = (7 * t * t + 11 * t + 17 * b + 5 * step) % MODEL["vocab_size"]
    row = torch.where((t + 4 * b + step) % 6 == 5, EOS, row)
    tokens, targets = row[:, :-1], row[:, 1:].clone()
    targets[(t[:, :-1] + 2 * b + step) % 5 == 4] = IGNORE
    is_end = (tokens == EOS).long()
    return tokens, targets, is_end.cumsum(1) - is_end


def leaves(parameters):
    return {name: value.clone().requires_grad_() for name, value in parameters.items()}


def forward_backward(parameters, batch, use_documents, scaling):
    """One case: logits, loss and the gradient of loss_sum / count."""
    tokens, targets, documents = batch
    p = leaves(parameters)
    logits = llama(p, tokens, documents if use_documents else None, scaling)
    loss_sum, count = loss_sum_and_count(logits, targets)
    (loss_sum / count).backward()
    tensors = {"logits": logits.detach()} | {f"gradient/{name}": value.grad for name, value in p.items()}
    return tensors, {"loss_sum": loss_sum.item(), "count": count, "loss": loss_sum.item() / count}


def train(parameters):
    """STEPS steps of clipped AdamW; decay is on every parameter."""
    p = leaves(parameters)
    o = OPTIMIZER
    optimizer = torch.optim.AdamW(
        p.values(), lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"], weight_decay=o["weight_decay"],
    )
    steps = []
    for step in range(STEPS):
        tokens, targets, _ = make_batch(step)
        loss_sum, count = loss_sum_and_count(llama(p, tokens), targets)
        optimizer.zero_grad()
        (loss_sum / count).backward()
        norm = torch.sqrt(sum(value.grad.square().sum() for value in p.values()))
        coefficient = min(1.0, o["max_norm"] / (norm.item() + 1e-6))
        for value in p.values():
            value.grad.mul_(coefficient)
        optimizer.step()
        loss = loss_sum.item() / count
        steps.append({"loss_sum": loss_sum.item(), "count": count, "loss": loss, "grad_norm": norm.item()})
    return {name: value.detach() for name, value in p.items()}, steps


# -- files -------------------------------------------------------------------------------------------------------


def write_safetensors(path, tensors):
    """The safetensors format: u64 header bytes, JSON header, little-endian data in header order."""
    dtypes = {torch.float64: "F64", torch.float32: "F32", torch.int32: "I32"}
    header, chunks, offset = {}, [], 0
    for name, tensor in tensors.items():
        data = tensor.detach().contiguous().numpy().tobytes()
        offsets = [offset, offset + len(data)]
        header[name] = {"dtype": dtypes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def main():
    torch.set_num_threads(1)
    parameters = make_parameters()
    batches = {}
    for step in range(STEPS):
        for kind, value in zip(("tokens", "targets", "documents"), make_batch(step)):
            batches[f"{kind}.{step}"] = value.to(torch.int32)
    write_safetensors(DIRECTORY / "parameters.safetensors", parameters)
    write_safetensors(DIRECTORY / "batches.safetensors", batches)

    scalars = {}
    for case, use_documents, scaling in (
        ("plain", False, None), ("scaled", False, SCALING), ("documents", True, None),
    ):
        tensors, scalars[case] = forward_backward(parameters, make_batch(0), use_documents, scaling)
        write_safetensors(DIRECTORY / f"{case}.safetensors", tensors)
    tensors, scalars["steps"] = train(parameters)
    write_safetensors(DIRECTORY / "trained.safetensors", tensors)

    config = {
        "torch": torch.__version__.split("+")[0], "model": MODEL, "rope_scaling": SCALING,
        "optimizer": OPTIMIZER, "batch": BATCH, "tokens": TOKENS, "ignore_index": IGNORE,
    }
    (DIRECTORY / "parity.json").write_text(json.dumps(config | scalars, indent=2) + "\n")
    print(json.dumps(scalars, indent=1), sum(f.stat().st_size for f in DIRECTORY.iterdir()), "bytes")


if __name__ == "__main__":
    main()
