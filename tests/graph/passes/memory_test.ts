import { assert, assertEquals, assertThrows } from "@std/assert";
import { type Builder, f64, i32 } from "../../../graph/builder.ts";
import { type Graph, type Node, sizeBytes, type State, type Value } from "../../../graph/ir.ts";
import { interpret, type Memory } from "../../../graph/interpret.ts";
import type { MemoryPlan, SectionMemory } from "../../../graph/passes/memory.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { print } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { type TensorFunction, trace, traceGraph } from "../../../graph/trace.ts";
import { traceInitialize, traceUpdate } from "../../../train/optimizer.ts";
import { traceMicrobatch } from "../../../train/step.ts";
import { someRows, tinyLlama } from "../../model/tiny.ts";
import { assertClose, forSeeds } from "../random_graphs.ts";
import { Arena, assertRuns, assertSound } from "./arena.ts";
import { llamaBlock, randomStep } from "./graphs.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import { fuse, materialize, memory, tile } from "./on_cpu.ts";

const lower = (graph: Graph): Graph => materialize(fuse(simplify(graph)));
const planOf = (...graphs: Graph[]): MemoryPlan => memory(graphs, { threads: 2 });

Deno.test("no two values that live at the same time lie on one another: random graphs on a simulated arena", () => {
  forSeeds(220, (seed) => {
    const graph = lower(randomStep(seed)), plan = planOf(graph);
    try {
      assertSound(plan);
      assertRuns(plan, seed);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${print(graph)}`, { cause: error });
    }
  });
});

Deno.test("plans of graphs that fuse has not touched run as well", () => {
  forSeeds(60, (seed) => {
    const plan = planOf(materialize(randomStep(seed)));
    assertSound(plan);
    assertRuns(plan, seed);
  });
});

const model = tinyLlama(), shape = { batch: 2, seqLen: 4, dtype: "f64", globalTokens: 8 } as const;
const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const step = [
  traceInitialize(model, "f64"),
  traceMicrobatch(model, shape),
  traceUpdate(model, { ...shape, ...optimizer }),
];
const lowered = step.map((graph) => materialize(fuse(tile(simplify(graph), { rows: 3 }))));
const stepPlan = planOf(...lowered);
const statesOf = (kind: string): State[] =>
  [...stepPlan.states.values()].map((s) => s.state).filter((s) => s.kind === kind);

Deno.test("a whole step of a Llama runs in one arena: first values, two microbatches, update", () => {
  assertSound(stepPlan);
  const arena = new Arena(stepPlan), expected: Memory = new Map();
  const rows = someRows(2, 4, 32), inputs = { seed: [1, 2], lr: [0.01], step: [1], ...rows };
  const run = (at: number, first: boolean): void => {
    const results = interpret(step[at], { inputs, memory: expected, first });
    const actual = arena.run(stepPlan.sections[at], inputs, first);
    for (const name in results) assertClose(actual[name], results[name], 1e-12, name);
  };
  run(0, true);
  for (const first of [true, false]) run(1, first);
  run(2, true);
  for (const [name, value] of expected) assertClose(arena.state(name), value, 1e-12, name);
  assert(expected.size > 80);
});

Deno.test("AdamW moves parameters and moments where they are", () => {
  const [, , update] = stepPlan.sections, parameters = statesOf("parameter").length;
  assertEquals(update.inPlaceAssigns.size, 3 * parameters);
  const { inputs, outputs } = lowered[2].nodes.find((n) => n.op === "adamw")!;
  for (let i = 0; i < 3 * parameters; i++) assertEquals(at(update, outputs[i]), at(update, inputs[i]));
  // What is left is a handful of scalars, and the partial sums of the norm.
  assert(update.allocations.every((b) => b.bytes <= 8 || b.label.startsWith("scratch of sum_squares")));
});

Deno.test("random first values are made in the parameters' own memory", () => {
  const [initialize] = stepPlan.sections,
    inPlace = [...initialize.inPlaceAssigns].map((n) => (n.attrs.states as string[])[0]);
  const random = statesOf("parameter").filter((s) => s.shape.length === 2);
  assert(random.length > 10 && random.every((s) => inPlace.includes(s.name)));
});

Deno.test("states that are read or added to as one lie one after another, in that order", () => {
  const offset = (name: string): number => stepPlan.states.get(name)!.offset;
  for (const prefix of ["", "gradient/"]) {
    for (const layer of ["layers.0", "layers.1"]) {
      for (const group of [["attention.wq", "attention.wk", "attention.wv"], ["feed_forward.w1", "feed_forward.w3"]]) {
        const names = group.map((w) => `${prefix}${layer}.${w}.weight`), [first] = names;
        assertEquals(offset(first) % cpu.alignment, 0);
        let end = offset(first);
        for (const name of names) {
          assertEquals(offset(name), end, name);
          end += sizeBytes(stepPlan.states.get(name)!.state);
        }
      }
    }
  }
});

Deno.test("buffers and caches are behind the other states, and counted by kind", () => {
  const state = (name: string, kind: State["kind"], ...shape: number[]): State => ({ name, kind, ...f64(...shape) });
  const states = [state("keys", "cache", 64), state("seen", "buffer", 16), state("w", "parameter", 8)];
  const { categories, states: placed } = planOf(traceGraph("g", states, () => {}));
  assertEquals([...placed.keys()], ["w", "seen", "keys"]);
  assertEquals([categories.parameter, categories.buffer, categories.cache], [64, 128, 512]);
});

Deno.test("states lie by kind, and the graphs' values share what is left", () => {
  const order = [...stepPlan.states.values()].toSorted((a, b) => a.offset - b.offset).map((s) => s.state.kind);
  assertEquals([...new Set(order)], ["parameter", "gradient", "moment", "sum"]);
  assertEquals(order.filter((kind, i) => kind !== order[i - 1]).length, 4);
  const ends = lowered.map((g) => planOf({ ...g, states: [...step[2].states] })).map((p) => p.categories.transient);
  assertEquals(stepPlan.categories.transient, Math.max(...ends));
});

const f = (fn: TensorFunction, ...shapes: number[][]): MemoryPlan => planOf(trace(fn, ...shapes.map((s) => f64(...s))));
/** Arena offset of the memory that a value lies on. */
const at = (section: SectionMemory, value: Value): number => section.spotOf(section.places.of.get(value)!.base).offset;
/** Arena offsets of the first results of the nodes of these ops. */
const offsets = ({ sections: [section] }: MemoryPlan, ...ops: string[]): number[] =>
  section.graph.nodes.filter((n) => ops.includes(n.op)).map((n) => at(section, n.outputs[0]));

Deno.test("a chain of element-wise work stays in one place", () => {
  const plan = f((x) => x.exp().tanh().neg().sum(), [16]);
  assertEquals(offsets(plan, "exp", "tanh", "neg"), [0, 0, 0]);
  const values = plan.sections[0].allocations.filter(({ use }) => use !== "scratch");
  assertEquals(values.map((b) => [b.bytes, b.first, b.last]), [[128, 0, 3], [8, 3, 4]]);
});

Deno.test("a small value does not keep the memory of a large one", () => {
  const { sections: [section] } = f((x) => x.exp().slice([0], [4]).tanh(), [16]);
  assertEquals(section.allocations.map((b) => [b.bytes, b.last]), [[128, 2], [32, 3]]);
});

Deno.test("what is needed later is not written over", () => {
  const plan = f((x) => {
    const y = x.exp();
    return y.tanh().mul(y).sum();
  }, [16]);
  const [exp, tanh, mul] = offsets(plan, "exp", "tanh", "mul");
  assert(exp !== tanh && (mul === tanh || mul === exp));
});

Deno.test("a result lives to the end, and what only the next node reads makes room for the one after", () => {
  const square = (t: Tensor): Tensor => t.contract("a b, b c -> a c", t);
  const used = ({ sections }: MemoryPlan) =>
    Math.max(...sections.flatMap((s) => s.allocations).map((b) => b.offset + b.bytes));
  assertEquals(used(f((x) => Array.from({ length: 6 }).reduce<Tensor>(square, x), [4, 4])), 2 * 128);
  const all = (x: Tensor) =>
    Array.from({ length: 5 }).reduce<Tensor[]>((list) => [...list, square(list.at(-1)!)], [x]).slice(1);
  assertEquals(used(f(all, [4, 4])), 5 * 128);
});

Deno.test("the arena ends with a page", () => {
  const square = (t: Tensor): Tensor => t.contract("a b, b c -> a c", t);
  assertEquals([[4, 4], [16, 32], [23, 23]].map(([n]) => f(square, [n, n]).arenaBytes), [4096, 4096, 8192]);
});

Deno.test("scratch is there while its node runs", () => {
  const graph = trace((x) => x.apply("sum_squares")[0], f64(9000)), { sections: [section] } = planOf(graph);
  const scratch = section.scratchOf(graph.nodes[0])!;
  assertEquals(scratch.bytes, 8 * 3);
  assertEquals(section.allocations.map((b) => b.label).toSorted(), ["scratch of sum_squares", "sum_squares"]);
});

Deno.test("what backward needs of forward is marked as kept", () => {
  const { sections: [section] } = planOf(lower(llamaBlock()));
  const kept = section.allocations.filter((b) => b.use === "kept").map((b) => b.label).toSorted();
  assertEquals([...new Set(kept)], [
    "add_rmsnorm ffn_norm",
    "attention attention",
    "contract attention.wo", // add_rmsnorm puts the sum in its place
    "contract attention.wq",
    "contract feed_forward.w1",
    "contract feed_forward.w2", // so does the block's last sum
    "map feed_forward",
    "rmsnorm attention_norm",
    "rope_table",
  ]);
});

Deno.test("inputs and outputs of a section are packed by name, on cache lines", () => {
  const graph = trace((x, ids) => [x.sum(), x.mul(ids.cast("f32").sum())], { dtype: "f32", shape: [5] }, i32(20));
  const { sections: [section] } = planOf(graph);
  assertEquals(section.inputs.map((s) => [s.name, s.offset]), [["x0", 0], ["x1", 64]]);
  assertEquals(section.outputs.map((s) => [s.name, s.offset]), [["y0", 0], ["y1", 64]]);
  assertEquals([section.inputBytes, section.outputBytes], [192, 128]);
});

const w: State = { name: "w", kind: "parameter", ...f64(2, 2) }, u: State = { ...w, name: "u" };

/** Names of the states that are assigned in place. */
function inPlace(body: (read: (name: string) => Tensor, builder: Builder) => Record<string, Tensor> | void): string[] {
  const graph = materialize(traceGraph("g", [w, u], (builder) => {
    return body((name) => new Tensor(builder, builder.read(name)), builder);
  }));
  const plan = planOf(graph);
  assertSound(plan);
  assertRuns(plan, 1);
  return [...plan.sections[0].inPlaceAssigns].map((n: Node) => String(n.attrs.states));
}

Deno.test("a new value of a state is made in its memory when nobody needs the old one any more", () => {
  assertEquals(inPlace((read, b) => b.assign("w", read("w").exp().value)), ["w"]);
  assertEquals(inPlace((read, b) => b.assign("w", read("u").contract("a b, b c -> a c", read("u")).value)), ["w"]);
  assertEquals(
    inPlace((read, b) => {
      const [x, y] = [read("w").exp(), read("u").exp()];
      b.assign("w", x.value);
      b.assign("u", y.value);
    }),
    ["w", "u"],
  );
});

Deno.test("a new value is made apart, and copied, when the old one is still read", () => {
  // by the same node, not element by element
  assertEquals(inPlace((read, b) => b.assign("w", read("w").contract("a b, b c -> a c", read("w")).value)), []);
  assertEquals(
    inPlace((read, b) => {
      const x = read("w");
      b.assign("w", x.mul(x.transpose(0, 1)).value);
    }),
    [],
  );
  // by a later node
  assertEquals(
    inPlace((read, b) => {
      const x = read("w"), y = x.exp(), z = x.sum();
      b.assign("w", y.value);
      return { z };
    }),
    [],
  );
  // by a node between the first piece of the new value and the last
  assertEquals(
    inPlace((read, b) => {
      const x = read("w"), row = read("u").exp().slice([0, 0], [1, 2]);
      const first = row.tanh(), second = row.mul(x.sum());
      b.assign("w", first.concat([second]).value);
    }),
    [],
  );
});

Deno.test("rows are put into a state where it is, unless its old value is read later or gives the rows", () => {
  const ids = (b: Builder) => new Tensor(b, b.input("ids", i32(1))), row = (x: Tensor) => x.slice([1, 0], [1, 2]);
  const put = (x: Tensor, b: Builder, rows: Tensor) => b.assign("w", x.putRows(ids(b), rows).value);
  assertEquals(inPlace((read, b) => put(read("w"), b, row(read("u")))), ["w"]);
  assertEquals(inPlace((read, b) => put(read("w"), b, row(read("w")))), []);
  assertEquals(
    inPlace((read, b) => {
      const x = read("w"), y = x.putRows(ids(b), row(read("u"))), sum = x.sum();
      b.assign("w", y.value);
      return { sum };
    }),
    [],
  );
});

Deno.test("a value is made in one state at most, and not in one that is written once more afterwards", () => {
  assertEquals(
    inPlace((read, b) => {
      const x = read("u").exp();
      b.assign("w", x.value);
      b.assign("u", x.value);
    }),
    ["w"],
  );
  assertEquals(
    inPlace((read, b) => {
      const x = read("u").exp();
      b.accumulate("w", x.value, false);
      b.assign("w", x.tanh().value);
    }),
    ["w"],
  );
  assertEquals(
    inPlace((read, b) => {
      const x = read("u").exp(), y = x.tanh();
      b.accumulate("w", x.value, false);
      b.assign("w", y.value);
    }),
    [],
  );
});

Deno.test("a state cannot lie in two groups", () => {
  const states = ["a", "b", "c"].map((name): State => ({ ...w, name }));
  const graph = traceGraph("g", states, (builder) => {
    const [x, y] = [builder.read("a", "b"), builder.read("b", "c")].map((v) => new Tensor(builder, v));
    return { z: x.add(y) };
  });
  assertThrows(() => planOf(graph), Error, "Cannot place states [b,c] and [a,b]: one state in two groups");
});
