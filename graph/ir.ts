/** The language of programs: a graph is a list of nodes in SSA form over named state. Everything here is plain immutable
 * data; passes build new graphs and never change the one they were given.
 * @module */

import { type DType, dtypes, elementTypes } from "./element_types.ts";

/** Element types. `i32` holds tokens, positions, document ids and indices; only the real types are differentiable. `bf16` (the upper half of
 * an `f32`) and float8 are ways to store: whoever reads them computes in `f32`. */
export type { DType } from "./element_types.ts";

/** Types that are only a way to store `f32`. */
export type StoredReal = Extract<DType, "bf16" | Float8>;
/** Float8: 4 bits of exponent and 3 of mantissa, or 5 and 2. */
export type Float8 = "f8e4m3" | "f8e5m2";

/** Bytes of one element. */
export const dtypeBytes: Readonly<Record<DType, number>> = Object.fromEntries(
  dtypes.map((dtype) => [dtype, elementTypes[dtype].bits / 8]),
) as Record<DType, number>;

/** What an attribute may hold: JSON. */
export type Attr = string | number | boolean | readonly Attr[] | { readonly [key: string]: Attr };

/** Attributes of a node: everything about it that is fixed when the program is compiled. */
export type Attrs = Readonly<Record<string, Attr>>;

/** Element type and global shape of a value. */
export interface Type {
  /** Type of every element. */
  readonly dtype: DType;
  /** Sizes of the dims, outermost first; `[]` is a scalar. */
  readonly shape: readonly number[];
}

/** One result of a node, or an input. Printed as `%id`. */
export interface Value extends Type {
  /** Unique in its graph. */
  readonly id: number;
}

/** When a node runs: with what is traced, with its gradient, or there again to make what forward has not kept. */
export type Phase = "forward" | "backward" | "remade";

/** Where a node comes from. Every rewriting keeps it. */
export interface Origin {
  /** Path of the module that made it (`layers.3.attention`): for people, no code reads it. */
  readonly scope: string;
  /** When it runs. */
  readonly phase: Phase;
  /** The part of the model that is there several times, such as `layers.3`; absent outside of these. */
  readonly block?: string;
  /** The stage of a pipeline that it is on, from 0: known until the graph is cut into those of stages. */
  readonly stage?: number;
}

/** One application of an op. */
export interface Node extends Origin {
  /** Name in the op table (`graph/ops/`). */
  readonly op: string;
  /** Operands, in the order that the op defines. */
  readonly inputs: readonly Value[];
  /** Results, in the order that the op defines; none for an op that only changes state. */
  readonly outputs: readonly Value[];
  /** What is fixed at compile time, such as dims and constants. */
  readonly attrs: Attrs;
}

/** What a named state is for; memory is reported by it. A `buffer` is what a model remembers beside its parameters, and checkpoints have
 * it; a `cache` can be made again at any time, and they do not. An `activation` is what the graphs of a pipeline's stage leave for each
 * other: it is there once for each microbatch that is under way. What is `gathered` by the first microbatch of a step, from parameters that
 * other ranks store, is there until the last. */
export type StateKind = "parameter" | "gradient" | "moment" | "sum" | "buffer" | "cache" | "activation" | "gathered";

/** A tensor that outlives a run. Only `read`, `accumulate` and `assign` touch it. */
export interface State extends Type {
  /** Unique in a step, for hosts and people: no code takes it apart. */
  readonly name: string;
  /** What it is for. */
  readonly kind: StateKind;
  /** Name of the parameter that a gradient or a moment belongs to; of an activation, that of the stage whose slot it lies in. */
  readonly of?: string;
  /** What each dim of an activation counts. */
  readonly roles?: readonly DimRole[];
  /** Path of the module that holds the parameter: for people. */
  readonly scope?: string;
  /** The block that the parameter is in, as nodes have it. */
  readonly block?: string;
}

/** A value under a name that the host knows. */
export interface Named {
  /** Key of the value in what a run takes or gives. */
  readonly name: string;
  /** What it names. */
  readonly value: Value;
}

/** What a dim of the data counts: sequences of the batch, tokens of a sequence, or something else, such as features. */
export type DimRole = "batch" | "sequence" | "features";

/** What the host gives to a run. */
export interface Input extends Named {
  /** What each dim counts; absent where the value is everybody's, such as a learning rate. */
  readonly roles?: readonly DimRole[];
  /** Are the numbers of each row, along its last dim, 0, 1, 2 and so on, whatever the host gives? A rank with a slice of rows has others. */
  readonly counts?: true;
}

/** How far a graph has come: `global`, over whole values; `ranks`, the one graph of all ranks, over the parts that each has; `rank`,
 * that of one rank; `placed`, where every kernel can follow its operands. */
export type Level = "global" | "ranks" | "rank" | "placed";

/** One graph of a step, such as `microbatch` or `update`. */
export interface Graph {
  /** What messages and its printed text call it. */
  readonly name: string;
  /** What passes may still do to it, and what it may hold. */
  readonly level: Level;
  /** The stage that it works for, in the slot that a run is given; absent where nothing is kept for other graphs. */
  readonly slot?: string;
  /** What the host gives to a run. */
  readonly inputs: readonly Input[];
  /** States that the nodes may touch. */
  readonly states: readonly State[];
  /** In execution order: a value is made before it is used. */
  readonly nodes: readonly Node[];
  /** What the host gets from a run. */
  readonly outputs: readonly Named[];
  /** What modules give, by their paths: plans name them. They keep nothing alive. */
  readonly activations: readonly Named[];
  /** Slower paths that passes had to take, each with the reason, for people: `holds ... at once, since ...`. */
  readonly notices: readonly string[];
}

/** Number of elements of a shape. */
export function numel(shape: readonly number[]): number {
  return shape.reduce((n, d) => n * d, 1);
}

/** Bytes of a packed tensor. */
export function sizeBytes(type: Type): number {
  return numel(type.shape) * dtypeBytes[type.dtype];
}

/** `f32[4,128]`. */
export function typeText(type: Type): string {
  return `${type.dtype}[${type.shape.join(",")}]`;
}

/** Are both element type and shape the same? */
export function sameType(a: Type, b: Type): boolean {
  return a.dtype === b.dtype && a.shape.length === b.shape.length && a.shape.every((d, i) => d === b.shape[i]);
}

/** Is this one of the types that gradients flow through? */
export function isReal(dtype: DType): boolean {
  const { kind } = elementTypes[dtype];
  return kind === "real" || kind === "stored_real";
}

/** Is the type only a way to store `f32`? */
export function isStored(dtype: DType): dtype is StoredReal {
  return elementTypes[dtype].kind === "stored_real";
}

/** The type that is computed in: `f32` for what is stored in fewer bits. */
export function wide<T extends DType>(dtype: T): Exclude<T, StoredReal> | "f32" {
  return isStored(dtype) ? "f32" : dtype as Exclude<T, StoredReal>;
}

/** Does a node run in backward? */
export function inBackward({ phase }: Pick<Origin, "phase">): boolean {
  return phase !== "forward";
}

/** What the gradient of a parameter, or of an input, is called. */
export function gradientName(name: string): string {
  return `gradient/${name}`;
}

/** The sum of a parameter's gradients over microbatches. */
export function gradientOf(parameter: State, { dtype, shape }: Type = parameter): State {
  return { ...parameter, name: gradientName(parameter.name), kind: "gradient", of: parameter.name, dtype, shape };
}

/** What AdamW remembers of a parameter's gradients: their mean, and that of their squares. */
export function momentsOf(parameter: State): readonly [State, State] {
  const moment = (i: 1 | 2): State => ({
    ...parameter,
    name: `moment${i}/${parameter.name}`,
    kind: "moment",
    of: parameter.name,
  });
  return [moment(1), moment(2)];
}

/** A graph with other nodes. What modules give goes with the nodes that made it.
 * @param now what stands for a value of the old graph from then on. */
export function withNodes(graph: Graph, nodes: readonly Node[], now: (value: Value) => Value = (v) => v): Graph {
  const renamed = ({ name, value }: Named): Named => ({ name, value: now(value) });
  const result = { ...graph, nodes, outputs: graph.outputs.map(renamed) };
  if (graph.activations.length === 0) return result;
  const inputs = new Set(graph.inputs.map((i) => i.value)), made = producers(result);
  const isThere = ({ value }: Named) => inputs.has(value) || made.get(value) !== undefined;
  return { ...result, activations: graph.activations.map(renamed).filter(isThere) };
}

/** Graphs never change, so what was found out about a list of nodes holds as long as there is the list. */
export function remembered<T>(find: (graph: Pick<Graph, "nodes">) => T): (graph: Pick<Graph, "nodes">) => T {
  const known = new WeakMap<readonly Node[], T>();
  return (graph) => {
    let found = known.get(graph.nodes);
    if (found === undefined) known.set(graph.nodes, found = find({ nodes: graph.nodes }));
    return found;
  };
}

const largestOutput = remembered(({ nodes }) => {
  let largest = -1;
  for (const { outputs } of nodes) for (const v of outputs) if (v.id > largest) largest = v.id;
  return largest;
});

/** How many numbers of values there are: one more than the largest that an input or a node has. */
export function idCount({ inputs = [], nodes }: Pick<Graph, "nodes"> & Partial<Pick<Graph, "inputs">>): number {
  return inputs.reduce((largest, { value }) => Math.max(largest, value.id), largestOutput({ nodes })) + 1;
}

/** What is known of values, to be asked only. */
export type Lookup<T> = Pick<ValueMap<T>, "get" | "has">;

/** What is known of values of one graph, found by their numbers: a step has very many, and a `Map` would hash each. */
export class ValueMap<T> {
  readonly #keys: Value[];
  readonly #items: T[];

  /** @param graph whose values they are. */
  constructor(graph: Pick<Graph, "nodes">) {
    const size = idCount(graph);
    this.#keys = new Array(size);
    this.#items = new Array(size);
  }

  /** What is known of a value. */
  get(value: Value): T | undefined {
    return this.#keys[value.id] === value ? this.#items[value.id] : undefined;
  }

  /** Is something known of a value? */
  has(value: Value): boolean {
    return this.#keys[value.id] === value;
  }

  /** Notes what is known of a value. */
  set(value: Value, item: T): void {
    this.#keys[value.id] = value;
    this.#items[value.id] = item;
  }
}

/** The node that makes each value (inputs have none). */
export const producers: (graph: Pick<Graph, "nodes">) => Lookup<Node> = remembered(({ nodes }) => {
  const made = new ValueMap<Node>({ nodes });
  for (const node of nodes) for (const value of node.outputs) made.set(value, node);
  return made;
});

/** The nodes that read each value, in order; a graph output does not count as one. */
export const consumers: (graph: Pick<Graph, "nodes">) => Lookup<readonly Node[]> = remembered((graph) => {
  const uses = new ValueMap<Node[]>(graph);
  for (const node of graph.nodes) {
    for (const value of node.inputs) {
      const list = uses.get(value);
      if (!list) uses.set(value, [node]);
      else if (list.at(-1) !== node) list.push(node); // it may read a value twice
    }
  }
  return uses;
});
