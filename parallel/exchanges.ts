/** What ranks say to each other in a graph: the part of the plan that costs time.
 * @module */
import { opOf } from "../graph/builder.ts";
import type { DType, Graph, Node } from "../graph/ir.ts";
import { num } from "../graph/op.ts";
import { sentBytes } from "../graph/facts.ts";

/** Collectives of one kind over one group. */
export interface Exchange {
  /** Where in the graph, as the caller tells places apart; "" where it does not. */
  readonly where: string;
  readonly op: string;
  /** Axes of the group, the outermost first. */
  readonly axes: readonly string[];
  /** Ranks of the group. */
  readonly size: number;
  readonly dtype: DType;
  readonly count: number;
  /** Tensors in all of them. */
  readonly tensors: number;
  /** Bytes that each rank sends, in all of them. */
  readonly bytes: number;
}

/** What is asked about exchanges. */
export interface ExchangeOptions {
  /** Tells collectives of one place from those of others; by default the graph is one place. */
  readonly placeOf?: (node: Node) => string;
  /** How often a step runs the graph; what only its first or last microbatch does is done once. Default 1. */
  readonly runs?: number;
}

/** The collectives of a partitioned graph, those alike together, in the order in which they are first met. */
export function exchangesOf(graph: Graph, { placeOf = () => "", runs = 1 }: ExchangeOptions = {}): Exchange[] {
  const found = new Map<string, Exchange>();
  for (const node of graph.nodes) {
    if (!opOf(node.op).together) continue;
    const { op, attrs, inputs, outputs } = node,
      bytes = sentBytes(node),
      [{ dtype }] = [...inputs, ...outputs], // who only receives gives nothing
      axes = (attrs.axes ?? []) as string[],
      where = placeOf(node);
    // In one place those of as many tensors are alike.
    const key = `${op} ${axes} ${dtype} ${where} ${where === "" ? "" : inputs.length}`;
    const times = attrs.first || attrs.last ? Math.min(1, runs) : runs;
    const before = found.get(key) ?? { count: 0, tensors: 0, bytes: 0 };
    found.set(key, {
      where,
      op,
      axes,
      size: num(attrs.size),
      dtype,
      count: before.count + times,
      tensors: before.tensors + times * inputs.length,
      bytes: before.bytes + times * bytes,
    });
  }
  return [...found.values()];
}

/** One line for each exchange: `3 all_gather of 9 tensors over dp_shard cp (4 ranks), bf16: 12288 bytes sent by each`. */
export function exchangesText(graph: Graph): string {
  return exchangesOf(graph).map(({ op, axes, size, dtype, count, tensors, bytes }) =>
    `${count} ${op}${tensors > count ? ` of ${tensors} tensors` : ""} over ${
      axes.join(" ")
    } (${size} ranks), ${dtype}: ${bytes} bytes sent by each\n`
  ).join("");
}
