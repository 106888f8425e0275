"""Makes what tests know of float8: casts by PyTorch, and a two-layer Llama by torchao.

- csrc/tests/float8_goldens.h: what casts give, as one hash for each type and list of numbers.
- tests/goldens/float8: three steps of gradient descent of the Llama of make_goldens.py, all linear layers but the last in float8, emulated,
  by each of torchao's recipes: losses, norms of gradients, and the gradients of the last step. A loss is the mean over tokens that count, a
  gradient that of the sum over all tokens. All else is float64; torchao multiplies in float32. For mxfp8, sizes are multiples of 32.

How to run (PyTorch from 2.12 on: its cast to float8_e4m3fn saturates since then):

    python3 -m venv /tmp/float8 && /tmp/float8/bin/pip install torch numpy torchao
    /tmp/float8/bin/python tools/make_float8_goldens.py
"""

import json
from pathlib import Path
from types import SimpleNamespace

import make_goldens as llama
import numpy as np
import torch
import torch.nn.functional as F
import torchao
from torchao.float8.config import Float8LinearConfig
from torchao.float8.float8_linear import matmul_with_hp_or_float8_args
from torchao.float8.float8_training_tensor import LinearMMConfig, ScaledMMConfig
from torchao.prototype.moe_training.mxfp8_linear import mx_mm
from torchao.prototype.mx_formats.config import MXFP8Dim0CastKernelChoice, MXFP8Dim1CastKernelChoice, ScaleCalculationMode
from torchao.quantization.quantize_.common.kernel_preference import KernelPreference

ROOT = Path(__file__).parent.parent
TYPES = dict(e4m3=torch.float8_e4m3fn, e5m2=torch.float8_e5m2)
COUNT = 10_000_000
RECIPES = ["tensorwise", "rowwise", "rowwise_with_gw_hp"]
LEARNING_RATE = 0.05
BLOCK = 32


# -- casts -------------------------------------------------------------------------------------------------------


def all_bf16():
    """All numbers of 16 bits, in order."""
    return torch.from_numpy(np.arange(1 << 16, dtype=np.uint16).view(np.int16)).view(torch.bfloat16)


def some_f32():
    """Numbers i = 0, 1, ... below COUNT: the bits i * 0x9e3779b1; but where i is odd, their exponent becomes one of 48 around those of float8."""
    i = np.arange(COUNT, dtype=np.uint64)
    bits = (i * 0x9E3779B1 & 0xFFFFFFFF).astype(np.uint32)
    near = bits & 0x807FFFFF | (100 + (bits >> 23 & 0xFF) % 48) << 23
    return torch.from_numpy(np.where(i % 2 == 1, near, bits).astype(np.uint32).view(np.float32))


def fnv(octets):
    """FNV-1a of 64 bits, over words of 4 octets each, little-endian."""
    value = 0xCBF29CE484222325
    for word in octets.view("<u4").tolist():
        value = (value ^ word) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def write_casts():
    lines = [
        f"// Made by tools/make_float8_goldens.py, of PyTorch {torch.__version__.split('+')[0]}: hashes of its casts to float8.",
        "#pragma once",
        "#include <cstdint>",
        "",
        "struct Float8Golden {",
        "  uint64_t all_bf16, some_f32;",
        "};",
    ]
    for name, dtype in TYPES.items():
        hashes = [fnv(x.to(dtype).view(torch.uint8).numpy()) for x in (all_bf16(), some_f32())]
        lines.append(f"constexpr Float8Golden {name.upper()} = {{{', '.join(f'0x{h:016x}' for h in hashes)}}};")
    (ROOT / "csrc" / "tests" / "float8_goldens.h").write_text("\n".join(lines) + "\n")


# -- training ----------------------------------------------------------------------------------------------------


def scaled_product(recipe):
    """x times the transposed weight, and its gradients, in float8."""
    if recipe == "mxfp8":
        e4m3 = torch.float8_e4m3fn
        by_torch = [KernelPreference.EMULATED, MXFP8Dim0CastKernelChoice.TRITON, MXFP8Dim1CastKernelChoice.TORCH]
        rest = [e4m3, e4m3, e4m3, BLOCK, *by_torch, ScaleCalculationMode.FLOOR, False]
        return lambda x, weight: mx_mm.apply(x.float(), weight.float(), *rest).double()
    config = Float8LinearConfig.from_recipe_name(recipe)
    products = LinearMMConfig(*[ScaledMMConfig(emulate=True)] * 3)
    return lambda x, weight: matmul_with_hp_or_float8_args.apply(x, weight.t(), products, config)


def float8_linear(recipe):
    """F.linear, in float8 but for the weight of the output layer."""
    product = scaled_product(recipe)

    def linear(x, weight):
        return F.linear(x, weight) if weight.shape[0] == llama.MODEL["vocab_size"] else product(x, weight)

    return linear


def train(recipe):
    """Three steps of gradient descent."""
    llama.F = SimpleNamespace(linear=float8_linear(recipe), silu=F.silu, cross_entropy=F.cross_entropy)
    p, steps = llama.leaves(llama.make_parameters()), []
    for step in range(llama.STEPS):
        tokens, targets, _ = llama.make_batch(step)
        loss_sum, count = llama.loss_sum_and_count(llama.llama(p, tokens), targets)
        for value in p.values():
            value.grad = None
        (loss_sum / tokens.numel()).backward()  # scales that are powers of two see by what it is divided
        norm = torch.sqrt(sum(value.grad.square().sum() for value in p.values()))
        steps.append({"loss": loss_sum.item() / count, "count": count, "grad_norm": norm.item()})
        with torch.no_grad():
            for value in p.values():
                value -= LEARNING_RATE * value.grad
    return {name: value.grad for name, value in p.items()}, steps


def main():
    write_casts()
    torch.set_num_threads(1)
    directory, recipes = ROOT / "tests" / "goldens" / "float8", {}
    directory.mkdir(exist_ok=True)
    for recipe in [*RECIPES, "mxfp8"]:
        if recipe == "mxfp8":
            llama.MODEL |= dict(n_kv_heads=llama.MODEL["n_heads"], ffn_hidden=2 * BLOCK)
            llama.BATCH, llama.TOKENS = 2, BLOCK
        gradients, recipes[recipe] = train(recipe)
        llama.write_safetensors(directory / f"{recipe}.safetensors", {k: g.to(torch.float32) for k, g in gradients.items()})
    versions = {"torch": torch.__version__.split("+")[0], "torchao": torchao.__version__}
    golden = versions | {"lr": LEARNING_RATE, "steps": recipes}
    (directory / "float8.json").write_text(json.dumps(golden, indent=2) + "\n")
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main()
