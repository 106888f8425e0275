import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Graph } from "../../../graph/ir.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import {
  type Atom,
  type Judge,
  MemoryBudgetError,
  type RematPoint,
  type RematSearch,
} from "../../../graph/passes/remat_search.ts";
import { remat } from "../../../graph/passes/remat.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { verify } from "../../../graph/verify.ts";
import { llama, type LlamaOptions } from "../../../model/llama.ts";
import { traceMicrobatch } from "../../../train/step.ts";
import { assertSameMeaning, forSeeds, randomGraph } from "../random_graphs.ts";
import { fuse, materialize, memory, predictedSeconds, rematSearch, tile } from "./on_cpu.ts";

const judge: Judge = (graph) => {
  const judged = materialize(fuse(graph)),
    { arenaBytes, sections: [{ allocations }] } = memory([judged], { threads: 2 });
  return { sections: [{ graph: judged, allocations }], arenaBytes };
};

function microbatch(sizes: LlamaOptions, batch: number, seqLen: number): Graph {
  const shape = { batch, seqLen, dtype: "f32", globalTokens: batch * seqLen } as const;
  return tile(simplify(traceMicrobatch(llama("debug", sizes), shape)));
}

const tiny = { dim: 64, numLayers: 2, numHeads: 4, numKvHeads: 2, ffnHiddenDim: 192, vocabSize: 256 };
const step = microbatch(tiny, 2, 64);
const bytes = (n: number) => ({ mode: "memory_budget", bytes: n }) as const;

/** All points where each atom is kept or not. */
function exhaustive(search: RematSearch): RematPoint[] {
  const atoms = search.blocks.flatMap((b) => b.atoms);
  return Array.from(
    { length: 2 ** atoms.length },
    (_, bits) => search.point(new Set<Atom>(atoms.filter((_, i) => bits >> i & 1))),
  );
}

Deno.test("atoms are what a block keeps; products that run as one, and a rotation with its product, are one", () => {
  const { blocks } = rematSearch(step, judge);
  assertEquals(blocks.map((b) => b.name), ["layers.0", "layers.1"]);
  assertEquals(blocks[0].atoms.map((atom) => atom.map((n) => `${n.op} ${n.scope}`)), [
    ["rope layers.0.attention", "rope layers.0.attention", "contract layers.0.attention.wv"],
    ["attention layers.0.attention"],
    ["add layers.0"],
    ["contract layers.0.feed_forward.w1", "contract layers.0.feed_forward.w3"],
  ]);
});

Deno.test("at every budget, two layers take within 5 % of the time that exhaustive search finds", () => {
  const search = rematSearch(step, judge), points = exhaustive(rematSearch(step, judge));
  const budgets = new Set(points.map((p) => p.arenaBytes));
  assert(budgets.size > 20);
  for (const budget of budgets) {
    const best = Math.min(...points.filter((p) => p.arenaBytes <= budget).map((p) => p.slowdown - 1));
    const found = search.within(bytes(budget));
    assert(found.arenaBytes <= budget, `${found.arenaBytes} B of ${budget} B`);
    assert(found.slowdown - 1 <= 1.05 * best, `${found.slowdown - 1} instead of ${best} at ${budget} B`);
  }
});

Deno.test("a budget is kept to the byte, by the plan of the graph that is given back", () => {
  const search = rematSearch(step, judge), { least, most } = search.range();
  assert(least < 0.85 * most);
  for (let budget = least; budget <= most; budget += (most - least) / 7) {
    const { graph, arenaBytes } = search.within(bytes(budget));
    assert(arenaBytes <= budget, `${arenaBytes} B of ${budget} B`);
    assertEquals(judge(verify(graph)).arenaBytes, arenaBytes);
  }
});

Deno.test("a budget that is enough makes again what is nearly free, and 1 of a fraction means it", () => {
  const search = rematSearch(step, judge), free = judge(remat(step)).arenaBytes;
  for (const budget of [bytes(1e12), bytes(free), { mode: "memory_budget", fraction: 1 } as const]) {
    const point = search.within(budget);
    assertEquals([point.arenaBytes, point.slowdown], [free, 1]);
  }
});

Deno.test("a fraction lies between making all again and making nothing again", () => {
  const search = rematSearch(step, judge), { least, most } = search.range();
  const full = judge(remat(step, { mode: "full" })).arenaBytes;
  assert(least <= full);
  const sizes = [0, 0.25, 0.5, 0.75, 1].map((fraction) =>
    search.within({ mode: "memory_budget", fraction }).arenaBytes
  );
  assertEquals([sizes[0], sizes[4]], [least, most]);
  sizes.forEach((n, i) => assert(n <= least + i / 4 * (most - least)));
});

Deno.test("a budget that cannot be kept is refused with the fewest bytes that could be", () => {
  const search = rematSearch(step, judge), { least } = search.range();
  const error = assertThrows(() => search.within(bytes(least - 1)), MemoryBudgetError);
  assertEquals([error.budgetBytes, error.leastBytes], [least - 1, least]);
  assertEquals(
    error.message,
    `Cannot keep the arena within a memory budget of ${(least - 1).toLocaleString("en-US")} B: it takes ${
      least.toLocaleString("en-US")
    } B when backward makes again all that it can
  expected: a budget of at least ${least.toLocaleString("en-US")} B
  fix: raise activation_checkpoint.memory_budget, or lower training.local_batch_size or training.seq_len   (memory_budget)`,
  );
  assertEquals(search.within(bytes(least)).arenaBytes, least);
});

Deno.test("the frontier of a model has twenty points and more, each smaller and slower than the last", () => {
  let plans = 0;
  const small = { dim: 96, numLayers: 12, numHeads: 4, numKvHeads: 2, ffnHiddenDim: 256, vocabSize: 512 };
  const search = rematSearch(microbatch(small, 2, 128), (graph) => (plans++, judge(graph)));
  const points = search.frontier();
  assert(points.length >= 20, `${points.length} points`);
  points.slice(1).forEach((p, i) => {
    assert(p.arenaBytes < points[i].arenaBytes && p.slowdown > points[i].slowdown);
    assert(p.recomputedFlops > points[0].recomputedFlops);
  });
  // Twelve blocks that are built alike are looked at once: 16 sets of 4 atoms, then the points.
  assert(plans <= 16 + 24, `${plans} plans`);
});

Deno.test("the search works on any graph, blocks or not, and its points mean the same to the last bit", () => {
  /** An arena has whole pages, in which all of a small graph may lie; its end tells more. */
  const finely: Judge = (graph) => {
    const judged = judge(graph), ends = judged.sections[0].allocations.map((b) => b.offset + b.bytes);
    return { ...judged, arenaBytes: Math.max(0, ...ends) };
  };
  let smaller = 0;
  forSeeds(400, (seed) => {
    const forward = randomGraph(seed), states = forward.states.filter((s) => s.kind === "parameter").map((s) => s.name);
    const graph = simplify(autodiff(forward, { of: "loss", states })), search = rematSearch(graph, finely);
    const points = search.frontier(6);
    if (points.length > 1) smaller++;
    for (const point of points) assertSameMeaning(graph, verify(point.graph), seed, 0);
  });
  assert(smaller >= 5, `only ${smaller} graphs have a choice`);
});

Deno.test("predicted time grows with FLOPs and bytes, and views are free", () => {
  const seconds = (sizes: LlamaOptions, seqLen: number) =>
    predictedSeconds(judge(microbatch(sizes, 1, seqLen)).sections[0].graph);
  assert(seconds(tiny, 128) > 1.9 * seconds(tiny, 64));
  assert(seconds({ ...tiny, numLayers: 4 }, 64) < 2 * seconds(tiny, 64));
});
