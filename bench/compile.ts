/** Compile time by pass: `deno task bench:compile --flavor 405B --blocks 126,504`, or of a rank of a mesh: `--mesh dp_shard=512,tp=8`.
 * Times are seconds; the last column divides by that of the first number of blocks, and by how many times as many blocks there are: 1 is
 * growth like the model's.
 * @module */
import { parseArgs } from "node:util";
import { encode } from "../graph/passes/encode.ts";
import { memory } from "../graph/passes/memory.ts";
import { runPass } from "../graph/pass.ts";
import { cpu } from "../graph/target/cpu.ts";
import { Llama, llamaConfig } from "../model/llama.ts";
import { Mesh } from "../parallel/mesh.ts";
import { passes } from "../train/compile.ts";
import { complete } from "../train/options.ts";
import { bindRanks } from "../train/ranks.ts";
import { stepGraphs } from "../train/step_plan.ts";
import { texts } from "../data/dataset.ts";

const { values } = parseArgs({
  options: {
    flavor: { type: "string", default: "405B" },
    blocks: { type: "string", default: "126,504" },
    mesh: { type: "string" },
  },
});

/** Seconds of each stage, in order. */
function timed(numLayers: number): Map<string, number> {
  const times = new Map<string, number>();
  const time = <T>(name: string, work: () => T): T => {
    const start = performance.now(), result = work();
    times.set(name, (times.get(name) ?? 0) + (performance.now() - start) / 1000);
    return result;
  };
  const model = new Llama(llamaConfig(values.flavor, { numLayers }));
  const degrees = values.mesh &&
    Object.fromEntries(values.mesh.split(",").map((part) => part.split("=")).map(([k, v]) => [k, Number(v)]));
  const mesh = degrees ? new Mesh(degrees, Object.values(degrees).reduce((a, b) => a * b, 1)) : undefined;
  const options = {
    ...complete({ model, data: texts("nowhere"), steps: 1, batch: 1, seqLen: 8192 }),
    ranks: mesh && { mesh, rank: 0 },
  };
  const graphs = time("trace, autodiff", () => stepGraphs(options));
  const ranks = options.ranks && time("plan", () => bindRanks(model, graphs, options.ranks!));
  const list = time("plan", () => passes({ precision: { param: "bf16", reduce: "f32", stored: "f32" }, ranks }));
  const compiled = graphs.map((graph) => list.reduce((g, pass) => time(pass.name, () => runPass(pass, g)), graph));
  const plan = time("memory", () => memory(compiled, { target: cpu, threads: 2 }));
  if (!mesh) time("encode", () => encode(plan));
  const nodes = graphs.reduce((n, g) => n + g.nodes.length, 0);
  console.log(`${numLayers} blocks: ${nodes.toLocaleString("en-US")} traced nodes`);
  return times;
}

const counts = values.blocks.split(",").map(Number);
timed(2); // so that the engine has compiled what is measured
const all = counts.map(timed), total = (times: Map<string, number>) => [...times.values()].reduce((a, b) => a + b, 0);
const row = (name: string, seconds: readonly number[]) => {
  const grown = seconds.at(-1)! / seconds[0] / (counts.at(-1)! / counts[0]);
  console.log(
    `${name.padEnd(16)} ${seconds.map((s) => s.toFixed(2).padStart(8)).join("")} ${grown.toFixed(2).padStart(8)}`,
  );
};
for (const name of all[0].keys()) row(name, all.map((times) => times.get(name)!));
row("all", all.map(total));
