import { assert, assertEquals } from "@std/assert";
import { type Builder, f32, f64, i32 } from "../../../graph/builder.ts";
import { Editor } from "../../../graph/edit.ts";
import type { Graph, Node, State } from "../../../graph/ir.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import { joinUpdates, residualNorms, ropeIntoAttention } from "../../../graph/passes/fuse.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { print } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { golden } from "../../golden.ts";
import { assertFits, assertSameMeaning, forSeeds, Random } from "../random_graphs.ts";
import { countOps, llamaBlock, opsOf, randomLayers, randomStep } from "./graphs.ts";
import { accumulateInPlace, fuse, fusions } from "./on_cpu.ts";

const parameter = (name: string, ...shape: number[]): State => ({ name, kind: "parameter", ...f64(...shape) });
const input = (builder: Builder, name: string, ...shape: number[]): Tensor =>
  new Tensor(builder, builder.input(name, f64(...shape)));
const read = (builder: Builder, name: string): Tensor => new Tensor(builder, builder.read(name));
const find = (graph: Graph, op: string): Node[] => graph.nodes.filter((n) => n.op === op);

/** Applies a rule and holds it to the meaning. */
function apply(rule: (graph: Graph) => Graph, graph: Graph): Graph {
  const text = print(graph), after = verify(rule(verify(graph)));
  assertEquals(print(graph), text, "the graph it was given has changed");
  assertSameMeaning(graph, after, 1);
  return after;
}

/** Random steps, products that share an operand, and updates in turn: every rule finds its pattern in some. */
const randomSources = [randomStep, randomLayers, randomUpdates];

for (const [name, rule] of fusions) {
  Deno.test(`rule ${name} alone keeps the meaning of random graphs and their gradients, and fits in some`, () => {
    let hits = 0;
    forSeeds(240, (seed) => {
      const before = randomSources[seed % randomSources.length](seed), after = verify(rule(before));
      assertSameMeaning(before, after, seed, 1e-10);
      // An edit alone drops what nothing needs.
      if (print(after) !== print(new Editor(before).finish())) hits++;
    });
    assertFits(hits);
  });
}

Deno.test("all rules together keep the meaning of random graphs and their gradients", () => {
  forSeeds(240, (seed) => {
    const before = verify(randomStep(seed)), text = print(before), after = verify(fuse(before));
    assertEquals(print(before), text, "the graph it was given has changed");
    assertSameMeaning(before, after, seed, 1e-10);
  });
});

Deno.test("fuse prints a block of a Llama, forward and backward", () => {
  const before = llamaBlock(), after = apply(fuse, before);
  golden("graph/fuse", `${print(before)}\nafter fuse\n\n${print(after)}`);
});

const angles = { size: 2, dtype: "f64", theta: 100, factor: 1, low: 1, high: 4, original: 64 };

/** Attention over rotated queries and keys, and the gradient of its square; `also` uses the rotated queries elsewhere. */
function rotated(turn: (x: Tensor, table: Tensor) => Tensor, also?: (q: Tensor) => Tensor): Graph {
  const forward = traceGraph("g", [], (builder) => {
    const q = input(builder, "q", 2, 3, 4, 2), k = input(builder, "k", 2, 3, 2, 2), v = input(builder, "v", 2, 3, 2, 2);
    const positions = new Tensor(builder, builder.input("positions", i32(2, 3)));
    const [table] = positions.apply("rope_table", [], angles), turned = turn(q, table);
    const [o] = turned.apply("attention", [turn(k, table), v, positions, positions], { scale: 0.7 });
    const loss = o.square().sum();
    return { loss: also ? loss.add(also(turned)) : loss };
  });
  return simplify(autodiff(forward, { of: "loss", inputs: ["q", "k", "v"] }));
}

const rope = (x: Tensor, table: Tensor): Tensor => x.apply("rope", [table], { inverse: false })[0];

Deno.test("attention rotates what it loads, and its gradient turns back what it stores", () => {
  const after = apply(ropeIntoAttention, rotated(rope));
  assertEquals(find(after, "rope").length, 0);
  assertEquals(["attention", "attention_backward"].map((op) => find(after, op)[0].attrs.rope), [true, true]);
});

Deno.test("rotated queries that are used elsewhere are rotated there, and their gradient stays apart", () => {
  const after = apply(ropeIntoAttention, rotated(rope, (q) => q.exp().sum()));
  assertEquals(find(after, "attention")[0].attrs.rope, true);
  assertEquals(find(after, "attention_backward")[0].attrs.rope, undefined);
  assert(find(after, "rope").length > 0);
});

Deno.test("inverse rotations, and those of one operand, stay", () => {
  const inverse = rotated((x, table) => x.apply("rope", [table], { inverse: true })[0]);
  assertEquals(print(apply(ropeIntoAttention, inverse)), print(inverse));
  const queries = rotated((x, table) => x.shape[2] === 4 ? rope(x, table) : x);
  assertEquals(print(apply(ropeIntoAttention, queries)), print(queries));
});

Deno.test("a rotation back by other angles than those of the queries stays", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [q, k, v, o] = ["q", "k", "v", "o"].map((name) => input(builder, name, 2, 3, 2, 2));
    const lse = input(builder, "lse", 2, 2, 3), positions = new Tensor(builder, builder.input("positions", i32(2, 3)));
    const [table, other] = [100, 10].map((theta) => positions.apply("rope_table", [], { ...angles, theta })[0]);
    const operands = [rope(k, table), v, o, lse, o, positions, positions];
    const [dq, dk] = rope(q, table).apply("attention_backward", operands, { scale: 1 });
    const back = (x: Tensor, by: Tensor): Tensor => x.apply("rope", [by], { inverse: true })[0];
    return { dq: back(dq, table), dk: back(dk, other) };
  });
  assertEquals(print(apply(ropeIntoAttention, graph)), print(graph));
});

/** Two residual branches, each with a norm, and the gradient for all inputs. */
function residuals(): Graph {
  const forward = traceGraph("g", [parameter("w", 4), parameter("u", 4)], (builder) => {
    const x = input(builder, "x", 2, 3, 4),
      norm = (t: Tensor, w: string) => t.apply("rmsnorm", [read(builder, w)], { eps: 0.1 })[0];
    const h = x.add(norm(x, "w").tanh());
    return { loss: h.add(norm(h, "u").sigmoid()).square().sum() };
  });
  return simplify(autodiff(forward, { of: "loss", states: ["w", "u"], inputs: ["x"] }));
}

Deno.test("a residual sum and the norm behind it are one; so are the norm's gradient and the residual's", () => {
  const before = residuals(), after = apply(residualNorms, before);
  const { add: sums, rmsnorm, add_rmsnorm, rmsnorm_backward } = countOps(before);
  assertEquals([rmsnorm, add_rmsnorm, rmsnorm_backward], [2, undefined, 2]);
  assertEquals(countOps(after), {
    ...countOps(before),
    rmsnorm: 1,
    add_rmsnorm: 1,
    add: sums - 3,
  });
  assertEquals(find(after, "rmsnorm_backward").map((n) => n.inputs.length), [5, 5]);
});

Deno.test("of two norms of one sum one is joined with it, and so is one of their gradients", () => {
  const forward = traceGraph("g", [parameter("w", 4), parameter("u", 4)], (builder) => {
    const h = input(builder, "x", 2, 4).add(input(builder, "y", 2, 4));
    const [a, b] = ["w", "u"].map((w) => h.apply("rmsnorm", [read(builder, w)], { eps: 0.1 })[0]);
    return { loss: a.exp().mul(b).sum() };
  });
  const after = apply(residualNorms, simplify(autodiff(forward, { of: "loss", states: ["w", "u"], inputs: ["x"] })));
  const { rmsnorm, add_rmsnorm } = countOps(after);
  assertEquals([rmsnorm, add_rmsnorm], [1, 1]);
  assertEquals(find(after, "rmsnorm_backward").map((n) => n.inputs.length).sort(), [4, 5]);
});

Deno.test("a norm whose weight comes out of the sum stays apart, and so does a residual that needs the norm's gradient", () => {
  const weight = traceGraph("g", [], (builder) => {
    const h = input(builder, "x", 2, 4).add(input(builder, "y", 2, 4));
    return { y: h.apply("rmsnorm", [h.slice([0, 0], [1, 4]).reshape("1 d -> d").exp()], { eps: 0.1 })[0] };
  });
  assertEquals(print(apply(residualNorms, weight)), print(weight));
  const circle = traceGraph("g", [parameter("w", 4)], (builder) => {
    const x = input(builder, "x", 2, 4), rstd = input(builder, "rstd", 2);
    const [dx, dw] = x.apply("rmsnorm_backward", [rstd, read(builder, "w"), x]);
    return { y: dx.add(dw.broadcastTo([2, 4])) };
  });
  assertEquals(print(apply(residualNorms, circle)), print(circle));
});

Deno.test("a norm behind a sum whose weight is read late, before or between changes of it", () => {
  for (const early of [true, false]) {
    const graph = traceGraph("g", [parameter("w", 4)], (builder) => {
      const h = input(builder, "x", 2, 4).add(input(builder, "y", 2, 4));
      const w = early && read(builder, "w");
      builder.accumulate("w", h.sum(0).value, false);
      const [y] = h.apply("rmsnorm", [w || read(builder, "w")], { eps: 0.1 });
      builder.accumulate("w", y.sum(0).value, false);
      return { y };
    });
    assertEquals(find(apply(residualNorms, graph), "add_rmsnorm").length, early ? 1 : 0);
  }
});

/** `loss` by some use of x, w and u, and the gradients of w and u. */
function gradients(body: (x: Tensor, w: Tensor, u: Tensor) => Tensor): Graph {
  const forward = traceGraph("g", [parameter("w", 4, 3), parameter("u", 3)], (builder) => ({
    loss: body(input(builder, "x", 2, 3), read(builder, "w"), read(builder, "u")),
  }));
  return simplify(autodiff(forward, { of: "loss", states: ["w", "u"], keep: false }));
}

const intoOf = (graph: Graph): [string, string, boolean][] =>
  graph.nodes.filter((n) => n.attrs.into).map((n) => [n.op, String(n.attrs.into), n.attrs.begin === true]);

Deno.test("a gradient is added into its state by the kernel that makes it", () => {
  const graph = gradients((x, w, u) =>
    x.apply("rmsnorm", [u], { eps: 0.1 })[0].contract("b i, o i -> b o", w).square().sum()
  );
  const after = apply(accumulateInPlace, graph);
  assertEquals(intoOf(after), [["contract", "gradient/w", true], ["rmsnorm_backward", "gradient/u", true]]);
  assertEquals(find(after, "accumulate"), []);
});

Deno.test("a sum of gradients goes in term by term, and only the first overwrites", () => {
  const graph = gradients((x, w, u) => {
    const product = (t: Tensor): Tensor => t.contract("b i, o i -> b o", w);
    return product(x).square().sum().add(product(x.exp()).sum()).add(product(x.tanh()).square().sum()).add(u.sum());
  });
  const after = apply(accumulateInPlace, graph);
  const ofW = after.nodes.filter((n) => String(n.attrs.into ?? n.attrs.states) === "gradient/w");
  assertEquals(ofW.map((n) => [n.op, n.attrs.begin]), [["contract", true], ["contract", false], ["contract", false]]);
});

Deno.test("a sum may have as many terms as a graph has nodes", () => {
  const graph = traceGraph("g", [{ name: "gradient/w", kind: "gradient", of: "w", ...f64(2) }], (builder) => {
    const x = input(builder, "x", 2);
    let sum = x.exp();
    for (let i = 1; i < 20_000; i++) sum = sum.add(x.exp());
    builder.accumulate("gradient/w", sum.value);
  });
  const after = accumulateInPlace(graph);
  assertEquals(countOps(after), { exp: 20_000, accumulate: 20_000 });
});

Deno.test("the term that is made first overwrites, wherever it stands in the sum", () => {
  const graph = traceGraph("g", [{ name: "gradient/w", kind: "gradient", of: "w", ...f64(2, 2) }], (builder) => {
    const x = input(builder, "x", 2, 2), product = (t: Tensor): Tensor => t.contract("a b, a c -> b c", x);
    const early = product(x), late = product(x.exp()), sum = late.add(early.add(x));
    builder.accumulate("gradient/w", sum.value);
  });
  const after = apply(accumulateInPlace, graph);
  assertEquals(opsOf(after), ["contract", "exp", "contract", "accumulate"]);
  assertEquals(after.nodes.filter((n) => n.op !== "exp").map((n) => n.attrs.begin), [true, false, false]);
});

Deno.test("a gradient that is also needed elsewhere, and a state that is also touched elsewhere, keep their accumulate", () => {
  const state: State = { name: "gradient/w", kind: "gradient", of: "w", ...f64(2, 2) };
  const graph = (body: (builder: Builder, gradient: Tensor) => Tensor): Graph =>
    traceGraph("g", [state], (builder) => {
      const x = input(builder, "x", 2, 2);
      return { y: body(builder, x.contract("a b, a c -> b c", x)) };
    });
  const used = graph((builder, gradient) => {
    builder.accumulate("gradient/w", gradient.value);
    return gradient.sum();
  });
  const result = graph((builder, gradient) => {
    builder.accumulate("gradient/w", gradient.value);
    return gradient;
  });
  const touched = graph((builder, gradient) => {
    const old = read(builder, "gradient/w");
    builder.accumulate("gradient/w", gradient.value);
    return old;
  });
  for (const before of [used, result, touched]) {
    assertEquals(opsOf(apply(accumulateInPlace, before)), opsOf(before));
  }
});

const adamw = { beta1: 0.9, beta2: 0.95, eps: 1, weight_decay: 0.1 };

/** Updates of `n` parameters; `rate` names the learning rate of each. */
function updates(n: number, rate: (i: number) => string): Graph {
  const names = Array.from({ length: n }, (_, i) => `p${i}`);
  const states = names.flatMap((p, i) => ["", "m/", "v/", "g/"].map((kind) => parameter(kind + p, i + 1, 2)));
  return traceGraph("update", states, (builder) => {
    const scalars = Object.fromEntries(["lr", "other", "scale"].map((s) => [s, input(builder, s)]));
    const step = scalars.scale.square().add(1), seconds = names.map((p) => read(builder, `v/${p}`).square());
    names.forEach((p, i) => {
      const [w, m, g] = ["", "m/", "g/"].map((kind) => read(builder, kind + p));
      const moved = w.apply("adamw", [m, seconds[i], g, scalars[rate(i)], step, scalars.scale], adamw);
      [p, `m/${p}`, `v/${p}`].forEach((state, k) => builder.assign(state, moved[k].value));
    });
  });
}

/** Updates of one to four parameters, with learning rates of two names. */
function randomUpdates(seed: number): Graph {
  const random = new Random(seed);
  return updates(random.int(1, 4), () => random.pick(["lr", "other"]));
}

Deno.test("AdamW of all parameters is one kernel, though each is read after the one before was written", () => {
  const after = apply(joinUpdates, updates(3, () => "lr"));
  assertEquals(find(after, "adamw").map((n) => n.outputs.length), [9]);
});

Deno.test("AdamW of two parameters is joined with that of a third", () => {
  const graph = traceGraph("g", [], (builder) => {
    const scalar = input(builder, "scalar").square().add(1);
    const operands = [["1", "2"], ["3"]].map((names) =>
      ["w", "m", "v", "g"].flatMap((kind) => names.map((name) => input(builder, kind + name, 2).square()))
    );
    const moved = operands.flatMap(([w, ...others]) => w.apply("adamw", [...others, scalar, scalar, scalar], adamw));
    return Object.fromEntries(moved.map((t, i) => [`y${i}`, t]));
  });
  assertEquals(find(apply(joinUpdates, graph), "adamw").map((n) => n.outputs.length), [9]);
});

Deno.test("joined AdamW stores in bf16 what each of them did", () => {
  const graph = traceGraph("g", [], (builder) => {
    const real = (name: string, ...shape: number[]) => new Tensor(builder, builder.input(name, f32(...shape)));
    const scalar = real("scalar"), attrs = { ...adamw, bf16: [0, 2] };
    const moved = ["1", "2", "3"].flatMap((name) => {
      const [w, ...others] = ["w", "m", "v", "g"].map((kind) => real(kind + name, 2));
      return w.apply("adamw", [...others, scalar, scalar, scalar], attrs);
    });
    return Object.fromEntries(moved.map((t, i) => [`y${i}`, t]));
  });
  const [joined] = find(apply(joinUpdates, graph), "adamw");
  assertEquals(joined.outputs.map((v) => v.dtype), ["bf16", "f32", "bf16"].flatMap((d) => [d, d, d]));
});

Deno.test("AdamW with other scalars stays apart", () => {
  const after = apply(joinUpdates, updates(5, (i) => i % 2 ? "other" : "lr"));
  assertEquals(find(after, "adamw").map((n) => n.outputs.length), [9, 6]);
});

Deno.test("AdamW that needs another's result stays apart", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [w, m, v, g, lr] = ["w", "m", "v", "g", "lr"].map((name) =>
      input(builder, name, ...(name === "lr" ? [] : [2]))
    );
    const step = lr.square().add(1),
      update = (p: Tensor): Tensor[] => p.apply("adamw", [m, v.square(), g, lr, step, lr], adamw);
    return { y: update(update(w)[0])[0] };
  });
  assertEquals(find(apply(joinUpdates, graph), "adamw").length, 2);
});
