/** Recorded steps made up for tests: what ran is given, an instruction begins where the one before it ended.
 * @module */
import { at as originAt } from "../../graph/origins.ts";
import type { InstructionTime, StepProfile } from "../../../train/report/profile.ts";

/** Kernel, scope, microseconds, FLOPs and bytes. */
export type Ran = readonly [kernel: string, scope: string, us: number, flops?: number, bytes?: number];

/** A step of which 0.5 ms were spent on waiting for data, and 0.1 ms on the call's way to the instructions and back. */
export function someProfile(step: number, actions: readonly { section: string; ran: readonly Ran[] }[]): StepProfile {
  const startMs = 1000 * step, calledMs = startMs + 0.5, clockNs = 5e12;
  let at = 1e6 * (calledMs + 0.1) + clockNs;
  const instructions = actions.flatMap(({ section, ran }, action) =>
    ran.map(([kernel, path, us, flops = 0, bytes = 0]): InstructionTime => {
      const { scope, phase } = originAt(path), from = { scope, phase };
      const beginNs = at, endNs = at += 1000 * us;
      return { kernel, ...from, section, action, stream: 0, flops, bytes, beginNs, endNs };
    })
  );
  return { step, startMs, calledMs, endMs: (at - clockNs) / 1e6 + 0.1, instructions };
}

/** Two microbatches and an update of a model with two layers: 90 us of instructions in a call of 290 us. */
export const twoMicrobatches = (step: number): StepProfile => {
  const ran: Ran[] = [
    ["embedding", "tok_embeddings", 2],
    ["gemm", "layers.0.attention.wq", 4, 8e6, 1e3],
    ["attention", "layers.0.attention", 5, 5e6, 1e3],
    ["gemm", "layers.1.attention.wq", 4, 8e6, 1e3],
    ["gemm", "layers.1.attention.wq'", 10, 16e6, 2e3],
    ["gemm", "layers.0.attention.wq'", 10, 16e6, 2e3],
  ];
  const update: Ran[] = [["adamw", "", 17, 1e4, 2e5], ["copy", "output loss", 3, 0, 8]];
  return someProfile(step, [
    { section: "microbatch", ran },
    { section: "microbatch", ran },
    { section: "update", ran: update },
  ]);
};
