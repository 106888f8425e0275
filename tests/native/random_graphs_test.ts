/** Random graphs through all passes, on the native library.
 * @module */
import { assert } from "@std/assert";
import { interpret } from "../../graph/interpret.ts";
import { type Graph, isReal } from "../../graph/ir.ts";
import { autodiff } from "../../graph/passes/autodiff.ts";
import { verify } from "../../graph/verify.ts";
import { randomGraph, randomInputs } from "../graph/random_graphs.ts";
import { randomMixed } from "../graph/passes/graphs.ts";
import { errorOf, KIND, NativeSession } from "./native.ts";

const GRAPHS = KIND === "cuda" ? 20 : 100; // one that is emulated is slow

/** A random graph with the gradients of its parameters and of its real inputs. */
function withGradients(seed: number): Graph {
  const forward = randomGraph(seed);
  const states = forward.states.filter((s) => s.kind === "parameter").map((s) => s.name);
  const inputs = forward.inputs.filter((i) => isReal(i.value.dtype)).map((i) => i.name);
  return verify(autodiff(forward, { of: "loss", states, inputs }));
}

/** Fails unless the native library computes what the graph means, and leaves the same states behind. */
async function assertNative(graph: Graph, seed: number, tolerance: number): Promise<void> {
  const { inputs, memory } = randomInputs(graph, seed);
  using session = await NativeSession.open([graph], { memory });
  for (const first of [true, false]) {
    const expected = interpret(graph, { inputs, memory, first });
    const actual = await session.run(graph.name, inputs, first);
    for (const name in expected) {
      const error = errorOf(actual[name], expected[name]);
      assert(error <= tolerance, `output "${name}" is off by ${error} of its largest value`);
    }
    for (const { name } of graph.states) {
      const error = errorOf(await session.read(name), memory.get(name)!);
      assert(error <= tolerance, `state "${name}" is off by ${error} of its largest value`);
    }
  }
}

for (const [what, make] of [["forward", randomGraph], ["with gradients", withGradients]] as const) {
  Deno.test(`${GRAPHS} random graphs, ${what}, compiled with all passes, run natively as they mean`, async () => {
    for (let seed = 1; seed <= GRAPHS; seed++) {
      try {
        await assertNative(make(seed), seed, 1e-12);
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
    }
  });
}

Deno.test(`${GRAPHS} random steps in mixed precision run natively as they mean, but for a few roundings`, async () => {
  const errors: number[] = [];
  for (let seed = 1; seed <= GRAPHS; seed++) {
    const graph = randomMixed(seed), { inputs, memory } = randomInputs(graph, seed);
    using session = await NativeSession.open([graph], { memory });
    const expected = interpret(graph, { inputs, memory }), actual = await session.run(graph.name, inputs);
    for (const name in expected) errors.push(errorOf(actual[name], expected[name]));
    for (const { name } of graph.states) errors.push(errorOf(await session.read(name), memory.get(name)!));
  }
  errors.sort((a, b) => a - b);
  // A number that lies between two of bf16 may go the other way in f32: seldom, and then by one part in 256.
  const [most, nearlyAll] = [errors.at(-1)!, errors[Math.floor(0.95 * errors.length)]];
  assert(most <= 0.02, `the largest error is ${most} of the largest value`);
  assert(nearlyAll <= 1e-5, `19 of 20 errors are below ${nearlyAll} of the largest value`);
});
