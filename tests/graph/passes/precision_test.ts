import { assert, assertEquals } from "@std/assert";
import { f32, i32 } from "../../../graph/builder.ts";
import { interpret } from "../../../graph/interpret.ts";
import type { Graph, State, Type } from "../../../graph/ir.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import { fullPrecision } from "../../../graph/passes/precision.ts";
import { remat } from "../../../graph/passes/remat.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { print } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { golden } from "../../golden.ts";
import { assertSameMeaning, forSeeds, randomGraph, randomInputs } from "../random_graphs.ts";
import { llamaBlock, precisions, randomMixed } from "./graphs.ts";
import { fuse, precision } from "./on_cpu.ts";

const parameter = (name: string, ...shape: number[]): State => ({ name, kind: "parameter", ...f32(...shape) });

Deno.test("full precision, and a graph in f64, are left alone", () => {
  const single = randomGraph(1, { dtype: "f32" }), double = randomGraph(1);
  assertEquals(print(precision(single, fullPrecision)), print(single));
  for (const options of precisions) assertEquals(print(precision(double, options)), print(double));
});

Deno.test("random graphs stay close to what they mean in f32, and are not the same", () => {
  let changed = 0;
  forSeeds(100, (seed) => {
    const before = randomGraph(seed, { dtype: "f32" }), text = print(before);
    const after = verify(precision(before, { ...fullPrecision, param: "bf16" }));
    assertEquals(print(before), text, "the graph it was given has changed");
    const { inputs, memory } = randomInputs(before, seed);
    const [expected, actual] = [before, after].map((g) => interpret(g, { inputs, memory: new Map(memory) }));
    for (const name in expected) {
      const scale = Math.max(1, ...expected[name].data.map(Math.abs));
      const error = Math.max(...expected[name].data.map((x, i) => Math.abs(actual[name].data[i] - x))) / scale;
      if (error > 0) changed++;
      // Some random graphs amplify what is rounded.
      assert(error < 0.5, `output "${name}" of seed ${seed} is off by ${error}`);
    }
  });
  assert(changed > 20, `bf16 shows in ${changed} outputs only`);
});

Deno.test("simplify and fuse keep every rounding of random graphs", () => {
  forSeeds(120, (seed) => {
    const before = verify(randomMixed(seed));
    assertSameMeaning(before, verify(fuse(verify(simplify(before)))), seed, 1e-9);
  });
});

/** `loss = (x w^T)^2`, its gradient, and the update of w by a hundredth of it. */
function smallStep(): Graph {
  const forward = traceGraph("step", [parameter("w", 3, 4)], (builder) => {
    const x = new Tensor(builder, builder.input("x", f32(2, 4))), w = new Tensor(builder, builder.read("w"));
    return { loss: x.contract("b i, o i -> b o", w).square().sum() };
  });
  return autodiff(forward, { of: "loss", states: ["w"] });
}

Deno.test("products round their operands, the sum of a gradient stays f32 unless it is asked otherwise", () => {
  const text = (options: Partial<typeof fullPrecision>) =>
    print(simplify(precision(smallStep(), { ...fullPrecision, ...options })));
  golden(
    "graph/precision",
    [
      `# in f32\n${text({})}`,
      `# mixed_precision_param = bfloat16\n${text({ param: "bf16" })}`,
      `# mixed_precision_reduce = bfloat16\n${text({ reduce: "bf16" })}`,
      `# dtype = bfloat16\n${text({ stored: "bf16" })}`,
    ].join("\n"),
  );
});

Deno.test("a product that products, attention or the look-up of rows read is stored as bf16, one for a sum or a norm is not", () => {
  const storedFor = (read: (x: Tensor, ids: Tensor, more: Tensor[]) => Tensor) => {
    const graph = traceGraph("g", [], (builder) => {
      const input = (name: string, type: Type) => new Tensor(builder, builder.input(name, type));
      const [x, w] = ["x", "w"].map((name) => input(name, f32(4, 4))), ids = input("ids", i32(4));
      const more = [input("table", f32(4, 4)), input("heads", f32(1, 4, 1, 4)), input("places", i32(1, 4))];
      return { y: read(x.contract("a b, b c -> a c", w), ids, more) };
    });
    return precision(graph, { ...fullPrecision, param: "bf16" }).nodes.find((n) => n.op === "contract")!.attrs.bf16;
  };
  const heads = (x: Tensor) => x.reshape("(b t) (h k) -> b t h k", { b: 1, h: 1 });
  const rounded: Parameters<typeof storedFor>[0][] = [
    (x) => x.contract("a b, c b -> a c", x),
    (x) => x.mul(x),
    (x, ids) => ids.apply("embedding", [x])[0],
    (x, ids) => ids.apply("embedding_backward", [x], { rows: 8 })[0],
    (x, _ids, [table]) => heads(x).apply("rope", [table.reshape("(b t) k -> b t k", { b: 1 })])[0],
    (x, _ids, [, kv, places]) => heads(x).apply("attention", [kv, kv, places, places], { scale: 1 })[0],
  ];
  const exact: typeof rounded = [
    (x) => x.add(x),
    (x) => x.sum(),
    (x) => x.softmax(),
    (x, _ids, [table]) => x.concat([table], 0).sub(x.concat([x], 0)),
    (x, ids) => x.apply("cross_entropy", [ids], { ignore_index: -1 })[0],
    (x) => x.apply("sum_squares")[0],
  ];
  rounded.forEach((read) => assertEquals(storedFor(read), [0], String(read)));
  exact.forEach((read) => assertEquals(storedFor(read), undefined, String(read)));
});

Deno.test("all casts of a Llama block become part of kernels", () => {
  const block = llamaBlock("f32"), before = verify(precision(block, { ...fullPrecision, param: "bf16" }));
  const after = verify(fuse(verify(remat(simplify(before)))));
  assertSameMeaning(before, after, 1, 1e-9);
  assertEquals(after.nodes.filter((n) => n.op === "cast").map((n) => n.scope), []);
  golden("graph/precision_block", print(after));
});

Deno.test("integers are no one's precision", () => {
  const graph = traceGraph("g", [parameter("table", 5, 2)], (builder) => {
    const ids = new Tensor(builder, builder.input("ids", i32(3)));
    return { y: ids.apply("embedding", [new Tensor(builder, builder.read("table"))])[0] };
  });
  const after = verify(simplify(precision(graph, { param: "bf16", reduce: "bf16", stored: "bf16" })));
  assertEquals(after.nodes.map((n) => n.op), ["read", "cast", "embedding"]);
  assertEquals(fuse(after).nodes.map((n) => n.op), ["read", "embedding"]);
});
