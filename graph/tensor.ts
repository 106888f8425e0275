/** Symbolic tensors: what a model is written on. Every method adds a node to the graph being traced.
 * @module */
import {
  type Attrs,
  type DType,
  isReal,
  type Named,
  numel,
  type Origin,
  type State,
  type Type,
  type Value,
} from "./ir.ts";

const LETTERS = "abcdefghijklmnopqrstuvwxyz";
/** `"a b c"`: one letter for each dim of a rank. */
const letters = (rank: number): string[] => [...LETTERS.slice(0, rank)];

/** The graph being traced, as tensors and modules see it; a `Builder` is one. */
export interface Tracer {
  /** Given to new nodes. */
  origin: Origin;
  /** What modules have given so far. */
  readonly activations: Named[];
  /** Adds a node and returns its outputs. */
  emit(op: string, inputs: readonly Value[], attrs?: Attrs): Value[];
  /** Declares a state. */
  declare(state: State): void;
  /** Reads one state, or several that lie one after another. */
  read(...names: string[]): Value;
  /** Replaces a state. */
  assign(name: string, value: Value): void;
  /** Adds a value to a state; unless `begin` is false, the first microbatch of a step overwrites instead. */
  accumulate(name: string, value: Value, begin?: boolean): void;
}

/** A value of the graph being traced. Shapes are global: they do not know how the value will be spread over devices. */
export class Tensor {
  /** Stands for a value that the graph has already; adds no node.
   * @param builder graph being traced. @param value value that this tensor stands for. */
  constructor(readonly builder: Tracer, readonly value: Value) {}

  /** Element type. */
  get dtype(): DType {
    return this.value.dtype;
  }
  /** Global shape. */
  get shape(): readonly number[] {
    return this.value.shape;
  }

  /** Applies any op of the table to this tensor and others: how ops without a method of their own are called. */
  apply(op: string, others: readonly Tensor[] = [], attrs: Attrs = {}): Tensor[] {
    const inputs = [this, ...others].map((t) => t.value);
    return this.builder.emit(op, inputs, attrs).map((v) => new Tensor(this.builder, v));
  }

  #one(op: string, others: readonly Tensor[] = [], attrs: Attrs = {}): Tensor {
    return this.apply(op, others, attrs)[0];
  }

  /** A constant of this tensor's element type. */
  constant(value: number, shape: readonly number[] = []): Tensor {
    return constant(this.builder, value, { dtype: this.dtype, shape });
  }

  #binary(op: string, other: Tensor | number): Tensor {
    if (typeof other === "number") return this.#one(op, [this.constant(other, this.shape)]);
    const shape = broadcastShape(this.shape, other.shape, op);
    return this.broadcastTo(shape).#one(op, [other.broadcastTo(shape)]);
  }

  /** Element-wise sum; shapes broadcast as in NumPy. */
  add(other: Tensor | number): Tensor {
    return this.#binary("add", other);
  }
  /** Element-wise difference. */
  sub(other: Tensor | number): Tensor {
    return this.#binary("sub", other);
  }
  /** Element-wise product. */
  mul(other: Tensor | number): Tensor {
    return this.#binary("mul", other);
  }
  /** Element-wise quotient. */
  div(other: Tensor | number): Tensor {
    return this.#binary("div", other);
  }
  /** Element-wise maximum. */
  maximum(other: Tensor | number): Tensor {
    return this.#binary("maximum", other);
  }
  /** Element-wise minimum. */
  minimum(other: Tensor | number): Tensor {
    return this.#binary("minimum", other);
  }
  /** 1 where this is less than `other`, else 0. Comparisons of integers give integers: cast them to mask reals. */
  less(other: Tensor | number): Tensor {
    return this.#binary("less", other);
  }
  /** 1 where this is at most `other`, else 0. */
  lessEqual(other: Tensor | number): Tensor {
    return this.#binary("less_equal", other);
  }
  /** 1 where both are equal, else 0. */
  equal(other: Tensor | number): Tensor {
    return this.#binary("equal", other);
  }
  /** `a` where this is not 0, else `b` (all of one shape). */
  select(a: Tensor, b: Tensor): Tensor {
    return this.#one("select", [a, b]);
  }
  /** -x */
  neg(): Tensor {
    return this.#one("neg");
  }
  /** |x| */
  abs(): Tensor {
    return this.#one("abs");
  }
  /** e^x */
  exp(): Tensor {
    return this.#one("exp");
  }
  /** Natural logarithm. */
  log(): Tensor {
    return this.#one("log");
  }
  /** Square root. */
  sqrt(): Tensor {
    return this.#one("sqrt");
  }
  /** 1 / sqrt(x) */
  rsqrt(): Tensor {
    return this.#one("rsqrt");
  }
  /** Hyperbolic tangent. */
  tanh(): Tensor {
    return this.#one("tanh");
  }
  /** 1 / (1 + e^-x) */
  sigmoid(): Tensor {
    return this.#one("sigmoid");
  }
  /** x * sigmoid(x) */
  silu(): Tensor {
    return this.#one("silu");
  }
  /** max(x, 0) */
  relu(): Tensor {
    return this.#one("relu");
  }
  /** x * x */
  square(): Tensor {
    return this.#one("square");
  }
  /** 1 / x */
  reciprocal(): Tensor {
    return this.#one("reciprocal");
  }
  /** The same numbers as another element type: integers to reals, and reals to integers, which leaves out their fraction. */
  cast(dtype: DType): Tensor {
    return dtype === this.dtype ? this : this.#one("cast", [], { dtype });
  }

  /** Repeats along new or size-1 dims until the shape is `shape`. */
  broadcastTo(shape: readonly number[]): Tensor {
    if (String(shape) === String(this.shape)) return this;
    const lead = shape.length - this.shape.length;
    const names = letters(shape.length);
    const kept = names.filter((_, d) => d >= lead && (this.shape[d - lead] === shape[d] && shape[d] !== 1));
    const term = names.slice(lead).map((l) => kept.includes(l) ? l : "1").join(" ");
    const packed = kept.length === this.shape.length ? this : this.reshape(`${term} -> ${kept.join(" ")}`);
    const sizes = Object.fromEntries(names.map((l, d) => [l, shape[d]]));
    return packed.#one("broadcast", [], { dims: `${kept.join(" ")} -> ${names.join(" ")}`, sizes });
  }

  /** Splits and merges dims: `"b t (h k) -> b t h k"`; `sizes` gives what the shape does not tell. */
  reshape(dims: string, sizes: Record<string, number> = {}): Tensor {
    return this.#one("reshape", [], { dims, sizes });
  }

  /** This with one more dim, of size 1, which becomes dim `dim` (the last by default): `[b, t]` to `[b, t, 1]`. */
  expandDims(dim = -1): Tensor {
    const from = letters(this.shape.length), rank = from.length + 1, at = dim < 0 ? dim + rank : dim;
    if (!(at >= 0 && at < rank)) {
      throw new RangeError(
        `Cannot add dim ${dim} to a tensor of ${from.length} dims: expected ${-rank} to ${rank - 1}`,
      );
    }
    return this.reshape(`${from.join(" ")} -> ${from.toSpliced(at, 0, "1").join(" ")}`);
  }
  /** Permutes dims by a pattern: `"b t h k -> b h t k"`. */
  transpose(dims: string): Tensor;
  /** Swaps two dims; negative ones count from the last.
   * @throws {RangeError} when there is no such dim. */
  transpose(dim0: number, dim1: number): Tensor;
  transpose(dims: string | number, dim1?: number): Tensor {
    if (typeof dims === "string") return this.#one("transpose", [], { dims });
    const from = letters(this.shape.length);
    const to = [...from];
    const [i, j] = [this.#dim(dims), this.#dim(dim1!)];
    [to[i], to[j]] = [to[j], to[i]];
    return this.#one("transpose", [], { dims: `${from.join(" ")} -> ${to.join(" ")}` });
  }

  #dim(dim: number): number {
    const d = dim < 0 ? dim + this.shape.length : dim;
    if (!(d >= 0 && d < this.shape.length)) {
      throw new RangeError(`Cannot use dim ${dim} of a tensor of ${this.shape.length} dims`);
    }
    return d;
  }

  #reduce(kind: "sum" | "max", dims: number | readonly number[] | undefined, keep: boolean): Tensor {
    const rank = this.shape.length;
    const over = new Set(
      (dims === undefined ? letters(rank).map((_, i) => i) : [dims].flat()).map((d) => this.#dim(d)),
    );
    const from = letters(rank);
    const to = from.filter((_, d) => !over.has(d));
    const out = this.#one("reduce", [], { dims: `${from.join(" ")} -> ${to.join(" ")}`, kind });
    return keep ? out.reshape(`${to.join(" ")} -> ${from.map((l, d) => over.has(d) ? "1" : l).join(" ")}`) : out;
  }
  /** Sum over dims (all by default). */
  sum(dims?: number | readonly number[], options: { keepDims?: boolean } = {}): Tensor {
    return this.#reduce("sum", dims, options.keepDims ?? false);
  }
  /** Maximum over dims (all by default). */
  max(dims?: number | readonly number[], options: { keepDims?: boolean } = {}): Tensor {
    return this.#reduce("max", dims, options.keepDims ?? false);
  }
  /** Mean over dims (all by default). */
  mean(dims?: number | readonly number[], options: { keepDims?: boolean } = {}): Tensor {
    const sum = this.sum(dims, options);
    return sum.mul(Math.max(1, numel(sum.shape)) / numel(this.shape));
  }
  /** Running sums along a dim: each is the sum of all elements up to its own. `exclusive` leaves its own out, `reverse` begins at the end.
   * @example
   * ```ts
   * import { i32, interpret, trace } from "@libtitan/titan";
   *
   * const graph = trace((x) => x.cumsum(0, { exclusive: true }), i32(4));
   * console.log(interpret(graph, { inputs: { x0: [3, 1, 4, 1] } }).y0.data); // 0, 3, 4, 8
   * ``` */
  cumsum(dim = -1, options: { exclusive?: boolean; reverse?: boolean } = {}): Tensor {
    const flags = Object.entries(options).filter(([, on]) => on);
    return this.#one("cumsum", [], { dim: this.#dim(dim), ...Object.fromEntries(flags) });
  }
  /** The `k` largest elements of the last dim, largest first, and their indices (`i32`). Of equal ones the lower index comes first.
   * @example
   * ```ts
   * import { f32, interpret, trace } from "@libtitan/titan";
   *
   * const graph = trace((scores) => scores.topK(2), f32(4));
   * const { y0: values, y1: ids } = interpret(graph, { inputs: { x0: [0.1, 0.7, 0.2, 0.7] } });
   * console.log(values.data, ids.data); // 0.7, 0.7 and 1, 3
   * ``` */
  topK(k: number): [values: Tensor, ids: Tensor] {
    const [values, ids] = this.apply("top_k", [], { k });
    return [values, ids];
  }
  /** Index of the largest element of the last dim (`i32`), the lowest of equal ones. */
  argmax(): Tensor {
    const lead = letters(this.shape.length - 1).join(" ");
    return this.topK(1)[1].reshape(`${lead} 1 -> ${lead}`);
  }
  /** Rows at integer indices: `[..., n, d]` by `[..., k]` to `[..., k, d]`, leading dims shared. An index that is no row, such as -1, gives
   * zeros.
   * @example
   * ```ts
   * import { f32, i32, interpret, trace } from "@libtitan/titan";
   *
   * const graph = trace((x, ids) => x.take(ids), f32(2, 2), i32(3));
   * console.log(interpret(graph, { inputs: { x0: [1, 2, 3, 4], x1: [1, -1, 0] } }).y0.data); // 3, 4, 0, 0, 1, 2
   * ``` */
  take(ids: Tensor): Tensor {
    return this.#one("take", [ids]);
  }
  /** This `[..., n, d]` with other rows `[..., k, d]` at the indices `[..., k]`. An index that is no row is left out; of equal ones the last
   * counts. To write rows of a state: `builder.assign(name, state.putRows(ids, rows).value)`, which touches no others where nothing reads
   * the state's old value later.
   * @example
   * ```ts
   * import { f32, i32, interpret, trace } from "@libtitan/titan";
   *
   * const graph = trace((x, ids, rows) => x.putRows(ids, rows), f32(3, 1), i32(2), f32(2, 1));
   * console.log(interpret(graph, { inputs: { x0: [1, 2, 3], x1: [2, -1], x2: [8, 9] } }).y0.data); // 1, 2, 8
   * ``` */
  putRows(ids: Tensor, rows: Tensor): Tensor {
    return this.#one("put_rows", [ids, rows]);
  }
  /** Sums of these rows `[..., k, d]` by index `[..., k]`, as `size` rows `[..., size, d]`: the other way round than `take`. */
  scatterAdd(ids: Tensor, size: number): Tensor {
    return ids.#one("scatter_add", [this], { size });
  }
  /** Integers `[...]` to reals `[..., size]`: 1 at the integer's place, else 0; all zeros where that is no place.
   * @example
   * ```ts
   * import { i32, interpret, trace } from "@libtitan/titan";
   *
   * const graph = trace((ids) => ids.oneHot(3), i32(2));
   * console.log(interpret(graph, { inputs: { x0: [2, 0] } }).y0.data); // 0, 0, 1, 1, 0, 0
   * ``` */
  oneHot(size: number, dtype: "f32" | "f64" = "f32"): Tensor {
    const lead = letters(this.shape.length).join(" "), ids = this.expandDims();
    const ones = constant(this.builder, 1, { dtype, shape: [...ids.shape, 1] });
    return ones.scatterAdd(ids, size).reshape(`${lead} n 1 -> ${lead} n`, { n: size });
  }
  /** exp(x - max) / sum(exp(x - max)) along one dim. */
  softmax(dim = -1): Tensor {
    const d = this.#dim(dim), last = this.shape.length - 1;
    return d === last ? this.#one("softmax") : this.transpose(d, last).#one("softmax").transpose(d, last);
  }

  /** Product of two tensors by an einsum: `x.contract("b t i, o i -> b t o", w)`. */
  contract(dims: string, other: Tensor): Tensor {
    return this.#one("contract", [other], { dims });
  }
  /** Matrix product; leading dims are shared, or absent in `other`. */
  matmul(other: Tensor): Tensor {
    const [m, n] = [this.shape.length, other.shape.length];
    if (m < 2 || n < 2 || (n > 2 && n !== m)) {
      throw new TypeError(
        `Cannot multiply shapes [${this.shape}] and [${other.shape}]: expected [..., m, k] and [k, n] or [..., k, n]`,
      );
    }
    const lead = letters(m - 2).join(" ");
    return this.contract(`${lead} m k, ${n > 2 ? lead : ""} k n -> ${lead} m n`.replace(/ +/g, " ").trim(), other);
  }

  /** The box that starts at `starts` with shape `shape`. */
  slice(starts: readonly number[], shape: readonly number[]): Tensor {
    return this.#one("slice", [], { starts: [...starts], shape: [...shape] });
  }
  /** This and others, one after another along `dim`. */
  concat(others: readonly Tensor[], dim = 0): Tensor {
    return this.#one("concat", others, { dim: this.#dim(dim) });
  }
}

/** A constant tensor. */
export function constant(builder: Tracer, value: number, type: Type): Tensor {
  if (!isReal(type.dtype) && !Number.isInteger(value)) {
    throw new TypeError(`Cannot make an ${type.dtype} constant of ${value}: expected an integer`);
  }
  const attrs = { value, dtype: type.dtype, shape: [...type.shape] };
  return new Tensor(builder, builder.emit("constant", [], attrs)[0]);
}

function broadcastShape(a: readonly number[], b: readonly number[], op: string): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1, y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new TypeError(`Cannot apply "${op}" to shapes [${a}] and [${b}]: sizes ${x} and ${y} differ`);
    }
    return Math.max(x, y);
  });
}
