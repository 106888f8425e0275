/** Passes for the target that most tests are about.
 * @module */
import type { Graph, Node } from "../../../graph/ir.ts";
import * as fusing from "../../../graph/passes/fuse.ts";
import * as maps from "../../../graph/passes/fuse_maps.ts";
import * as materializing from "../../../graph/passes/materialize.ts";
import * as planning from "../../../graph/passes/memory.ts";
import * as rounding from "../../../graph/passes/precision.ts";
import * as searching from "../../../graph/passes/remat_search.ts";
import * as tiling from "../../../graph/passes/tile.ts";
import * as placing from "../../../graph/place.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import type { View } from "../../../graph/view.ts";

export const precision = (graph: Graph, numbers: rounding.Precision): Graph =>
  rounding.precision(graph, { ...numbers, target: cpu });
export const tile = (graph: Graph, options: Partial<tiling.TileOptions> = {}): Graph =>
  tiling.tile(graph, { ...cpu.chunks, ...options });
export const fuse = (graph: Graph): Graph => fusing.fuse(graph, cpu);
export const fusions = fusing.fusions.map(([name, rule]) => [name, (graph: Graph) => rule(graph, cpu)] as const);
export const accumulateInPlace = (graph: Graph): Graph => fusing.accumulateInPlace(graph, cpu);
export const fuseMaps = (graph: Graph): Graph => maps.fuseMaps(graph, cpu);
export const materialize = (graph: Graph): Graph => materializing.materialize(graph, cpu);
export const memory = (graphs: readonly Graph[], options: { readonly threads: number }): planning.MemoryPlan =>
  planning.memory(graphs, { ...options, target: cpu });
export const placeValues = (graph: Graph): placing.Places => placing.placeValues(graph, cpu);
export const kernelViews = (node: Node, views: readonly View[]): ReturnType<typeof placing.kernelViews> =>
  placing.kernelViews(node, views, cpu);
export const rematSearch = (graph: Graph, judge: searching.Judge): searching.RematSearch =>
  new searching.RematSearch(graph, { judge, costs: cpu.costs });
export const predictedSeconds = (graph: Graph): number => searching.predictedSeconds(graph, cpu.costs);
