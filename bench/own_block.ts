/** Element-wise work of a block that libtitan does not know, forward and backward: how many passes over memory it takes, and
 * how fast they are beside the memory itself. `deno run -A bench/own_block.ts [rows] [dim]`
 * @module */
import { Actions, Struct } from "../ffi/buffer.ts";
import { Device } from "../ffi/device.ts";
import { Program } from "../ffi/program.ts";
import { Flag } from "../ffi/symbols.ts";
import type { State } from "../graph/ir.ts";
import { autodiff } from "../graph/passes/autodiff.ts";
import { Tensor } from "../graph/tensor.ts";
import { traceGraph } from "../graph/trace.ts";
import { compileGraphs } from "../train/compile.ts";
import { median } from "./report.ts";

const [rows, dim] = [Deno.args[0] ?? "4096", Deno.args[1] ?? "1024"].map(Number);
const sizes = { x: [rows, dim], gate: [dim, dim], value: [dim, dim], out: [dim, dim] };
const states = Object.entries(sizes).map(([name, shape]): State => ({ name, kind: "parameter", dtype: "f32", shape }));

/** A gate, a smooth clip and a residual between three products: eight element-wise ops, and their gradients. */
const forward = traceGraph("own_block", states, (builder) => {
  const [x, ...weights] = states.map((s) => new Tensor(builder, builder.read(s.name)));
  const project = (t: Tensor, w: Tensor) => t.contract("b i, o i -> b o", w);
  const [gate, value] = weights.map((w) => project(x, w));
  const mixed = gate.sigmoid().mul(value).add(x.mul(0.5)).tanh().mul(value.square());
  return { loss: project(mixed.add(x), weights[2]).square().sum() };
});

using device = new Device();
const graph = autodiff(forward, { of: "loss", states: ["gate", "value", "out"] });
const { program: { bytes, sections: [section] } } = compileGraphs([graph], { threads: device.info.threads });
using program = await Program.create(device, bytes, section);
const records = new Struct("titan_profile_record", section.instructions.length);
const seconds = section.instructions.map((): number[] => []);
for (let run = 0; run < 20; run++) {
  await program.profile(records);
  await program.run(new Actions([{ section: section.index, flags: Flag.FIRST }]));
  seconds.forEach((list, i) => list.push((records.get("end_ns", i) - records.get("begin_ns", i)) / 1e9));
}
const bandwidth = await device.measureBandwidth();
console.log(`own block over [${rows}, ${dim}], memory ${bandwidth.toFixed(1)} GB/s`);
for (const [i, { kernel, phase, bytes }] of section.instructions.entries()) {
  if (kernel !== "map") continue;
  const s = median(seconds[i]), rate = bytes / s / 1e9, share = 100 * rate / bandwidth;
  console.log(
    `  ${phase.padEnd(10)} ${(s * 1e3).toFixed(2)} ms, ${rate.toFixed(1)} GB/s, ${share.toFixed(0)} % of memory`,
  );
}
