/** Speed of a product of 2048 x 2048 x 2048 (on a GPU, 8192) by this library, in GFLOP/s: what a step's share refers to. Prints
 * `product GF/s N`, the best of a few.
 * @module */

import { parseArgs } from "node:util";
import { Actions } from "../ffi/buffer.ts";
import { Device } from "../ffi/device.ts";
import { Program } from "../ffi/program.ts";
import { Builder } from "../graph/builder.ts";
import { targetOf } from "../graph/target/cuda.ts";
import type { Attrs, Graph, State } from "../graph/ir.ts";
import { compileGraphs } from "../train/compile.ts";

const REPEATS = 10;
const { values: { dtype, threads, device: kind } } = parseArgs({
  options: {
    dtype: { type: "string", default: "f32" },
    threads: { type: "string", default: "0" },
    device: { type: "string", default: "cpu" },
  },
});
const onGpu = kind === "cuda", N = onGpu ? 8192 : 2048;

/** A graph that multiplies state a with state b. In bf16 all three are stored so; the sums are f32. */
function product(dtype: "f32" | "bf16"): Graph {
  const states = ["a", "b", "c"].map((name): State => ({ name, kind: "parameter", dtype, shape: [N, N] }));
  const builder = new Builder("product", states);
  const attrs: Attrs = dtype === "bf16" ? { round: "bf16", bf16: [0] } : {};
  const [c] = builder.emit("contract", [builder.read("a"), builder.read("b")], { dims: "i k, k j -> i j", ...attrs });
  builder.assign("c", c);
  return builder.finish();
}

using device = new Device({ kind: onGpu ? "cuda" : "cpu", threads: Number(threads) });
const { plan, program: { bytes } } = compileGraphs([product(dtype === "bf16" ? "bf16" : "f32")], {
  threads: device.info.threads,
  target: targetOf(device.info),
});
using program = await Program.create(device, bytes);
// Whole numbers from -3 to 3, which the upper half of an f32 holds.
const numbers = Float32Array.from({ length: N * N }, (_, i) => i % 7 - 3);
const data = dtype === "bf16" ? new Uint16Array(numbers.buffer).filter((_, i) => i % 2 === 1) : numbers;
for (const name of ["a", "b"]) await program.write(plan.states.get(name)!.offset, data);
const actions = new Actions([{ section: 0 }]);
let least = Infinity;
for (let repeat = 0; repeat < REPEATS; repeat++) {
  const start = performance.now();
  await program.run(actions);
  least = Math.min(least, (performance.now() - start) / 1000);
}
console.log(`product GF/s ${(2 * N ** 3 / least / 1e9).toFixed(1)}`);
