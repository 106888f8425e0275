/** All ranks of a mesh in one process: parts of values, and the question whether a partitioned graph means the same.
 * @module */
import { assertEquals } from "@std/assert";
import { type Arr, arr, forEachIndex, stridesOf } from "../../graph/array.ts";
import { interpret, interpretRanks, type Memory } from "../../graph/interpret.ts";
import type { Graph } from "../../graph/ir.ts";
import { boxOf, type Layout, localShape, type Placement, placementOn, replicated } from "../../graph/layout.ts";
import { print } from "../../graph/print.ts";
import { verify } from "../../graph/verify.ts";
import type { Mesh } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import type { Layouts } from "../../parallel/plan.ts";
import { graphOfRank } from "../../parallel/rank_graph.ts";
import { assertClose, Random, randomInputs } from "../graph/random_graphs.ts";

const ranksOf = (mesh: Mesh): number[] => Array.from({ length: mesh.size }, (_, rank) => rank);

/** Calls `visit` with the offsets of each element of a rank's box, in the whole and in what the rank holds. */
function eachOfBox(
  shape: readonly number[],
  layout: Layout,
  mesh: Mesh,
  rank: number,
  visit: (whole: number, local: number) => void,
): void {
  const { starts, sizes } = boxOf(shape, layout, mesh.factors, mesh.coordinates(rank));
  const strides = [stridesOf(shape), stridesOf(localShape(shape, layout, mesh.factors))];
  const start = starts.reduce((sum, s, d) => sum + s * strides[0][d], 0);
  forEachIndex(sizes, strides, ([i, j]) => visit(start + i, j));
}

/** What each rank holds of a value: boxes, and random summands where it is partial. */
export function scatter(value: Arr, layout: Layout, mesh: Mesh, random: Random): Arr[] {
  const parts = ranksOf(mesh).map(() => arr(localShape(value.shape, layout, mesh.factors)));
  const partial = Object.keys(mesh.factors).filter((axis) => placementOn(layout, axis).kind === "partial");
  const kinds = new Set(partial.map((axis) => (layout.get(axis) as { by: string }).by));
  if (kinds.size > 1) throw new Error("cannot scatter a value that is partial in two ways");
  const by = [...kinds][0] ?? "sum";
  // Ranks that differ on other axes alone hold the same summands.
  const noise = new Map<string, number>(),
    first = (rank: number) => partial.every((a) => mesh.coordinates(rank)[a] === 0);
  for (const rank of ranksOf(mesh)) {
    const place = partial.map((a) => mesh.coordinates(rank)[a]);
    eachOfBox(value.shape, layout, mesh, rank, (i, j) => {
      if (first(rank)) return;
      const key = `${place} ${i}`;
      if (!noise.has(key)) noise.set(key, random.real(-1, 1));
      parts[rank].data[j] = by === "sum" ? noise.get(key)! : value.data[i] - 1 + noise.get(key)!;
    });
  }
  const others = new Map<number, number>();
  for (const [key, x] of noise) others.set(+key.split(" ")[1], (others.get(+key.split(" ")[1]) ?? 0) + x);
  for (const rank of ranksOf(mesh).filter(first)) {
    eachOfBox(value.shape, layout, mesh, rank, (i, j) => {
      parts[rank].data[j] = value.data[i] - (by === "sum" ? others.get(i) ?? 0 : 0);
    });
  }
  return parts;
}

/** Fails unless the ranks' parts make the value, each copy of it.
 * @throws {Error} that names the place. */
export function assertParts(
  parts: readonly Arr[],
  value: Arr,
  layout: Layout,
  mesh: Mesh,
  tolerance: number,
  where: string,
): void {
  const copies = new Map<string, Arr>();
  const kept = Object.keys(mesh.factors).filter((axis) => placementOn(layout, axis).kind === "replicate");
  const isMax = [...layout.values()].some((p) => p.kind === "partial" && p.by === "max");
  for (const rank of ranksOf(mesh)) {
    const key = kept.map((axis) => mesh.coordinates(rank)[axis]).join();
    if (!copies.has(key)) copies.set(key, arr(value.shape, arr(value.shape).data.fill(isMax ? -Infinity : 0)));
    const { data } = copies.get(key)!;
    eachOfBox(value.shape, layout, mesh, rank, (i, j) => {
      const x = parts[rank].data[j];
      data[i] = isMax ? Math.max(data[i], x) : data[i] + x;
    });
  }
  for (const [key, copy] of copies) assertClose(copy, value, tolerance, `${where} (copy ${key})`);
}

/** `{ tp: shard(1) }` as a layout. */
export function layout(placements: Readonly<Record<string, Placement>>): Layout {
  return new Map(Object.entries(placements));
}

/** Layouts by name; what is left out is whole. */
export function layoutsFor(layouts: {
  readonly inputs?: Readonly<Record<string, Layout>>;
  readonly states?: Readonly<Record<string, Layout>>;
  readonly used?: Readonly<Record<string, Layout>>;
  readonly activations?: Readonly<Record<string, Layout>>;
  readonly residual?: Layout;
}): Layouts {
  const { inputs = {}, states = {}, used = {}, activations = {}, residual = replicated } = layouts;
  return {
    input: ({ name }) => inputs[name] ?? replicated,
    state: ({ name }) => states[name] ?? replicated,
    used: ({ name }) => used[name] ?? replicated,
    activation: (scope) => activations[scope] ?? replicated,
    residual: (roles) => String(roles) === "batch,sequence,features" ? residual : replicated,
  };
}

/** A pass behind `partition`. */
export type Behind = (graph: Graph) => Graph;

/** The graphs of all ranks. */
export function rankGraphs(graph: Graph, mesh: Mesh, layouts: Layouts, behind: Behind = (g) => g): Graph[] {
  const parts = verify(behind(verify(partition(graph, mesh, layouts))));
  const graphs = ranksOf(mesh).map((rank) => graphOfRank(parts, mesh, rank));
  [graphs[0], graphs.at(-1)!].forEach(verify);
  return graphs;
}

/** State of a whole model, and of all ranks. */
export interface Memories {
  readonly whole: Memory;
  readonly ranks: readonly Memory[];
}

/** Runs a graph whole and on a mesh, and fails unless outputs and memory are the same.
 * @throws {Error} that shows the graph of all ranks. */
export function runBoth(
  graph: Graph,
  mesh: Mesh,
  layouts: Layouts,
  options: {
    readonly inputs: Readonly<Record<string, Arr>>;
    readonly memories: Memories;
    readonly first?: boolean;
    readonly seed?: number;
    readonly tolerance?: number;
    readonly graphs?: readonly Graph[];
  },
): Record<string, Arr> {
  const { inputs, memories, first = true, seed = 1, tolerance = 1e-12 } = options;
  const graphs = options.graphs ?? rankGraphs(graph, mesh, layouts), random = new Random(seed);
  const given = graph.inputs.map((input): [string, Arr[]] => {
    const whole = arr(input.value.shape, inputs[input.name].data);
    return [input.name, scatter(whole, layouts.input(input), mesh, random)];
  });
  const expected = interpret(graph, { inputs, memory: memories.whole, first });
  const actual = interpretRanks(
    graphs,
    graphs.map((_, rank) => ({
      inputs: Object.fromEntries(given.map(([name, parts]) => [name, parts[rank]])),
      memory: memories.ranks[rank],
      first,
    })),
  );
  for (const name in expected) {
    actual.forEach((out, rank) =>
      assertClose(out[name], expected[name], tolerance, `output "${name}" of rank ${rank}`)
    );
  }
  for (const state of graph.states) {
    const value = memories.whole.get(state.name);
    if (!value) continue;
    const parts = memories.ranks.map((m) =>
      m.get(state.name) ?? arr(localShape(state.shape, layouts.state(state), mesh.factors))
    );
    assertParts(parts, value, layouts.state(state), mesh, tolerance, `state "${state.name}"`);
  }
  return expected;
}

/** Fails unless a graph means the same on a mesh, from random inputs and memory, in a first microbatch or (even seeds) in a later one.
 * @throws {Error} that names the seed and shows the graph of all ranks. */
export function assertSameOnMesh(graph: Graph, mesh: Mesh, layouts: Layouts, seed: number, behind?: Behind): void {
  const graphs = rankGraphs(graph, mesh, layouts, behind);
  try {
    const { inputs, memory } = randomInputs(graph, seed), random = new Random(seed);
    const ranks = ranksOf(mesh).map((): Memory => new Map());
    for (const state of graph.states) {
      const parts = scatter(memory.get(state.name)!, layouts.state(state), mesh, random);
      parts.forEach((part, rank) => ranks[rank].set(state.name, part));
    }
    const first = seed % 2 === 1;
    runBoth(graph, mesh, layouts, { inputs, memories: { whole: memory, ranks }, first, seed, graphs });
  } catch (error) {
    throw new Error(
      `Graph "${graph.name}" changed its meaning on ${JSON.stringify(mesh.degrees)}, seed ${seed}: ` +
        `${(error as Error).message}\n${print(graph)}\n${print(partition(graph, mesh, layouts))}`,
      { cause: error },
    );
  }
}

/** Fails unless two graphs of all ranks give every rank the same bits, from random inputs and memory, in a first microbatch and in a
 * later one.
 * @throws {Error} that names the seed and shows both. */
export function assertSameOnRanks(before: Graph, after: Graph, mesh: Mesh, seed: number): void {
  const given = ranksOf(mesh).map((rank) => randomInputs(before, 1000 * seed + rank));
  const run = (graph: Graph, first: boolean) => {
    const memories = given.map(({ memory }): Memory => new Map(memory));
    const outputs = interpretRanks(
      ranksOf(mesh).map((rank) => graphOfRank(graph, mesh, rank)),
      given.map(({ inputs }, rank) => ({ inputs, memory: memories[rank], first })),
    );
    return memories.map((memory, rank) => ({ memory, outputs: outputs[rank] }));
  };
  try {
    verify(after);
    for (const first of [true, false]) assertEquals(run(after, first), run(before, first));
  } catch (error) {
    throw new Error(
      `Graph "${before.name}" changed its meaning on ${JSON.stringify(mesh.degrees)}, seed ${seed}: ` +
        `${(error as Error).message.slice(0, 2000)}\n${print(before)}\n${print(after)}`,
      { cause: error },
    );
  }
}
