import { assertEquals, assertStrictEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { f64, i32 } from "../../../graph/builder.ts";
import type { Attrs, Graph, Level, Value } from "../../../graph/ir.ts";
import { numel } from "../../../graph/ir.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { chunkBoxes, lossRegions, rowBoxes } from "../../../graph/passes/tile.ts";
import { print } from "../../../graph/print.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { golden } from "../../golden.ts";
import { assertSameMeaning, forSeeds, Random, randomGraph } from "../random_graphs.ts";
import { headGradients, headGraph } from "./graphs.ts";
import { at } from "../origins.ts";
import { tile } from "./on_cpu.ts";

Deno.test("rows are cut into boxes: whole sequences while they fit, else parts of one sequence", () => {
  const text = (shape: number[], limit: number) =>
    rowBoxes(shape, limit).map((b) => `${b.starts}+${b.sizes}`).join(" ");
  assertEquals(text([4, 2], 4), "0,0+2,2 2,0+2,2");
  assertEquals(text([5, 2], 4), "0,0+2,2 2,0+2,2 4,0+1,2");
  assertEquals(text([2, 4], 3), "0,0+1,2 0,2+1,2 1,0+1,2 1,2+1,2");
  assertEquals(text([1, 5], 2), "0,0+1,2 0,2+1,2 0,4+1,1");
  assertEquals(text([7], 3), "0+3 3+3 6+1");
  assertEquals(text([2, 3], 100), "0,0+2,3");
  assertEquals(text([2, 1], 1), "0,0+1,1 1,0+1,1");
});

Deno.test("boxes cover every row once and hold at most the limit", () => {
  forSeeds(100, (seed) => {
    const random = new Random(seed), shape = Array.from({ length: random.int(1, 3) }, () => random.int(1, 6));
    const limit = random.int(1, 20), boxes = rowBoxes(shape, limit);
    assertEquals(boxes.reduce((n, b) => n + numel(b.sizes), 0), numel(shape));
    assertEquals(boxes.every((b) => numel(b.sizes) <= limit), true);
    assertEquals(new Set(boxes.map((b) => String(b.starts))).size, boxes.length);
  });
});

Deno.test("chunks keep their rows while they are few, and get more rows so as to stay few", () => {
  const text = (shape: number[], most: number) => chunkBoxes(shape, 2, most).map((b) => String(b.sizes)).join(" ");
  assertEquals(text([4, 2], 4), "1,2 1,2 1,2 1,2");
  assertEquals(text([4, 2], 3), "2,2 2,2");
  assertEquals(text([1, 7], 3), "1,4 1,3");
  assertEquals(text([3, 4], 3), "1,4 1,4 1,4");
  forSeeds(100, (seed) => {
    const random = new Random(seed), shape = Array.from({ length: random.int(1, 3) }, () => random.int(1, 9));
    const most = random.int(1, 9), boxes = chunkBoxes(shape, random.int(1, 20), most);
    assertEquals(boxes.length <= most, true);
    assertEquals(boxes.reduce((n, b) => n + numel(b.sizes), 0), numel(shape));
  });
});

Deno.test("the size of a program does not grow with the batch", () => {
  const nodes = (B: number) => tile(simplify(headGradients(headGraph({ B, T: 512, D: 2, V: 3 })))).nodes.length;
  assertEquals(nodes(4000), nodes(cpu.chunks.chunks));
  assertEquals(nodes(65536), nodes(cpu.chunks.chunks));
  assertEquals(nodes(8) < nodes(cpu.chunks.chunks), true);
});

Deno.test("tile keeps the meaning of head and cross-entropy of any size, forward and with gradients", () => {
  forSeeds(150, (seed) => {
    const random = new Random(seed), size = (high: number) => random.int(1, high), V = random.int(2, 7);
    const sizes = { B: size(3), T: size(7), D: random.oneIn(4) ? V : size(5), V }, rows = size(6);
    const chunks = random.oneIn(3) ? random.int(2, 4) : cpu.chunks.chunks;
    // Work on the logits joins the chunk; a D that happens to be V must not confuse.
    const betweens = [(x: Tensor) => x, (x: Tensor) => x.mul(0.5), (x: Tensor) => x.div(3).tanh().mul(3)];
    const forward = verify(headGraph(sizes, random.pick(betweens))), whole = `${[sizes.B, sizes.T, V]}`;
    for (const graph of [forward, simplify(headGradients(forward))]) {
      const text = print(graph), after = verify(tile(graph, { rows, chunks }));
      assertEquals(print(graph), text, "the graph it was given has changed");
      assertSameMeaning(graph, after, seed);
      assertEquals(after === graph, chunkBoxes([sizes.B, sizes.T], rows, chunks).length === 1);
      if (after !== graph && V !== sizes.D) {
        assertEquals(after.nodes.flatMap((n) => n.outputs).some((v) => String(v.shape) === whole), false);
      }
    }
  });
});

Deno.test("tile keeps the meaning of random graphs with a head", () => {
  let tiled = 0;
  forSeeds(100, (seed) => {
    const forward = randomGraph(seed, { head: true }), inputs = forward.inputs.map((i) => i.name);
    const states = forward.states.filter((s) => s.kind === "parameter").map((s) => s.name);
    const graph = seed % 2 ? simplify(autodiff(forward, { of: "loss", states, inputs })) : simplify(forward);
    const after = verify(tile(graph, { rows: new Random(seed).int(1, 3) }));
    if (after !== graph) tiled++;
    assertSameMeaning(graph, after, seed);
    assertSameMeaning(after, simplify(after), seed);
  });
  assertEquals(tiled > 50, true, `only ${tiled} of 100 graphs were tiled`);
});

Deno.test("all work on one chunk comes before the next, and sums are folded as the chunks go by", () => {
  const after = tile(simplify(headGradients(headGraph({ B: 1, T: 6, D: 3, V: 5 }))), { rows: 2 });
  const chunk = "slice contract slice cross_entropy cross_entropy_backward contract contract";
  const fold = "add add add";
  assertEquals(
    after.nodes.map((n) => n.op).join(" "),
    `read constant ${chunk} ${chunk} ${fold} ${chunk} ${fold} concat accumulate accumulate accumulate`,
  );
});

Deno.test("an operand that is a constant is made small, not sliced", () => {
  const after = tile(headGraph({ B: 1, T: 4, D: 2, V: 3 }, (x) => x.mul(0.5)), { rows: 2 });
  assertEquals(after.nodes.flatMap((n) => n.outputs).filter((v) => String(v.shape) === "1,4,3"), []);
});

Deno.test("values that stay outside keep their nodes and order", () => {
  const graph = headGraph({ B: 1, T: 4, D: 2, V: 3 }), after = tile(graph, { rows: 2 });
  const untouched = graph.nodes.filter((n) => n.op === "read");
  assertEquals(untouched.every((n) => after.nodes.includes(n)), true);
  assertEquals(after.nodes.slice(-2).map((n) => n.attrs.states), [["loss_sum"], ["token_count"]]);
});

Deno.test("the lse of every row, used outside, is put together again", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, w] = [f64(2, 3, 2), f64(4, 2)].map((t, i) => new Tensor(builder, builder.input(`x${i}`, t)));
    const targets = new Tensor(builder, builder.input("targets", i32(2, 3)));
    const logits = x.contract("b t d, v d -> b t v", w);
    const [loss, , lse] = logits.apply("cross_entropy", [targets], { ignore_index: -1 });
    return { loss, lse, z: lse.square().sum() };
  });
  const after = verify(tile(graph, { rows: 2 }));
  assertEquals(after.nodes.filter((n) => n.op === "concat").length, 3);
  assertSameMeaning(graph, after, 1);
});

Deno.test("logits of two dims are tiled along their rows", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, w] = [f64(5, 2), f64(2, 4)].map((t, i) => new Tensor(builder, builder.input(`x${i}`, t)));
    const targets = new Tensor(builder, builder.input("targets", i32(5)));
    return { loss: x.matmul(w).apply("cross_entropy", [targets], { ignore_index: -1 })[0] };
  });
  const grads = autodiff(graph, { of: "loss", inputs: ["x0", "x1"] }), after = verify(tile(grads, { rows: 2 }));
  assertEquals(after.nodes.filter((n) => n.op === "cross_entropy").length, 3);
  assertSameMeaning(grads, after, 1);
});

Deno.test("what has one row dim and sums over the other is both added and joined", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, w] = [f64(2, 4, 3), f64(5, 3)].map((t, i) => new Tensor(builder, builder.input(`x${i}`, t)));
    const targets = new Tensor(builder, builder.input("targets", i32(2, 4)));
    const logits = x.contract("b t d, v d -> b t v", w);
    const total = logits.contract("b t v, t -> v b", x.slice([0, 0, 0], [1, 4, 1]).reshape("1 t 1 -> t"));
    return { loss: logits.apply("cross_entropy", [targets], { ignore_index: -1 })[0], total };
  });
  const after = verify(tile(graph, { rows: 2 }));
  assertEquals(after.nodes.filter((n) => n.op === "concat").map((n) => n.attrs.dim), [1]);
  assertSameMeaning(graph, after, 1);
});

Deno.test("one value may be sliced along different dims", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, w] = [f64(1, 4, 4), f64(5, 4)].map((t, i) => new Tensor(builder, builder.input(`x${i}`, t)));
    const targets = new Tensor(builder, builder.input("targets", i32(1, 4)));
    const logits = x.contract("b t d, v d -> b t v", w);
    const other = logits.contract("b t v, b d t -> v d", x);
    return { loss: logits.apply("cross_entropy", [targets], { ignore_index: -1 })[0], other };
  });
  assertSameMeaning(graph, verify(tile(graph, { rows: 2 })), 1);
});

Deno.test("a read of a state that the loss was added to comes after all chunks", () => {
  const graph = traceGraph("g", [{ name: "sum", kind: "sum", ...f64() }], (builder) => {
    const [x, w] = [f64(1, 4, 2), f64(3, 2)].map((t, i) => new Tensor(builder, builder.input(`x${i}`, t)));
    const targets = new Tensor(builder, builder.input("targets", i32(1, 4)));
    const logits = x.contract("b t d, v d -> b t v", w);
    const [loss, , lse] = logits.apply("cross_entropy", [targets], { ignore_index: -1 });
    builder.accumulate("sum", loss.value, false);
    const sum = new Tensor(builder, builder.read("sum"));
    const [d] = logits.apply("cross_entropy_backward", [targets, lse, x.sum()], { ignore_index: -1 });
    return { sum, dh: d.contract("b t v, v d -> b t d", w) };
  });
  const after = verify(tile(graph, { rows: 2 }));
  assertEquals(after.nodes.filter((n) => n.op === "cross_entropy").length, 2);
  assertSameMeaning(graph, after, 1);
});

Deno.test("two heads are tiled one after the other", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, v, w] = [f64(1, 4, 2), f64(3, 2), f64(5, 2)].map((t, i) =>
      new Tensor(builder, builder.input(`x${i}`, t))
    );
    const targets = new Tensor(builder, builder.input("targets", i32(1, 4)));
    const loss = (weight: Tensor) =>
      x.contract("b t d, v d -> b t v", weight).apply("cross_entropy", [targets], { ignore_index: -1 })[0];
    return { loss: loss(v).add(loss(w)) };
  });
  const grads = simplify(autodiff(graph, { of: "loss", inputs: ["x0", "x1", "x2"] }));
  assertEquals(lossRegions(grads).length, 2);
  const after = verify(tile(grads, { rows: 2 }));
  assertEquals(after.nodes.filter((n) => n.op === "cross_entropy_backward").length, 4);
  assertSameMeaning(grads, after, 1);
});

Deno.test("a graph without a loss, or whose rows all fit, is left as it is", () => {
  const graph = headGraph({ B: 2, T: 4, D: 2, V: 3 });
  assertStrictEquals(tile(graph, { rows: 8 }), graph);
  assertStrictEquals(tile(graph), graph);
  const plain = traceGraph("g", [], (b) => ({ y: new Tensor(b, b.input("x", f64(2, 2))).exp() }));
  assertEquals(lossRegions(plain), []);
  assertStrictEquals(tile(plain, { rows: 1 }), plain);
});

/** A graph whose logits cannot be tiled, and their value. */
function badGraph(use: (logits: Tensor, loss: Tensor) => Record<string, Tensor>): { graph: Graph; logits: Value } {
  let logits: Value | undefined;
  const graph = traceGraph("bad", [], (builder) => {
    const [x, w] = [f64(2, 4, 3), f64(3, 3)].map((t, i) => new Tensor(builder, builder.input(`x${i}`, t)));
    const targets = new Tensor(builder, builder.input("targets", i32(2, 4)));
    const made = x.contract("b t d, v d -> b t v", w);
    logits = made.value;
    const [loss] = made.apply("cross_entropy", [targets], { ignore_index: -1 });
    return { loss, ...use(made, loss) };
  }, "ranks");
  return { graph: verify(graph), logits: logits! };
}

const refusals: [name: string, says: string, use: (logits: Tensor, loss: Tensor) => Record<string, Tensor>][] = [
  ["an op that does not work row by row", `"reduce" is not known to work row by row`, (x) => ({ y: x.max(1) })],
  [
    "a sum over all rows that comes back",
    "a result of all rows comes back",
    (x, loss) => ({ y: x.mul(loss.exp().broadcastTo(x.shape)) }),
  ],
  ["rows that are mixed", "rows are mixed", (x) => ({ y: x.contract("b t v, c t v -> b c", x) })],
  [
    "a sum over all rows inside",
    "a result of all rows comes back",
    (x) => ({ y: x.contract("b t v, v w -> b t w", x.contract("b t v, b t w -> v w", x)) }),
  ],
  [
    "rows that ranks exchange",
    "ranks exchange rows",
    (x) => ({ y: x.apply("all_gather", [], { axes: ["cp"], size: 2, dim: 1 })[0] }),
  ],
  [
    "rows that become another cut",
    "ranks exchange rows",
    (x) => ({ y: x.apply("all_to_all", [], { axes: ["cp"], size: 2, split: 1, join: 2 })[0] }),
  ],
];
for (const [name, says, use] of refusals) {
  Deno.test(`tile refuses ${name}, and lossRegions does not offer it`, () => {
    const { graph, logits } = badGraph(use);
    assertThrows(() => tile(graph, { rows: 2, values: [logits] }), TypeError, says);
    assertEquals(lossRegions(graph), []);
    const { nodes, notices: [why] } = tile(graph, { rows: 2 });
    assertStrictEquals(nodes, graph.nodes);
    assertStringIncludes(why, says);
  });
}

Deno.test("logits that are a result of the graph are not offered, since they must be whole", () => {
  const { graph, logits } = badGraph((x) => ({ logits: x }));
  assertEquals(lossRegions(graph), []);
  assertSameMeaning(graph, verify(tile(graph, { rows: 2, values: [logits] })), 1);
});

Deno.test("a loss whose logits are made whole is told with the reason, if they are more than a chunk", () => {
  const notices = (level: Level, made: (x: Tensor, w: Tensor, b: Tensor) => Tensor, rows = 2) =>
    tile(
      traceGraph("g", [], (builder) => {
        const [x, w, b] = [f64(2, 4, 3), f64(3, 3), f64(3)].map((t, i) =>
          new Tensor(builder, builder.input(`x${i}`, t))
        );
        const targets = new Tensor(builder, builder.input("targets", i32(2, 4)));
        builder.origin = at("loss");
        const [op, slice]: [string, Attrs] = level === "global"
          ? ["cross_entropy", {}]
          : ["cross_entropy_part", { start: 0, whole: 6 }];
        return { loss: made(x, w, b).apply(op, [targets], { ignore_index: -1, ...slice })[0] };
      }, level),
      { rows },
    ).notices;
  const head = (x: Tensor, w: Tensor) => x.contract("b t d, v d -> b t v", w);
  const withBias = notices("global", (x, w, b) => head(x, w).add(b));
  assertEquals(withBias.length, 1);
  assertStringIncludes(withBias[0], "holds all logits of loss at once, since they come of several values");
  assertStringIncludes(withBias[0], "= add(");
  assertEquals(notices("global", (x) => x.exp()), ["holds all logits of loss at once, since no product makes them"]);
  const byRow = notices("global", (x, w) => head(x, w).mul(head(x, w).sum(0, { keepDims: true })));
  assertEquals(byRow.length, 1);
  assertEquals(notices("ranks", (x) => x), ["holds all logits of loss at once, since no product makes them"]);
  // A rank with half of the vocabulary makes twice as many rows at once.
  assertEquals([notices("ranks", (x) => x, 4), notices("global", (x) => x, 8), notices("global", head)], [[], [], []]);
});

Deno.test("tile refuses a value that no node makes, and chunks of no rows", () => {
  const graph = headGraph({ B: 2, T: 4, D: 2, V: 3 });
  assertThrows(() => tile(graph, { values: [graph.inputs[0].value] }), TypeError, "expected a value that a node");
  assertThrows(() => tile(graph, { rows: 0 }), RangeError, "by 0 rows: expected at least 1");
  assertThrows(() => tile(graph, { chunks: 0 }), RangeError, "into 0 chunks: expected at least 1");
});

Deno.test("a loss that is computed in front of later state stays in front of it", () => {
  // The cotangent is read from a state that an earlier node writes: the write must stay in front, the loss's own after.
  const graph = traceGraph("g", [{ name: "scale", kind: "sum", ...f64() }], (builder) => {
    const [x, w] = [f64(1, 4, 2), f64(3, 2)].map((t, i) => new Tensor(builder, builder.input(`x${i}`, t)));
    const targets = new Tensor(builder, builder.input("targets", i32(1, 4)));
    const logits = x.contract("b t d, v d -> b t v", w);
    const [loss, , lse] = logits.apply("cross_entropy", [targets], { ignore_index: -1 });
    builder.accumulate("scale", x.sum().value);
    const scale = new Tensor(builder, builder.read("scale"));
    const [d] = logits.apply("cross_entropy_backward", [targets, lse, scale], { ignore_index: -1 });
    builder.accumulate("scale", loss.value, false);
    return { dh: d.contract("b t v, v d -> b t d", w), late: new Tensor(builder, builder.read("scale")) };
  });
  const after = verify(tile(graph, { rows: 2 }));
  assertEquals(after.nodes.filter((n) => n.op === "cross_entropy").length, 2);
  assertSameMeaning(graph, after, 1);
});

Deno.test("tile prints head and cross-entropy in chunks", () => {
  const graph = simplify(headGradients(headGraph({ B: 2, T: 4, D: 3, V: 5 })));
  const text = (g: Graph, rows: number) => `rows ${rows}\n\n${print(verify(tile(g, { rows })))}`;
  golden("graph/tile", [`before\n\n${print(graph)}`, text(graph, 4), text(graph, 3)].join("\n"));
});
