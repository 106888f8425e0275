/** Random well-typed graphs, inputs for them, and the question that every pass is asked: do two graphs mean the same?
 * Everything follows from a seed, which each failure names.
 * @module */
import { type Arr, arr, roundedTo } from "../../graph/array.ts";
import { Builder } from "../../graph/builder.ts";
import { type DType, type Graph, numel, type State, type Value } from "../../graph/ir.ts";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { num } from "../../graph/op.ts";
import { print } from "../../graph/print.ts";
import { Tensor } from "../../graph/tensor.ts";
import { at } from "./origins.ts";

/** A small seeded generator of random numbers (mulberry32). */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  /** Uniform in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  /** A whole number in [low, high]. */
  int(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }
  /** Uniform in [low, high). */
  real(low: number, high: number): number {
    return low + this.next() * (high - low);
  }
  /** One of a list. */
  pick<T>(list: readonly T[]): T {
    return list[this.int(0, list.length - 1)];
  }
  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.int(1, n) === 1;
  }
  /** The list in another order. */
  shuffle<T>(list: readonly T[]): T[] {
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.int(0, i);
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }
}

/** What kind of graph. */
export interface RandomGraphOptions {
  /** Real dtype of the graph; default f64. */
  readonly dtype?: DType;
  /** Least and most steps of work; default 10 to 40. */
  readonly steps?: readonly [number, number];
  /** Sizes of the dims to choose from; default 1 to 5. */
  readonly sizes?: readonly number[];
  /** Shall the loss be the cross-entropy of a head over the other work? Default: sometimes. */
  readonly head?: boolean;
}

/** Where the generator stands: tensors to choose from, and how large their elements may be. */
interface Pool {
  readonly random: Random;
  readonly builder: Builder;
  readonly tensors: Tensor[];
  readonly bounds: WeakMap<Tensor, number>;
}

const LETTERS = [..."abcdefg"];
/** Elements stay smaller than this, so that rounding stays small. */
const LARGE = 30;

const boundOf = ({ bounds }: Pool, t: Tensor): number => bounds.get(t) ?? 1;

/** Adds a tensor to the pool; a large one is squashed first. */
function keep(pool: Pool, tensor: Tensor, bound: number): Tensor {
  const small = bound <= LARGE ? tensor : tensor.mul(4 / bound).tanh();
  pool.bounds.set(small, Math.min(bound, bound <= LARGE ? bound : 1));
  pool.tensors.push(small);
  return small;
}

/** A tensor of the pool, the newest ones more often; `fits` narrows the choice. */
function choose(pool: Pool, fits: (t: Tensor) => boolean = () => true): Tensor | undefined {
  const list = pool.tensors.filter(fits);
  if (list.length === 0) return;
  return pool.random.oneIn(2) ? pool.random.pick(list.slice(-4)) : pool.random.pick(list);
}

/** A new input. */
function newInput({ builder }: Pool, name: string, dtype: DType, shape: readonly number[]): Tensor {
  return new Tensor(builder, builder.input(`${name}${builder.inputs.length}`, { dtype, shape }));
}

const unary: readonly ((t: Tensor, bound: number) => [Tensor, number])[] = [
  (t, b) => [t.neg(), b],
  (t, b) => [t.neg().neg(), b],
  (t, b) => [t.abs(), b],
  (t) => [t.tanh().exp(), 3],
  (t) => [t.square().add(0.5).log(), 8],
  (t, b) => [t.square().add(1).sqrt(), b + 1],
  (t) => [t.square().add(0.7).rsqrt(), 2],
  (t) => [t.abs().add(0.8).reciprocal(), 2],
  (t) => [t.tanh(), 1],
  (t) => [t.sigmoid(), 1],
  (t, b) => [t.silu(), b],
  (t, b) => [t.relu(), b],
  (t, b) => [t.square(), b * b],
  (t, b) => [t.add(0), b],
  (t, b) => [t.sub(0).mul(1), b],
  (t, b) => [t.div(1), b],
  (t, b) => [t.mul(0.5).mul(3), 1.5 * b],
  (t, b) => [t.add(t.constant(2).mul(t.constant(0.25)).exp()), b + 2],
  (t, b) => [t.maximum(0.1), b + 0.1],
  (t, b) => [t.less(0.2).select(t, t.mul(-1)), b],
];

const binary: readonly ((a: Tensor, b: Tensor, x: number, y: number) => [Tensor, number])[] = [
  (a, b, x, y) => [a.add(b), x + y],
  (a, b, x, y) => [b.add(a), x + y],
  (a, b, x, y) => [a.sub(b), x + y],
  (a, b, x, y) => [a.sub(b.neg()), x + y],
  (a, b, x, y) => [a.mul(b), x * y],
  (a, b, x) => [a.div(b.square().add(0.6)), 2 * x],
  (a, b, x, y) => [a.maximum(b), Math.max(x, y)],
  (a, b, x, y) => [a.minimum(b), Math.max(x, y)],
  (a, b) => [a.lessEqual(b).add(a.equal(b)), 2],
];

const MAX_ELEMENTS = 160;

/** One step of work on the pool; a step that does not fit does nothing. */
type Step = (pool: Pool) => void;

const steps: Readonly<Record<string, Step>> = {
  unary(pool) {
    const x = choose(pool)!;
    keep(pool, ...pool.random.pick(unary)(x, boundOf(pool, x)));
  },
  binary(pool) {
    const a = choose(pool)!;
    const b = choose(pool, (t) => String(t.shape) === String(a.shape) || t.shape.length === 0)!;
    keep(pool, ...pool.random.pick(binary)(a, b, boundOf(pool, a), boundOf(pool, b)));
  },
  /** The same work a second time. */
  again(pool) {
    const x = choose(pool)!, bound = boundOf(pool, x);
    keep(pool, x.silu().add(x.silu()), 2 * bound);
  },
  reduce(pool) {
    const x = choose(pool, (t) => t.shape.length > 0);
    if (!x) return;
    const dims = x.shape.map((_, d) => d).filter(() => pool.random.oneIn(2)), keepDims = pool.random.oneIn(2);
    if (dims.length === 0) return;
    const bound = boundOf(pool, x), size = dims.reduce((n, d) => n * x.shape[d], 1);
    if (pool.random.oneIn(3)) keep(pool, x.max(dims, { keepDims }), bound);
    else if (pool.random.oneIn(2)) keep(pool, x.mean(dims, { keepDims }), bound);
    else keep(pool, x.sum(dims, { keepDims }), bound * size);
  },
  broadcast(pool) {
    const x = choose(pool, (t) => t.shape.length < 4 && numel(t.shape) < 40)!;
    if (!x) return;
    const once = x.broadcastTo([pool.random.int(1, 3), ...x.shape]);
    keep(pool, pool.random.oneIn(2) ? once : once.broadcastTo([2, ...once.shape]), boundOf(pool, x));
  },
  reshape(pool) {
    const x = choose(pool, (t) => t.shape.length > 0);
    if (!x) return;
    const names = LETTERS.slice(0, x.shape.length), from = names.join(" "), at = pool.random.int(0, names.length - 1);
    const forms = [
      () => x.reshape(`${from} -> (${from})`),
      () => x.reshape(`${from} -> ${[...names.slice(0, at), "1", ...names.slice(at)].join(" ")}`),
      () => x.reshape(`${from} -> ${from} 1`).reshape(`${from} 1 -> ${from}`),
      () =>
        x.reshape(`${from} -> (${from})`).reshape(
          `(${from}) -> ${from}`,
          Object.fromEntries(names.map((l, d) => [l, x.shape[d]])),
        ),
      () => {
        const size = x.shape[at], part = [2, 3].find((p) => size % p === 0) ?? 1;
        const split = (to: string) => names.map((l, d) => d === at ? to : l).join(" ");
        return x.reshape(`${split("(p q)")} -> ${split("p q")}`, { p: part });
      },
    ];
    const y = pool.random.pick(forms)();
    if (y.shape.length <= 5) keep(pool, y, boundOf(pool, x));
  },
  transpose(pool) {
    const x = choose(pool, (t) => t.shape.length >= 2);
    if (!x) return;
    const names = LETTERS.slice(0, x.shape.length);
    const turn = (t: Tensor) => t.transpose(`${names.join(" ")} -> ${pool.random.shuffle(names).join(" ")}`);
    keep(pool, pool.random.oneIn(2) ? turn(x) : turn(turn(x)), boundOf(pool, x));
  },
  slice(pool) {
    const x = choose(pool, (t) => t.shape.length > 0);
    if (!x) return;
    const box = (t: Tensor) => {
      const shape = t.shape.map((n) => pool.random.oneIn(2) ? n : pool.random.int(1, n));
      return t.slice(t.shape.map((n, d) => pool.random.int(0, n - shape[d])), shape);
    };
    keep(pool, pool.random.oneIn(2) ? box(x) : box(box(x)), boundOf(pool, x));
  },
  concat(pool) {
    const x = choose(pool, (t) => t.shape.length > 0 && numel(t.shape) < MAX_ELEMENTS / 2);
    if (!x) return;
    const dim = pool.random.int(0, x.shape.length - 1);
    const fits = (t: Tensor) =>
      t.shape.length === x.shape.length && t.shape.every((n, d) => d === dim || n === x.shape[d]);
    const other = choose(pool, (t) => fits(t) && numel(t.shape) < MAX_ELEMENTS / 2)!;
    keep(pool, x.concat([other], dim), Math.max(boundOf(pool, x), boundOf(pool, other)));
  },
  /** A value cut in two and put together again. */
  cut(pool) {
    const x = choose(pool, (t) => t.shape.some((n) => n > 1));
    if (!x) return;
    const dim = x.shape.findIndex((n) => n > 1), at = pool.random.int(1, x.shape[dim] - 1);
    const part = (start: number, size: number) =>
      x.slice(x.shape.map((_, d) => d === dim ? start : 0), x.shape.map((n, d) => d === dim ? size : n));
    keep(pool, part(0, at).concat([part(at, x.shape[dim] - at)], dim), boundOf(pool, x));
  },
  contract(pool) {
    const x = choose(pool, (t) => t.shape.length >= 2 && t.shape.length <= 4);
    if (!x) return;
    const names = LETTERS.slice(0, x.shape.length), k = names.at(-1)!, size = x.shape.at(-1)!;
    const bound = boundOf(pool, x);
    const w = choose(pool, (t) => t.shape.length === 2 && t.shape.includes(size)) ?? x.constant(0.3, [2, size]);
    const last = w.shape[1] === size, out = w.shape[last ? 0 : 1];
    if (numel(x.shape) / size * out > MAX_ELEMENTS) return;
    const weight = pool.random.oneIn(2) ? [w, last ? `o ${k}` : `${k} o`] as const : [
      w.transpose(0, 1),
      last ? `${k} o` : `o ${k}`,
    ] as const;
    const y = x.contract(`${names.join(" ")}, ${weight[1]} -> ${[...names.slice(0, -1), "o"].join(" ")}`, weight[0]);
    keep(pool, pool.random.oneIn(3) ? y.transpose(0, -1) : y, bound * boundOf(pool, w) * size);
  },
  /** Both operands have the batch dim. */
  outer(pool) {
    const x = choose(pool, (t) => t.shape.length === 3 && t.shape[1] * t.shape[2] <= 24);
    if (x) keep(pool, x.contract("a b c, a d c -> a b d", x.silu()), boundOf(pool, x) ** 2 * x.shape[2]);
  },
  rmsnorm(pool) {
    const x = choose(pool, (t) => t.shape.length >= 1 && t.shape.at(-1)! > 1);
    if (!x) return;
    const size = x.shape.at(-1)!;
    const w = choose(pool, (t) => t.shape.length === 1 && t.shape[0] === size) ?? x.constant(0.9, [size]);
    const [y] = x.apply("rmsnorm", [w], { eps: 0.1 });
    keep(pool, y, boundOf(pool, w) * Math.sqrt(size));
  },
  softmax(pool) {
    const x = choose(pool, (t) => t.shape.length > 0);
    if (x) keep(pool, x.softmax(pool.random.int(0, x.shape.length - 1)), 1);
  },
  /** Rows of a table by ids, as a new input. */
  embedding(pool) {
    const table = choose(pool, (t) => t.shape.length === 2);
    if (!table) return;
    const { builder, random } = pool, [B, T] = [random.int(1, 3), random.int(1, 4)];
    if (B * T * table.shape[1] > MAX_ELEMENTS) return;
    const ids = new Tensor(builder, builder.input(`ids${builder.inputs.length}`, { dtype: "i32", shape: [B, T] }));
    keep(pool, ids.apply("embedding", [table])[0], boundOf(pool, table));
  },
  attention(pool) {
    const { builder, random } = pool,
      [B, T, G, R, K] = [random.int(1, 2), random.int(1, 4), random.int(1, 2), random.int(1, 2), 2];
    const { dtype } = pool.tensors[0];
    const head = (name: string, heads: number) =>
      new Tensor(builder, builder.input(`${name}${builder.inputs.length}`, { dtype, shape: [B, T, heads, K] }));
    const near = choose(pool, (t) => String(t.shape) === String([B, T, G * R, K]));
    const [q, k, v] = [near ?? head("q", G * R), head("k", G), head("v", G)];
    const integers = (name: string, counts?: true) => {
      const type = { dtype: "i32", shape: [B, T] } as const;
      return new Tensor(builder, builder.input(`${name}${builder.inputs.length}`, type, undefined, counts));
    };
    const documents = random.oneIn(2), positions = integers("positions", documents ? undefined : true);
    const ids = documents ? [1].flatMap(() => Array(2).fill(integers("documents"))) : [];
    const turn = { theta: 100, factor: 1, low: 1, high: 4, original: 64, dtype, size: K };
    const table = positions.apply("rope_table", [], turn)[0];
    const [rq, rk] = random.oneIn(2) ? [q, k].map((x) => x.apply("rope", [table], { inverse: false })[0]) : [q, k];
    const [o] = rq.apply("attention", [rk, v, positions, positions, ...ids], { scale: 0.7, documents });
    keep(pool, o, 1);
  },
};

/** Steps that make integers or go by them: fewer, as most graphs have none. */
const integerSteps: Readonly<Record<string, Step>> = {
  cumsum(pool) {
    const x = choose(pool, (t) => t.shape.length > 0);
    if (!x) return;
    const { random } = pool, dim = random.int(0, x.shape.length - 1);
    const sums = x.cumsum(dim, { exclusive: random.oneIn(2), reverse: random.oneIn(2) });
    keep(pool, sums, boundOf(pool, x) * x.shape[dim]);
  },
  /** Rows by the indices of the largest scores, as experts take their tokens. Scores lie apart: no rounding changes a choice. */
  route(pool) {
    const x = choose(pool, (t) => t.shape.length >= 2 && t.shape.length <= 4);
    if (!x) return;
    const { random } = pool, n = x.shape.at(-2)!, bound = boundOf(pool, x), { dtype } = x;
    const scores = newInput(pool, "scores", dtype, x.shape.slice(0, -1)).add(x.mean(-1).mul(0.001));
    const [values, ids] = scores.topK(random.int(1, n)), names = LETTERS.slice(0, ids.shape.length).join(" ");
    const some = random.oneIn(2) ? ids : ids.sub(ids.constant(1, ids.shape));
    const rows = keep(pool, x.take(some), bound), weights = values.tanh().reshape(`${names} -> ${names} 1`);
    keep(pool, values, 3);
    pool.random.pick([
      () => keep(pool, rows.mul(weights).scatterAdd(some, n), bound * n),
      () => keep(pool, x.putRows(some, rows.mul(weights)), bound),
      () => keep(pool, some.oneHot(n, dtype as "f32" | "f64").cumsum(-2), n),
      () => keep(pool, scores.argmax().cast(dtype), n),
      () => pool.builder.output(`ids${pool.builder.nodes.length}`, some.value),
    ])();
  },
  /** Rows by indices that are counted, as far as there are rows. */
  count(pool) {
    const x = choose(pool, (t) => t.shape.length === 2);
    if (!x) return;
    const { random } = pool, [n] = x.shape, K = random.int(2, 6), ones = (v: number) => wanted.constant(v, [K]);
    const wanted = random.oneIn(2)
      ? newInput(pool, "wanted", "i32", [K])
      : newInput(pool, "wanted", x.dtype, [K]).mul(3.1).cast("i32");
    const isWanted = wanted.less(ones(3)), places = isWanted.cumsum(0, { exclusive: true });
    const ids = isWanted.mul(places.less(ones(random.int(1, n)))).select(places, ones(-1));
    keep(pool, x.take(ids), boundOf(pool, x));
    keep(pool, ids.maximum(wanted.transpose("k -> k")).cast(x.dtype), 7);
    if (random.oneIn(2)) keep(pool, x.putRows(ids, x.constant(0.7, [K, x.shape[1]])), boundOf(pool, x));
  },
};

const sum = (name: string, dtype: DType): State => ({ name, dtype, shape: [], kind: "sum" });

/** A random graph of some steps of work over inputs and states. Its output `loss` is a real scalar that depends on
 * several values; the states `weight0`, ... are parameters, which are read; other states are read, accumulated and assigned. */
export function randomGraph(seed: number, options: RandomGraphOptions = {}): Graph {
  const { dtype = "f64" } = options, random = new Random(seed);
  const { sizes } = options, size = (low: number, high: number) => sizes ? random.pick(sizes) : random.int(low, high);
  const [D, E, B, T] = [size(2, 5), size(1, 4), size(1, 3), size(1, 4)];
  const states: State[] = [[D, E], [E, D], [D]].map((shape, i) => ({
    name: `weight${i}`,
    dtype,
    shape,
    kind: "parameter",
  }));
  const moments: State[] = [0, 1].map((i) => ({
    name: `moment${i}`,
    dtype,
    shape: [D, E],
    kind: "moment",
    of: "weight0",
  }));
  const others: State[] = [
    { name: "seen", dtype: "i32", shape: [D, 1], kind: "buffer" },
    { name: "keys", dtype, shape: [B, D, E], kind: "cache" },
  ];
  const sums = [sum("total", dtype), sum("count", dtype)];
  const builder = new Builder(`random${seed}`, [...states, ...moments, ...sums, ...others]);
  const pool: Pool = { random, builder, tensors: [], bounds: new WeakMap() };
  const wrap = (value: Value) => new Tensor(builder, value);
  [[B, T, D], [T, D], [D]].forEach((shape, i) => keep(pool, wrap(builder.input(`x${i}`, { dtype, shape })), 2));
  const read = (...names: string[]) => keep(pool, wrap(builder.read(...names)), 2);
  states.forEach((s) => read(s.name));
  read("moment0", "moment1");
  const [least, most] = options.steps ?? [10, 40], count = random.int(least, most);
  for (let i = 0; i < count; i++) {
    builder.origin = at(`layers.${Math.floor(4 * i / count)}`);
    random.pick(Object.values(random.oneIn(10) ? integerSteps : steps))(pool);
    if (random.oneIn(8)) read(random.pick(states).name);
    if (random.oneIn(12)) {
      // What comes back through state has no gradient, so nothing differentiable goes into a state that is read again.
      builder.accumulate("total", wrap(builder.read("moment0")).mean().value, random.oneIn(2));
      read("total");
    }
  }
  builder.origin = at("");
  const whole = choose(pool, (t) => t.shape.length === 0);
  if (whole) builder.accumulate("count", whole.value, random.oneIn(2));
  if (random.oneIn(3)) builder.assign("moment1", wrap(builder.read("moment0")).mul(0.9).value);
  const fit = choose(pool, (t) => String(t.shape) === String([D, E]));
  if (fit && random.oneIn(2)) builder.assign("moment0", fit.value);
  if (random.oneIn(3)) {
    const places = newInput(pool, "places", "i32", [B, 2]), seen = wrap(builder.read("seen"));
    const rows = newInput(pool, "rows", dtype, [B, 2, E]);
    const old = places.reshape("b k -> (b k)"), again = old.reshape("k -> k 1").add(seen.take(old));
    builder.assign("seen", seen.putRows(old, again).value);
    builder.assign("keys", wrap(builder.read("keys")).putRows(places, rows).value);
  }
  const loss = options.head ?? random.oneIn(3) ? headLoss(pool, D, [B, T]) : plainLoss(pool);
  builder.output("loss", loss.value);
  pool.tensors.filter((_, i) => i % 5 === 0).forEach((t, i) =>
    builder.activations.push({ name: `m.${i}`, value: t.value })
  );
  const extra = random.int(0, 3);
  for (let i = 0; i < extra; i++) builder.output(`y${i}`, choose(pool)!.value);
  return builder.finish();
}

/** The sum of the means of some of the newest values. */
function plainLoss(pool: Pool): Tensor {
  const { random, tensors } = pool, parts = tensors.slice(-random.int(2, 8)).map((t) => t.tanh().mean());
  return parts.reduce((a, b) => a.add(b));
}

/** Cross-entropy of `h weight2^T`-like logits, with other work mixed into h. */
function headLoss(pool: Pool, D: number, [B, T]: readonly number[]): Tensor {
  const { builder, random } = pool, V = random.int(2, 7), { dtype } = pool.tensors[0];
  builder.declare({ name: "output.weight", kind: "parameter", dtype, shape: [V, D] });
  const base = choose(pool, (t) => String(t.shape) === String([B, T, D]))!;
  const h = base.add(plainLoss(pool).broadcastTo([B, T, D]));
  builder.origin = at("output");
  const logits = h.contract("b t d, v d -> b t v", new Tensor(builder, builder.read("output.weight")));
  builder.origin = at("loss");
  const targets = new Tensor(builder, builder.input("targets", { dtype: "i32", shape: [B, T] }));
  const [loss, count] = logits.apply("cross_entropy", [targets], { ignore_index: -1 });
  builder.accumulate("count", count.value);
  builder.origin = at("");
  return random.oneIn(2) ? loss : loss.mul(0.5).add(plainLoss(pool));
}

/** How an integer input is used, which tells what numbers it may hold: `[low, high]`. */
function integerRange(graph: Graph, input: Value): [number, number] {
  for (const node of graph.nodes) {
    const at = node.inputs.indexOf(input);
    if (at < 0) continue;
    if (node.op === "embedding") return [0, node.inputs[1].shape[0] - 1];
    if (node.op === "embedding_backward") return [0, num(node.attrs.rows) - 1];
    if (node.op === "cross_entropy" || node.op === "cross_entropy_backward") {
      return [-1, node.inputs[0].shape.at(-1)! - 1];
    }
    if (["take", "scatter_add", "put_rows"].includes(node.op)) return [-1, 6];
    if (node.op === "slice" || node.op === "reshape") return integerRange(graph, node.outputs[0]);
    if (node.op.startsWith("attention") && at >= node.inputs.length - 2 && node.attrs.documents) return [0, 1];
  }
  return [0, 6];
}

/** Inputs and memory for a graph: reals in [-2, 2), integers in the range that their use allows (-1 is an ignored target, or
 * no row). */
export function randomInputs(graph: Graph, seed: number): { inputs: Record<string, Arr>; memory: Memory } {
  const random = new Random(seed ^ 0x5eed);
  const fill = (shape: readonly number[], next: () => number) => arr(shape, Array.from({ length: numel(shape) }, next));
  const inputs = Object.fromEntries(graph.inputs.map(({ name, value, counts }) => {
    const [low, high] = value.dtype === "i32" ? integerRange(graph, value) : [0, 0];
    const values = fill(value.shape, () => value.dtype === "i32" ? random.int(low, high) : random.real(-2, 2));
    return [name, counts ? arr(value.shape, values.data.map((_, i) => i % value.shape.at(-1)!)) : values];
  }));
  const memory = graph.states.map(({ name, dtype, shape }): [string, Arr] => {
    const value = fill(shape, () => dtype === "i32" ? random.int(-2, 2) : random.real(-2, 2));
    return [name, dtype === "bf16" ? roundedTo(dtype, value) : value];
  });
  return { inputs, memory: new Map(memory) };
}

/** Fails unless two arrays are equal within `tolerance` of the largest element (or of 1).
 * @throws {Error} that names the place and both numbers. */
export function assertClose(actual: Arr, expected: Arr, tolerance: number, where: string): void {
  if (String(actual.shape) !== String(expected.shape)) {
    throw new Error(`${where}: shape [${actual.shape}], expected [${expected.shape}]`);
  }
  const scale = expected.data.reduce((m, x) => Number.isFinite(x) ? Math.max(m, Math.abs(x)) : m, 1);
  expected.data.forEach((x, i) => {
    const y = actual.data[i];
    if (!Object.is(x, y) && !(Math.abs(x - y) <= tolerance * scale)) {
      throw new Error(
        `${where}: element ${i} of [${expected.shape}] is ${y}, expected ${x} (within ${tolerance * scale})`,
      );
    }
  });
}

/** Fails unless both graphs give the same outputs, and leave the same memory behind, from the same random inputs and memory, in
 * a first microbatch and in a later one. States that only `after` has do not count.
 * @throws {Error} that names the seed and shows the second graph. */
export function assertSameMeaning(before: Graph, after: Graph, seed: number, tolerance = 1e-12): void {
  try {
    for (const first of [true, false]) {
      const { inputs, memory } = randomInputs(before, seed), other: Memory = new Map(memory);
      const expected = interpret(before, { inputs, memory, first });
      const actual = interpret(after, { inputs, memory: other, first });
      const names = Object.keys(expected).join();
      if (Object.keys(actual).join() !== names) throw new Error(`outputs ${Object.keys(actual)}, expected ${names}`);
      for (const name in expected) assertClose(actual[name], expected[name], tolerance, `output "${name}"`);
      for (const { name } of before.states) {
        assertClose(other.get(name)!, memory.get(name)!, tolerance, `state "${name}"`);
      }
    }
  } catch (error) {
    throw new Error(
      `Graph "${before.name}" changed its meaning, seed ${seed}: ${(error as Error).message}\n${print(after)}`,
      { cause: error },
    );
  }
}

/** Runs `check` for each seed; a failure names its seed. */
export function forSeeds(count: number, check: (seed: number) => void): void {
  for (let seed = 1; seed <= count; seed++) {
    try {
      check(seed);
    } catch (error) {
      const { message, stack } = error as Error;
      throw new Error(`seed ${seed}: ${message}\n${stack}`, { cause: error });
    }
  }
}

/** Fails where a rule has fitted in no random graph: its test has then shown nothing.
 * @throws {Error} that says what to extend. */
export function assertFits(hits: number): void {
  if (hits > 0) return;
  throw new Error(
    "no random graph has what the rule looks for\n" +
      "  fix: add it to `unary`, `binary` or `steps` of tests/graph/random_graphs.ts, or to what tests/graph/passes/graphs.ts makes",
  );
}
