"""Text generation by transformers on a CPU, timed: the peer that generate.ts runs beside ours.

Makes a random Llama of the sizes given as JSON and saves it into a folder, if it is not there. Then every line on
standard input, `PROMPT NEW`, has it read PROMPT tokens and generate NEW greedily, one forward pass over the cache each,
which is what `model.generate` does less its own checks. It answers with a line of JSON: milliseconds until the first
token, milliseconds for the tokens after it, and all of them.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM


def saved(folder, sizes):
    """Makes the folder, unless it is there. Weights are larger than they usually start, so that the text varies."""
    if (Path(folder) / "config.json").exists():
        return
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.05, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(folder)


def generate(model, prompt, new):
    vocab = model.config.vocab_size
    ids = torch.tensor([[i * 7919 % vocab for i in range(prompt)]])
    tokens, start = [], time.perf_counter()
    with torch.inference_mode():
        out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        tokens.append(int(out.logits[0, -1].argmax()))
        first = time.perf_counter()
        for _ in range(new - 1):
            ids = torch.tensor([tokens[-1:]])
            out = model(input_ids=ids, past_key_values=out.past_key_values, use_cache=True)
            tokens.append(int(out.logits[0, -1].argmax()))
    end = time.perf_counter()
    return {"prefillMs": 1000 * (first - start), "decodeMs": 1000 * (end - first), "tokens": tokens}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--sizes", type=json.loads, required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    saved(args.folder, args.sizes)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    model = LlamaForCausalLM.from_pretrained(args.folder, dtype=dtype).eval()
    print(json.dumps({"version": f"transformers {transformers.__version__}, torch {torch.__version__}"}), flush=True)
    for line in sys.stdin:
        prompt, new = map(int, line.split())
        print(json.dumps(generate(model, prompt, new)), flush=True)


if __name__ == "__main__":
    main()
