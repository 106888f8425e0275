/** Random meshes, and random layouts for the states and inputs of a graph: any that fit, sensible or not.
 * @module */
import { type Graph, isReal } from "../../graph/ir.ts";
import { type Layout, layoutOf, partial, type Placement, replicate, replicated, shard } from "../../graph/layout.ts";
import { autodiff } from "../../graph/passes/autodiff.ts";
import type { Mesh, MeshOptions } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import type { Layouts } from "../../parallel/plan.ts";
import { Random, randomGraph } from "../graph/random_graphs.ts";
import { meshOf } from "./step_graphs.ts";

const meshes: readonly MeshOptions[] = [
  { dp_shard: 2 },
  { tp: 2 },
  { tp: 3 },
  { dp_replicate: 2, dp_shard: 2 },
  { dp_shard: 2, tp: 2 },
  { cp: 2, tp: 2 },
  { pp: 2, cp: 2 },
  { dp_shard: 2, cp: 2, tp: 2 },
  { dp_shard: 4, ep: 2 },
  { dp_shard: 4, cp: 2, ep: 4 },
  { cp: 4, ep: 2 },
];

/** One of a few small meshes. */
export function randomMesh(random: Random): Mesh {
  return meshOf(random.pick(meshes));
}

/** The axes that a pass may use, in a random order. */
function axesOf({ factors }: Mesh, random: Random): string[] {
  return random.shuffle(Object.keys(factors).filter((a) => a !== "pp" && factors[a] > 1));
}

/** A layout that fits a shape; `summands`: may it be partial? Sometimes dim 0 is cut with padding. */
export function randomLayout(shape: readonly number[], mesh: Mesh, random: Random, summands: boolean): Layout {
  return shape.length > 0 && random.oneIn(4)
    ? paddedLayout(shape, mesh, random)
    : evenLayout(shape, mesh, random, summands);
}

function evenLayout(shape: readonly number[], mesh: Mesh, random: Random, summands: boolean): Layout {
  const cuts = shape.map(() => 1), by = random.oneIn(4) ? "max" as const : "sum" as const;
  return layoutOf(
    axesOf(mesh, random).map((axis): [string, Placement] => {
      const dim = random.int(0, Math.max(0, shape.length - 1));
      if (summands && random.oneIn(4)) return [axis, partial(by)];
      if (random.oneIn(4) || !(shape[dim] % (cuts[dim] * mesh.factors[axis]) === 0)) return [axis, replicate];
      cuts[dim] *= mesh.factors[axis];
      return [axis, shard(dim)];
    }),
    mesh.factors,
  );
}

/** Dim 0 over all axes at one go, with padding where it is uneven. */
function paddedLayout(shape: readonly number[], mesh: Mesh, random: Random): Layout {
  const axes = axesOf(mesh, random), pieces = axes.reduce((n, a) => n * mesh.factors[a], 1);
  const placement = shard(0, { padded: shape[0] % pieces !== 0 });
  return layoutOf(axes.map((axis) => [axis, placement]), mesh.factors);
}

/** Layouts for all that a graph reads and writes. */
export function randomLayouts(graph: Graph, mesh: Mesh, random: Random): Layouts {
  const states = new Map<string, Layout>(), used = new Map<string, Layout>();
  for (const s of graph.states) {
    states.set(s.name, randomLayout(s.shape, mesh, random, s.kind !== "parameter" && isReal(s.dtype)));
    used.set(s.name, evenLayout(s.shape, mesh, random, false));
  }
  // The host knows nothing of maxima.
  for (const [name, layout] of states) {
    if ([...layout.values()].some((p) => p.kind === "partial" && p.by === "max")) states.set(name, new Map());
  }
  const inputs = new Map(graph.inputs.map(({ name, value }) => [
    name,
    evenLayout(value.shape, mesh, random, isReal(value.dtype)),
  ]));
  const placement = () => random.pick([replicate, shard(0), shard(1), shard(2)]);
  const residual = new Map(axesOf(mesh, random).map((axis) => [axis, placement()]));
  return {
    state: (s) => states.get(s.name)!,
    used: (s) => used.get(s.name)!,
    input: ({ name }) => inputs.get(name)!,
    activation: () => replicated,
    residual: () => residual,
  };
}

/** A random graph, mostly with its gradient, in random layouts on a mesh, and what all ranks run. Its parameters lie in blocks, or
 * outside of them. */
export function randomPartitioned(seed: number, meshFor: (random: Random) => Mesh = randomMesh) {
  const random = new Random(seed), forward = randomGraph(seed, { steps: [3, 15], sizes: [2, 4, 6] });
  const parameters = forward.states.filter((s) => s.kind === "parameter").map((s) => s.name);
  const graph = random.oneIn(4) ? forward : autodiff(forward, { of: "loss", states: parameters });
  const blocks = new Map(parameters.map((s) => [s, random.pick([undefined, undefined, "blocks.0", "blocks.1"])]));
  const whole: Graph = { ...graph, states: graph.states.map((s) => ({ ...s, block: blocks.get(s.of ?? s.name) })) };
  const mesh = meshFor(random), layouts = randomLayouts(whole, mesh, random);
  return { whole, mesh, layouts, graph: partition(whole, mesh, layouts), random };
}
