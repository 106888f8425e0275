import { assert, assertEquals } from "@std/assert";
import { type Builder, f64 } from "../../../graph/builder.ts";
import { type Graph, producers, type State } from "../../../graph/ir.ts";
import { layoutOf, shard } from "../../../graph/layout.ts";
import { joinProducts } from "../../../graph/passes/fuse_products.ts";
import { remake } from "../../../graph/passes/remat.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { print } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { assertSameOnMesh, layoutsFor } from "../../parallel/lockstep.ts";
import { meshGraph, meshOf } from "../../parallel/step_graphs.ts";
import { assertSameMeaning, forSeeds, Random } from "../random_graphs.ts";
import { countOps, layers, randomLayers } from "./graphs.ts";
import { at, isRemade } from "../origins.ts";
import { accumulateInPlace, placeValues } from "./on_cpu.ts";

const parameter = (name: string, ...shape: number[]): State => ({ name, kind: "parameter", ...f64(...shape) });
const read = (builder: Builder, name: string): Tensor => new Tensor(builder, builder.read(name));

/** States of joined reads and of joined accumulations, in order. */
function joined(graph: Graph): string[] {
  const lists = graph.nodes.map((n) => (n.attrs.into ?? n.attrs.states) as string[] | undefined);
  return lists.filter((l) => l !== undefined && l.length > 1).map(String);
}

const project = (x: Tensor, w: Tensor): Tensor => x.contract("b t i, o i -> b t o", w);

function apply(graph: Graph): Graph {
  const text = print(graph), after = verify(joinProducts(verify(graph)));
  assertEquals(print(graph), text, "the graph it was given has changed");
  assertSameMeaning(graph, after, 1);
  return after;
}

Deno.test("products of one x are one, forward, for x's gradient and for the weights' gradients", () => {
  const graph = layers(
    { q: [4, 4], k: [2, 4], v: [3, 4] },
    (x, [q, k, v]) => project(x, q).square().add(project(x, k).exp().sum()).sub(project(x, v).tanh().sum()),
  );
  assertEquals(countOps(graph).contract, 9);
  const after = apply(graph);
  assertEquals(countOps(after).contract, 3);
  assertEquals(countOps(after).concat, 1);
  assertEquals(joined(after), ["q,k,v", "q,k,v"]);
  const added = verify(accumulateInPlace(after));
  assertSameMeaning(graph, added, 1);
  assertEquals(joined(added), ["q,k,v", "q,k,v", "gradient/q,gradient/k,gradient/v"]);
  assertEquals([countOps(added).contract, countOps(added).accumulate, countOps(added).slice], [3, undefined, 3]);
});

Deno.test("another use of x adds its gradient to the joined one", () => {
  const after = apply(layers(
    { a: [4, 4], b: [4, 4] },
    (x, [a, b]) => x.exp().mul(project(x, a).square()).add(project(x, b).tanh().mul(x)),
  ));
  assertEquals(countOps(after).contract, 3);
  assertEquals(countOps(after).add, 1 + 2);
});

Deno.test("a product for x's gradient that is added twice stays as it is", () => {
  const graph = traceGraph(
    "g",
    ["a", "b"].flatMap((s) => [parameter(s, 2, 3), parameter(`gradient/${s}`, 2, 3)]),
    (builder) => {
      const x = new Tensor(builder, builder.input("x", f64(4, 3))), names = ["a", "b"];
      const dys = names.map((s) => x.contract("b i, o i -> b o", read(builder, s)).tanh());
      builder.origin = at("'");
      const [da, db] = dys.map((dy, i) => dy.contract("b o, o i -> b i", read(builder, names[i])));
      dys.forEach((dy, i) => builder.accumulate(`gradient/${names[i]}`, dy.contract("b o, b i -> o i", x).value));
      return { dx: da.add(da).add(db) };
    },
  );
  assertEquals(countOps(apply(simplify(graph))).contract, 1 + 4);
});

Deno.test("a product for x's gradient in a sum that is needed elsewhere stays as it is", () => {
  const graph = traceGraph(
    "g",
    ["a", "b"].flatMap((s) => [parameter(s, 2, 3), parameter(`gradient/${s}`, 2, 3)]),
    (builder) => {
      const x = new Tensor(builder, builder.input("x", f64(4, 3))), names = ["a", "b"];
      const dys = names.map((s) => x.contract("b i, o i -> b o", read(builder, s)).tanh());
      builder.origin = at("'");
      const [da, db] = dys.map((dy, i) => dy.contract("b o, o i -> b i", read(builder, names[i])));
      dys.forEach((dy, i) => builder.accumulate(`gradient/${names[i]}`, dy.contract("b o, b i -> o i", x).value));
      const inner = db.add(x);
      return { dx: da.add(inner), also: inner.tanh() };
    },
  );
  assertEquals(countOps(apply(simplify(graph))).contract, 1 + 4);
});

/** A product and the accumulation of boxes of it, by their starts and shapes, into states. */
function pieces(boxes: readonly { start: number[]; shape: number[]; begin?: boolean }[], late = false): Graph {
  const states = boxes.map(({ shape }, i): State => ({
    name: `gradient/${i}`,
    kind: "gradient",
    of: `${i}`,
    ...f64(...shape),
  }));
  return traceGraph("g", states, (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2, 4))), dw = x.contract("b o, b i -> o i", x);
    const old = late ? read(builder, states[0].name) : x;
    boxes.forEach(({ start, shape, begin = true }, i) =>
      builder.accumulate(states[i].name, dw.slice(start, shape).value, begin)
    );
    return { old };
  });
}

Deno.test("rows of a product that go into states are added by the product, if they are all of it and go alike", () => {
  const rows = [{ start: [0, 0], shape: [3, 4] }, { start: [3, 0], shape: [1, 4] }];
  const into = (graph: Graph): number => {
    const after = verify(accumulateInPlace(graph));
    assertSameMeaning(graph, after, 1);
    return joined(after).length;
  };
  assertEquals(into(pieces(rows)), 1);
  assertEquals(into(pieces(rows.map((r) => ({ ...r, begin: false })))), 1);
  assertEquals(into(pieces([rows[0], { ...rows[1], begin: false }])), 0, "one overwrites, one adds");
  assertEquals(into(pieces([rows[0], { start: [2, 0], shape: [1, 4] }])), 0, "rows overlap");
  assertEquals(into(pieces([rows[1], rows[0]])), 1, "in another order");
  assertEquals(
    into(pieces([{ start: [0, 0], shape: [2, 4] }, { start: [2, 0], shape: [1, 4] }])),
    0,
    "rows are missing",
  );
  assertEquals(into(pieces([{ start: [0, 0], shape: [2, 2] }, { start: [2, 2], shape: [2, 2] }])), 0, "not whole rows");
  assertEquals(into(pieces(rows, true)), 0, "a state is read before it is added to");
});

Deno.test("products of other tensors, weights that are used twice, and weights that are not read stay apart", () => {
  const others = layers({ a: [4, 4], b: [4, 4] }, (x, [a, b]) => project(x, a).add(project(x.exp(), b)));
  const twice = traceGraph("g", [parameter("a", 4, 4)], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2, 3, 4))), a = read(builder, "a");
    return { y: project(x, a).mul(project(x, a)) };
  });
  const made = layers({ a: [4, 4], b: [4, 4] }, (x, [a, b]) => project(x, a.exp()).mul(project(x, b.exp())));
  const turned = layers({ a: [4, 4], b: [4, 4] }, (x, w) => {
    const [y, z] = w.map((t) => x.contract("b t i, i o -> b t o", t));
    return y.mul(z);
  });
  const batched = layers({ a: [2, 4, 4], b: [2, 4, 4] }, (x, w) => {
    const [y, z] = w.map((t) => x.contract("b t i, b o i -> b t o", t));
    return y.mul(z);
  });
  for (const graph of [others, twice, made, turned, batched]) {
    assertEquals(countOps(apply(graph)).contract, countOps(graph).contract);
    assertEquals(joined(apply(graph)), []);
  }
});

Deno.test("weights that the graph writes are not read earlier than they were", () => {
  const graph = traceGraph("g", [parameter("a", 2, 3), parameter("b", 2, 3)], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(4, 3)));
    const y = x.contract("b i, o i -> b o", read(builder, "a"));
    builder.accumulate("b", y.contract("b o, b i -> o i", x).value, false);
    return { z: x.contract("b i, o i -> b o", read(builder, "b")).add(y) };
  });
  assertEquals(joined(apply(graph)), []);
});

Deno.test("a weight that stands in two groups is joined in the first, so that it lies beside one neighbour", () => {
  const after = apply(layers({ a: [4, 4], b: [4, 4], c: [4, 4] }, (x, [a, b, c]) => {
    const y = project(x, a).mul(project(x, b)).tanh();
    return project(y, b).mul(project(y, c));
  }));
  assertEquals([...new Set(joined(after))], ["a,b"]);
});

Deno.test("joined products keep the meaning of random layers, with their gradients added in place", () => {
  let groups = 0, sums = 0;
  forSeeds(200, (seed) => {
    const graph = randomLayers(seed), after = verify(joinProducts(graph)), added = verify(accumulateInPlace(after));
    for (const g of [after, added]) assertSameMeaning(graph, g, seed, 1e-10);
    groups += joined(after).length;
    sums += added.nodes.filter((n) => (n.attrs.into as string[] | undefined ?? []).length > 1).length;
  });
  assert(groups > 200 && sums > 60, `${groups} joined reads, ${sums} joined gradients`);
});

Deno.test("weights that other ranks store are gathered as one, and the random layers mean the same", () => {
  let groups = 0, again = 0;
  forSeeds(200, (seed) => {
    const random = new Random(seed),
      graph = randomLayers(seed, random.oneIn(4) ? 1 : 2),
      mesh = meshOf({ dp_shard: 2 });
    const rows = (n: number) => layoutOf([["dp_shard", shard(0, { padded: n % 2 === 1 })]], mesh.degrees);
    const stored = graph.states.filter((s) => s.kind === "parameter" && !random.oneIn(4));
    const layouts = layoutsFor({
      inputs: random.oneIn(2) ? { x: rows(2) } : {},
      states: Object.fromEntries(
        stored.flatMap(({ name, shape: [n] }) => [[name, rows(n)], [`gradient/${name}`, rows(n)]]),
      ),
    });
    assertSameOnMesh(graph, mesh, layouts, seed, (g) => {
      const gathers = g.nodes.filter((n) => n.op === "all_gather");
      const after = joinProducts(random.oneIn(2) ? remake(g, new Set(gathers)) : g);
      const made = producers(after);
      for (const { op, inputs } of after.nodes) {
        const sources = op === "concat" ? inputs.map((v) => made.get(v)!) : [];
        if (sources.length === 0 || sources.some((n) => n.op !== "all_gather")) continue;
        groups++;
        again += Number(sources.every(isRemade));
      }
      return accumulateInPlace(verify(after));
    });
  });
  assert(groups > 60 && again > 5, `${groups} weights are joined, ${again} of them once more in backward`);
});

/** Products of one block of a Llama on a mesh, and the pieces of concats that are copied there. */
function blockOn(mesh: Parameters<typeof meshGraph>[1], options?: Parameters<typeof meshGraph>[3]) {
  const { graph } = meshGraph("microbatch", mesh, "materialize", options), places = placeValues(graph);
  const ofBlock = graph.nodes.filter((n) => n.scope.startsWith("layers.1"));
  return {
    products: ofBlock.filter((n) => n.op === "contract").length,
    copies: ofBlock.filter((n) => n.op === "copy").length,
    copiedPieces: graph.nodes.flatMap((n) => places.copiedPieces(n)).length,
  };
}

Deno.test("a block has as many products on ranks that gather its weights as on one process, and nothing is copied", () => {
  const uncopied = { copies: 0, copiedPieces: 0 }, one = { products: 12, ...uncopied };
  assertEquals(blockOn({}), one);
  assertEquals(blockOn({ dp_shard: 2 }), one);
  assertEquals(blockOn({ dp_shard: 2 }, { keepGathered: "microbatch" }), one);
  assertEquals(blockOn({ dp_shard: 2, tp: 2 }), one);
  assertEquals(blockOn({ dp_shard: 2 }, { remat: { mode: "full" } }).copiedPieces, 0);
  // Where sequences are cut, ranks send each other values, which have to lie packed: wv stays alone.
  assertEquals(blockOn({ cp: 2 }), { ...uncopied, products: 12 + 3 });
});

Deno.test("a gradient that is rounded before it travels is rounded by the product", () => {
  const precision = { param: "bf16", reduce: "bf16", stored: "f32" } as const;
  const { graph } = meshGraph("microbatch", { dp_shard: 2 }, "fuse", { precision });
  const gradients = graph.nodes.filter((n) => n.attrs.dims === "b t o, b t i -> o i" && n.scope.startsWith("layers.1"));
  assertEquals(gradients.map((n) => n.outputs[0].dtype), ["bf16", "bf16", "bf16", "bf16"]);
});
