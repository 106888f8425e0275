"""Reads shards as `datasets` streams them and tokenises each text with `tokenizers`; of both, PyPI has the package.

Prints a line of JSON: tokens, seconds, and seconds of processors. Arguments: tokenizer.json, number of tokens, shards.
"""

import json
import sys
import time

from datasets import load_dataset
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
most = int(sys.argv[2])
texts = load_dataset("json", data_files=sys.argv[3:], split="train", streaming=True)
tokens = 0
begun = None
for row in texts:
    tokens += len(tokenizer.encode(row["text"], add_special_tokens=False).ids) + 2
    if begun is None:  # what is opened once is not counted, of neither side
        begun, used, tokens = time.perf_counter(), time.process_time(), 0
    if tokens >= most:
        break
print(json.dumps({"tokens": tokens, "seconds": time.perf_counter() - begun, "used": time.process_time() - used}))
