/** Pass `simplify`: equal nodes are joined (the only place where they are), nodes that nothing needs go, and a table of small
 * local rules is applied until none fits. No rule changes what a graph means beyond one rounding of a factor, and sums keep
 * their order.
 * @module */
import { arr } from "../array.ts";
import { Builder, opOf, withInputs } from "../builder.ts";
import { parseDims } from "../dims.ts";
import { hasEffect, touchedStates, withoutDead } from "../edit.ts";
import { fillOf, isElementwise, isViewOp } from "../facts.ts";
import {
  type Attrs,
  type Graph,
  isReal,
  isStored,
  type Node,
  numel,
  type Origin,
  type Value,
  withNodes,
} from "../ir.ts";
import { num, nums, str } from "../op.ts";

/** What a local rule may ask. */
export interface RuleContext {
  /** The node that makes a value, if it is of this op. */
  made(value: Value, op: string): Node | undefined;
  /** The number that fills a value, if it is a constant. */
  constant(value: Value): number | undefined;
  /** Does only one node read the value (and no graph output)? */
  usedOnce(value: Value): boolean;
  /** Makes a node with one output in front of the one that is looked at; it comes from where that does, unless told otherwise. */
  emit(op: string, inputs: readonly Value[], attrs: Attrs, origin?: Origin): Value;
}

/** A rule: what stands for the (only) output of a node from now on, or `undefined` where it does not fit. */
export type LocalRule = (node: Node, context: RuleContext) => Value | undefined;

const LETTERS = "abcdefghijklmnopqrstuvwxyz";

/** For each dim of the output, the input dim it is (-1: a new one) of `transpose`, `broadcast`; `undefined` where it is not plain. */
function dimMap(attrs: Attrs): number[] | undefined {
  const { inputs: [from], outputs: [to] } = parseDims(str(attrs.dims));
  if ([...from, ...to].some((d) => d.length !== 1 || d[0] === "1" || d[0] === "...")) return;
  return to.map((d) => from.findIndex((f) => f[0] === d[0]));
}

/** `"a c -> a b c"` for the map [0, -1, 1]. */
function mapText(map: readonly number[]): string {
  const from = map.map((i, d) => [i, LETTERS[d]] as const).filter(([i]) => i >= 0).sort(([i], [j]) => i - j);
  return `${from.map(([, l]) => l).join(" ")} -> ${[...LETTERS.slice(0, map.length)].join(" ")}`;
}

const isIdentity = (map: readonly number[]): boolean => map.every((i, d) => i === d);

/** Attributes of the reshape between two shapes, by the finest dims that both are made of; `undefined` if there are none. */
export function reshapeAttrs(from: readonly number[], to: readonly number[]): Attrs | undefined {
  /** Elements behind each dim and before it, from the last. */
  const ends = (shape: readonly number[]) => shape.map((_, d) => [numel(shape.slice(d + 1)), numel(shape.slice(d))]);
  const cuts = [...new Set([...ends(from), ...ends(to)].flat())].sort((a, b) => b - a);
  const labels = cuts.slice(1).map((cut, i) => ({ name: LETTERS[i], high: cuts[i], low: cut }));
  if (labels.some(({ high, low }) => high % low !== 0)) return;
  const term = (shape: readonly number[]) =>
    ends(shape).map(([low, high]) => {
      const names = labels.filter((l) => l.low >= low && l.high <= high).map((l) => l.name);
      return names.length === 0 ? "1" : names.length === 1 ? names[0] : `(${names.join(" ")})`;
    }).join(" ");
  const sizes = Object.fromEntries(labels.map((l) => [l.name, l.high / l.low]));
  return { dims: `${term(from)} -> ${term(to)}`, sizes };
}

const sameShape = (a: Value, b: Value): boolean => String(a.shape) === String(b.shape);

function constantLike(value: number, { dtype, shape }: Value, { emit }: RuleContext): Value {
  return emit("constant", [], { value, dtype, shape: [...shape] });
}

/** `"b t (h d) -> b t h d"` of a reshape, none at all, or one step. */
const reshapes: LocalRule = ({ op, inputs: [x], outputs: [y] }, { made, emit }) => {
  if (op !== "reshape") return;
  if (sameShape(x, y)) return x;
  const source = made(x, "reshape")?.inputs[0];
  if (!source) return;
  const attrs = reshapeAttrs(source.shape, y.shape);
  return attrs && emit("reshape", [source], attrs);
};

const transposes: LocalRule = ({ op, inputs: [x], attrs }, { made, emit }) => {
  if (op !== "transpose") return;
  const map = dimMap(attrs);
  if (!map) return;
  if (isIdentity(map)) return x;
  const inner = made(x, "transpose"), innerMap = inner && dimMap(inner.attrs);
  return innerMap && emit("transpose", inner.inputs, { dims: mapText(map.map((i) => innerMap[i])) });
};

const broadcasts: LocalRule = ({ op, inputs: [x], outputs: [y], attrs }, { made, emit }) => {
  if (op !== "broadcast") return;
  const map = dimMap(attrs);
  if (!map) return;
  if (isIdentity(map)) return x;
  const inner = made(x, "broadcast"), innerMap = inner && dimMap(inner.attrs);
  if (!innerMap) return;
  const sizes = Object.fromEntries(y.shape.map((n, d) => [LETTERS[d], n]));
  return emit("broadcast", inner.inputs, { dims: mapText(map.map((i) => i < 0 ? -1 : innerMap[i])), sizes });
};

const slices: LocalRule = ({ op, inputs: [x], outputs: [y], attrs }, { made, emit }) => {
  if (op !== "slice") return;
  if (sameShape(x, y)) return x;
  const inner = made(x, "slice");
  if (!inner) return;
  const starts = nums(attrs.starts).map((s, d) => s + nums(inner.attrs.starts)[d]);
  return emit("slice", inner.inputs, { starts, shape: [...y.shape] });
};

/** A concat of one value, of slices of one value that lie one after another, or of constants of one number. */
const concats: LocalRule = ({ op, inputs, outputs: [y], attrs }, context) => {
  if (op !== "concat") return;
  if (inputs.length === 1) return inputs[0];
  const number = context.constant(inputs[0]);
  if (number !== undefined && inputs.every((v) => Object.is(context.constant(v), number))) {
    return constantLike(number, y, context);
  }
  const pieces = inputs.map((v) => context.made(v, "slice"));
  if (pieces.some((p) => p === undefined || p.inputs[0] !== pieces[0]!.inputs[0])) return;
  const starts = [...nums(pieces[0]!.attrs.starts)], next = [...starts];
  for (const piece of pieces) {
    if (String(piece!.attrs.starts) !== String(next)) return;
    next[num(attrs.dim)] += piece!.outputs[0].shape[num(attrs.dim)];
  }
  return context.emit("slice", [pieces[0]!.inputs[0]], { starts, shape: [...y.shape] });
};

/** A transposed operand is a product with its labels in another order. */
const transposedOperands: LocalRule = ({ op, inputs, attrs }, { made, emit }) => {
  if (op !== "contract") return;
  const [left, out] = str(attrs.dims).split("->").map((s) => s.trim());
  const terms = left.split(",").map((t) => t.trim());
  const sources = inputs.map((v, i) => {
    const transpose = made(v, "transpose"), map = transpose && dimMap(transpose.attrs);
    if (!map || terms[i].includes("...")) return v;
    const labels = terms[i].split(/\s+/);
    terms[i] = labels.map((_, d) => labels[map.indexOf(d)]).join(" ");
    return transpose!.inputs[0];
  });
  if (sources.every((v, i) => v === inputs[i])) return;
  return emit("contract", sources, { ...attrs, dims: `${terms.join(", ")} -> ${out}` });
};

/** So is a product whose only use is to be transposed. */
const transposedProduct: LocalRule = ({ op, inputs: [x], attrs }, { made, emit, usedOnce }) => {
  if (op !== "transpose" || !usedOnce(x)) return;
  const product = made(x, "contract"), map = dimMap(attrs);
  if (!product || !map) return;
  const [left, out] = str(product.attrs.dims).split("->").map((s) => s.trim());
  const labels = out.split(/\s+/);
  if (out.includes("...")) return;
  const dims = `${left} -> ${map.map((i) => labels[i]).join(" ")}`;
  return emit("contract", product.inputs, { ...product.attrs, dims }, product);
};

const constantViews: LocalRule = ({ op, inputs: [x], outputs: [y] }, context) => {
  if (!isViewOp(op)) return;
  const number = context.constant(x);
  return number === undefined ? undefined : constantLike(number, y, context);
};

/** What is widened and rounded to its type again is itself. Casts move to where numbers are made or used: those that shrink in front of views,
 * those that widen behind them. */
const casts: LocalRule = ({ op, inputs: [x], outputs: [y], attrs }, { made, emit }) => {
  const widened = made(x, "cast");
  const isWiden = (v: Value) => v.dtype === "f32" && isStored(made(v, "cast")?.inputs[0].dtype ?? "f32");
  if (op === "cast" && isStored(y.dtype)) {
    if (isWiden(x) && widened!.inputs[0].dtype === y.dtype) return widened!.inputs[0];
    const view = made(x, "reshape") ?? made(x, "transpose");
    return view && emit(view.op, [emit("cast", view.inputs, attrs)], view.attrs);
  }
  if (isViewOp(op) && isWiden(x)) {
    return emit("cast", [emit(op, widened!.inputs, attrs)], widened!.attrs);
  }
};

const constantFolding: LocalRule = ({ op, inputs, outputs: [y] }, context) => {
  if (!isElementwise(op) || opOf(op).converts) return;
  const numbers = inputs.map(context.constant);
  if (numbers.some((n) => n === undefined)) return;
  const result = opOf(op).reference!(numbers.map((n) => arr([], [n!])), {}, [{ dtype: y.dtype, shape: [] }])[0].data[0];
  return Number.isFinite(result) ? constantLike(result, y, context) : undefined;
};

/** Operands that change nothing: x + 0, x - 0, x * 1, x / 1. */
const neutralOperands: LocalRule = ({ op, inputs: [a, b] }, { constant }) => {
  if (op === "add" && constant(b) === 0 || op === "sub" && constant(b) === 0) return a;
  if (op === "mul" && constant(b) === 1 || op === "div" && constant(b) === 1) return a;
  if (op === "add" && constant(a) === 0 || op === "mul" && constant(a) === 1) return b;
};

const negations: LocalRule = ({ op, inputs: [a, b] }, { made, emit }) => {
  const negated = (v: Value) => made(v, "neg")?.inputs[0];
  if (op === "neg") return negated(a);
  if (op !== "add" && op !== "sub") return;
  const x = negated(b);
  return x && emit(op === "add" ? "sub" : "add", [a, x], {});
};

/** Is the product of two factors safe to make in advance, in f32 too? */
const isModest = (x: number): boolean => Math.abs(x) > 1e-30 && Math.abs(x) < 1e30;

/** (x * c1) * c2 = x * (c1 c2), of reals: c1 c2 may be more than i32 holds. */
const factors: LocalRule = ({ op, inputs, outputs: [y] }, context) => {
  if (op !== "mul" || !isReal(y.dtype)) return;
  const scaled = ([a, b]: readonly Value[]) => {
    const [x, y] = [context.constant(a), context.constant(b)];
    return y !== undefined ? { x: a, by: y } : x !== undefined ? { x: b, by: x } : undefined;
  };
  const outer = scaled(inputs), product = outer && context.made(outer.x, "mul");
  const inner = product && scaled(product.inputs);
  if (!inner || ![inner.by, outer.by, inner.by * outer.by].every(isModest)) return;
  return context.emit("mul", [inner.x, constantLike(inner.by * outer.by, y, context)], {});
};

/** silu(x) = x sigmoid(x): one sigmoid then serves silu and its gradient. */
const silus: LocalRule = ({ op, inputs: [x], attrs }, { emit }) =>
  op === "silu" ? emit("mul", [x, emit("sigmoid", [x], {})], attrs) : undefined;

/** The local rules, tried in this order. */
export const rules: readonly (readonly [name: string, rule: LocalRule])[] = [
  ["reshapes", reshapes],
  ["transposes", transposes],
  ["broadcasts", broadcasts],
  ["slices", slices],
  ["concats", concats],
  ["transposedOperands", transposedOperands],
  ["transposedProduct", transposedProduct],
  ["casts", casts],
  ["constantViews", constantViews],
  ["constantFolding", constantFolding],
  ["neutralOperands", neutralOperands],
  ["negations", negations],
  ["factors", factors],
  ["silus", silus],
];

/** Applies the rules to every node, and to what they make; returns the same graph where none fits. */
export function applyRules(graph: Graph, table: typeof rules = rules): Graph {
  const builder = Builder.beside(graph), nodes: Node[] = [], made = new Map<Value, Node>();
  const now = new Map<Value, Value>(), uses = new Map<Value, number>();
  const use = (v: Value, times: number) => uses.set(v, (uses.get(v) ?? 0) + times);
  graph.nodes.forEach((node) => node.inputs.forEach((v) => use(v, 1)));
  graph.outputs.forEach(({ value }) => use(value, 2));
  const contextOf = (own: Origin): RuleContext => ({
    made: (v, op) => made.get(v)?.op === op ? made.get(v) : undefined,
    constant: (v) => fillOf(made.get(v)),
    usedOnce: (v) => uses.get(v) === 1,
    emit: (op, inputs, attrs, origin = own) => {
      builder.emit(op, inputs, attrs, origin);
      const node = builder.nodes.at(-1)!;
      return place(node) ?? node.outputs[0];
    },
  });
  /** Puts a node where it stands, or returns what stands for its output. */
  const place = (node: Node): Value | undefined => {
    const context = contextOf(node);
    for (const [, rule] of table) {
      const value = rule(node, context);
      if (value) return value;
    }
    nodes.push(node);
    node.outputs.forEach((v) => made.set(v, node));
  };
  for (const node of graph.nodes) {
    const value = place(renamed(node, now));
    if (!value) continue;
    now.set(node.outputs[0], value);
    use(value, uses.get(node.outputs[0]) ?? 0);
  }
  return now.size === 0 ? graph : withNodes(graph, nodes, (v) => now.get(v) ?? v);
}

function renamed(node: Node, now: ReadonlyMap<Value, Value>): Node {
  return node.inputs.some((v) => now.has(v)) ? withInputs(node, node.inputs.map((v) => now.get(v) ?? v)) : node;
}

/** JSON, but with numbers that it cannot tell apart told apart. */
const attrsKey = (attrs: Attrs): string =>
  JSON.stringify(
    attrs,
    (_, x) =>
      typeof x === "number" && (!Number.isFinite(x) || Object.is(x, -0)) ? `#${Object.is(x, -0) ? "-0" : x}` : x,
  );

/** Joins nodes of one op, inputs and attributes; the first one stays, with where it comes from. What is made again in backward is not
 * joined with what forward made. A `read` joins an earlier one of the same states when none of them has changed in between. */
export function joinEqualNodes(graph: Graph): Graph {
  const first = new Map<string, Node>(), now = new Map<Value, Value>(), writes = new Map<string, number>();
  const nodes: Node[] = [];
  for (const old of graph.nodes) {
    const node = renamed(old, now), states = touchedStates(node);
    if (hasEffect(node)) {
      states.forEach((s) => writes.set(s, (writes.get(s) ?? 0) + 1));
      nodes.push(node);
      continue;
    }
    const ids = node.inputs.map((v) => v.id);
    if (opOf(node.op).commutes) ids.sort((a, b) => a - b);
    const side = node.phase === "remade" ? "again" : "";
    const key = `${node.op} ${side} ${ids} ${states.map((s) => writes.get(s) ?? 0)} ${attrsKey(node.attrs)}`;
    const same = first.get(key);
    if (same) node.outputs.forEach((v, i) => now.set(v, same.outputs[i]));
    else {
      first.set(key, node);
      nodes.push(node);
    }
  }
  return now.size === 0 ? graph : withNodes(graph, nodes, (v) => now.get(v) ?? v);
}

/** Removes nodes that no effect and no graph output needs. States stay declared. */
export function removeDeadNodes(graph: Graph): Graph {
  const nodes = withoutDead(graph.nodes, graph.outputs.map((o) => o.value));
  return nodes.length === graph.nodes.length ? graph : withNodes(graph, nodes);
}

/** Simplifies a graph until nothing changes. */
export function simplify(graph: Graph): Graph {
  const next = applyRules(removeDeadNodes(joinEqualNodes(graph)));
  return next === graph ? graph : simplify(next);
}
