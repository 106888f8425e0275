/** The language of programs: a graph is a list of nodes in SSA form over named state. Everything here is plain immutable
 * data; passes build new graphs and never change the one they were given.
 * @module */

/** Element types. `i32` holds tokens, positions and document ids; only the real types are differentiable. `bf16` (the upper half of
 * an `f32`) is a way to store: whoever reads it computes in `f32`. */
export type DType = "f32" | "f64" | "bf16" | "i32";

/** Bytes of one element. */
export const dtypeBytes: Readonly<Record<DType, number>> = { f32: 4, f64: 8, bf16: 2, i32: 4 };

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

/** One application of an op. */
export interface Node {
  /** Name in the op table (`graph/ops/`). */
  readonly op: string;
  /** Operands, in the order that the op defines. */
  readonly inputs: readonly Value[];
  /** Results, in the order that the op defines; none for an op that only changes state. */
  readonly outputs: readonly Value[];
  /** What is fixed at compile time, such as dims and constants. */
  readonly attrs: Attrs;
  /** Module path that made it (`layers.3.attention`), with `'` appended for its gradient. */
  readonly scope: string;
}

/** What a named state is for; memory is reported by it. */
export type StateKind = "parameter" | "gradient" | "moment" | "sum";

/** A tensor that outlives a run. Only `read`, `accumulate` and `assign` touch it. */
export interface State extends Type {
  /** A parameter's FQN, or `gradient/FQN`, `moment1/FQN`, `loss_sum`, ... */
  readonly name: string;
  /** What it is for. */
  readonly kind: StateKind;
}

/** A value under a name that the host knows. */
export interface Named {
  /** Key of the value in what a run takes or gives. */
  readonly name: string;
  /** What it names. */
  readonly value: Value;
}

/** One graph of a step, such as `microbatch` or `update`. */
export interface Graph {
  /** What messages and its printed text call it. */
  readonly name: string;
  /** What the host gives to a run. */
  readonly inputs: readonly Named[];
  /** States that the nodes may touch. */
  readonly states: readonly State[];
  /** In execution order: a value is made before it is used. */
  readonly nodes: readonly Node[];
  /** What the host gets from a run. */
  readonly outputs: readonly Named[];
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
  return dtype !== "i32";
}

/** The type that is computed in: `f32` for what is stored as `bf16`. */
export function wide<T extends DType>(dtype: T): Exclude<T, "bf16"> | "f32" {
  return dtype === "bf16" ? "f32" : dtype as Exclude<T, "bf16">;
}

/** The node that makes each value (inputs have none). */
export function producers(graph: Graph): Map<Value, Node> {
  const made = new Map<Value, Node>();
  for (const node of graph.nodes) for (const value of node.outputs) made.set(value, node);
  return made;
}

/** The nodes that read each value, in order; a graph output does not count as one. */
export function consumers(graph: Graph): Map<Value, Node[]> {
  const uses = new Map<Value, Node[]>();
  for (const node of graph.nodes) {
    for (const value of new Set(node.inputs)) {
      const list = uses.get(value);
      if (list) list.push(node);
      else uses.set(value, [node]);
    }
  }
  return uses;
}
