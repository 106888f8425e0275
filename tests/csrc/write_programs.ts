/** Writes encoded programs of real training steps, small ones, for the loader's fuzzer to start from:
 * `deno run --allow-read --allow-write tests/csrc/write_programs.ts FOLDER`
 * @module */
import { encode } from "../../graph/passes/encode.ts";
import { f32 } from "../../graph/builder.ts";
import type { Attrs } from "../../graph/ir.ts";
import { Tensor } from "../../graph/tensor.ts";
import { grad, trace, traceGraph } from "../../graph/trace.ts";
import { compileGraphs } from "../../train/compile.ts";
import { compileStep, type StepOptions } from "../../train/step_plan.ts";
import { fullPrecision } from "../../graph/passes/precision.ts";
import { SmallExperts } from "../model/experts.ts";
import { tinyLlama } from "../model/tiny.ts";
import { materialize, memory } from "../graph/passes/on_cpu.ts";

const defaults: StepOptions = {
  model: tinyLlama({ numLayers: 1 }),
  optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
  dtype: "f32",
  batch: 2,
  seqLen: 8,
  accumulation: 2,
  threads: 2,
};

/** What is special about each program. */
const variants: Readonly<Record<string, Partial<StepOptions>>> = {
  plain: {},
  two_layers: { model: tinyLlama(), threads: 1 },
  documents: { documents: true, evaluate: { batch: 1, seqLen: 8 } },
  double: { dtype: "f64" },
  experts: { model: new SmallExperts() },
  mixed: { precision: { ...fullPrecision, param: "bf16", stored: "bf16" } },
};

/** A graph of few instructions, which the loader reads in a moment. */
function small(): Uint8Array {
  const loss = (a: Tensor, b: Tensor): Tensor => a.matmul(b).softmax(-1).square().sum();
  return compileGraphs([trace(loss, f32(4, 3), f32(3, 5)), trace(grad(loss), f32(4, 3), f32(3, 5))], { threads: 1 })
    .program
    .bytes;
}

/** Rows by index, and what makes indices. */
function integers(): Uint8Array {
  const rows = (scores: Tensor, x: Tensor): Tensor => {
    const [largest, ids] = scores.topK(3), places = ids.cumsum(1).less(4).select(ids, ids.constant(-1, ids.shape));
    return x.take(places).scatterAdd(places, 6).putRows(ids, x.take(ids)).add(largest.sum());
  };
  const graphs = [trace(rows, f32(4, 6), f32(4, 6, 2)), trace(rows, f32(1, 6), f32(1, 6, 8))];
  return compileGraphs(graphs, { threads: 2 }).program.bytes;
}

/** What one of three ranks runs: every collective. */
function collectives(): Uint8Array {
  const graph = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f32(6, 3))), attrs = { axes: ["tp"], size: 3, group: [2, 0, 1] };
    const apply = (op: string, t: Tensor, own: Attrs) => t.apply(op, [], { ...attrs, ...own })[0];
    const piece = apply("reduce_scatter", x.exp(), { dim: 0, by: "max" }),
      whole = apply("all_gather", piece, { dim: 1 });
    const sum = apply("all_reduce", whole.square(), { by: "sum" });
    const moved = apply("all_to_all", x.square(), { split: 0, join: 1 });
    const types = [moved, piece, sum].map(({ dtype, shape }) => ({ dtype, shape }));
    const ends = { size: 3, group: [2, 0, 1], member: 1, from: [1, 0, 1], to: [0, 1, 2], types };
    const [received] = builder.emit("exchange", [moved.value, sum.value], ends);
    const y = sum.add(apply("ring_shift", whole, {}));
    return { y, z: x.neg(), received: new Tensor(builder, received) };
  });
  const ready = [graph, { ...graph, name: "again" }].map((g) => materialize({ ...g, level: "rank" }));
  return encode(memory(ready, { threads: 1 })).bytes;
}

/** Writes them into a folder that is made where it is missing, and returns their paths. */
export async function writePrograms(folder: string): Promise<string[]> {
  await Deno.mkdir(folder, { recursive: true });
  const steps = Object.entries(variants).map(([name, options]) => {
    return [name, compileStep({ ...defaults, ...options }).program.bytes] as const;
  });
  const graphs = [["small", small()], ["integers", integers()], ["collectives", collectives()]] as const;
  return await Promise.all(
    [...graphs, ...steps].map(async ([name, bytes]) => {
      const path = `${folder}/${name}.program`;
      await Deno.writeFile(path, bytes);
      return path;
    }),
  );
}

if (import.meta.main) {
  const [folder] = Deno.args;
  if (!folder) {
    console.error("expected: a folder to write the programs to");
    Deno.exit(2);
  }
  await writePrograms(folder);
}
