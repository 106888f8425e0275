/** Causal grouped-query attention. Query head h uses key/value head h / (H/G); a key is seen when its position is at most the
 * query's and, where document ids are given, the documents are equal. o = softmax(scale q k^T) v, lse = log of the softmax's sum.
 * Inputs: q `[B,T,H,K]`, k, v `[B,S,G,K]`, then q and k positions `[B,T]`, `[B,S]`, then (attribute `documents`) document ids of
 * both, then (attribute `rope`, set by `fuse`) rotation tables of both: q and k are then turned while a head is loaded.
 * With the attribute `others`, o and lse of other keys come in right behind v, and those that come out are of both sets of keys:
 * o = exp(lse_1 - lse) o_1 + exp(lse_2 - lse) o_2, so that keys may come in slices.
 * With the attribute `round` the products take that type, bf16: q (turned, times scale log2 e), k (turned), v, and the gradient of o are
 * rounded first. The native kernels round the probabilities and their gradients too, the reference does not.
 * @module */
import { ROUND, type Schema, STORED } from "../attributes.ts";
import { type Arr, arr, roundedTo } from "../array.ts";
import { type Attrs, numel, type Type, typeText } from "../ir.ts";
import { defineOp, mayBeBf16, num, type Op, str } from "../op.ts";
import { rope } from "./rope.ts";

/** Operands of attention behind its tensors: integers, and tables by which heads are turned. */
interface Behind<T> {
  readonly qPositions: T;
  readonly kPositions: T;
  /** Of queries and keys, where they are given. */
  readonly documents: readonly T[];
  /** Of queries and keys, where heads are turned as they are loaded. */
  readonly tables: readonly T[];
}

/** The operands after q, k and v (and after o, lse, do in the gradient), by name. */
export function operandsBehind<T>(rest: readonly T[], attrs: Attrs): Behind<T> {
  const [qPositions, kPositions] = rest, documents = attrs.documents ? rest.slice(2, 4) : [];
  const tables = attrs.rope ? rest.slice(attrs.documents ? 4 : 2) : [];
  return { qPositions, kPositions, documents, tables };
}

const ATTENTION: Schema = {
  scale: { type: "number", doc: "factor of q k^T" },
  documents: { type: "flag", optional: true, doc: "are document ids given?" },
  ordered: { type: "flag", optional: true, writer: "fuse", doc: "are both positions 0, 1, 2 and so on in each row?" },
  rope: { type: "flag", optional: true, writer: "fuse", doc: "are heads turned as they are loaded?" },
  ...ROUND,
  ...STORED,
};

/** How many operands come before the positions. */
export function numFirst(attrs: Attrs): number {
  return attrs.others ? 5 : 3;
}

function check(q: Type, k: Type, v: Type): void {
  const [b, , h, size] = q.shape, [kb, , g, ksize] = k.shape;
  if (
    q.shape.length !== 4 || k.shape.length !== 4 || b !== kb || size !== ksize || String(k.shape) !== String(v.shape)
  ) {
    throw new TypeError(
      `shapes q [${q.shape}], k [${k.shape}], v [${v.shape}] do not fit [b,t,h,k], [b,s,g,k], [b,s,g,k]`,
    );
  }
  if (h % g !== 0) throw new TypeError(`${h} query heads are not a multiple of ${g} key/value heads`);
  if (size % 2 !== 0) throw new TypeError(`head size ${size} is odd, expected even`);
}

/** Positions and document ids are integers of the queries' or the keys' rows. */
function checkPlaces(q: Type, k: Type, rest: readonly Type[], attrs: Attrs): void {
  const { qPositions, kPositions, documents } = operandsBehind(rest, attrs);
  const places = attrs.documents ? [qPositions, kPositions, documents[0], documents[1]] : [qPositions, kPositions];
  places.forEach((place, i) => {
    const expected = typeText({ dtype: "i32", shape: [q, k][i % 2].shape.slice(0, 2) });
    if (!place || typeText(place) !== expected) {
      const name = `${i % 2 === 0 ? "query" : "key"} ${i < 2 ? "positions" : "documents"}`;
      throw new TypeError(`${name} are ${place ? typeText(place) : "missing"}, expected ${expected}`);
    }
  });
}

interface Loaded {
  readonly q: Arr;
  readonly k: Arr;
  readonly v: Arr;
  /** Probability and weight offset of every visible pair: calls `visit(qRow, kRow, flat [b,h,t])`, keys of one query together. */
  each(visit: (query: number, keys: number[], bht: number) => void): void;
}

/** Rotates, and lists which keys each query sees; rows are offsets of a head's first element. */
function load(inputs: readonly Arr[], rest: readonly Arr[], attrs: Attrs): Loaded {
  const { qPositions, kPositions, documents: [qDocs, kDocs], tables } = operandsBehind(rest, attrs);
  const turn = (x: Arr, table: Arr | undefined) => table ? rope.reference!([x, table], {}, [])[0] : x;
  const turned = [turn(inputs[0], tables[0]), turn(inputs[1], tables[1]), inputs[2]];
  const [q, k, v] = attrs.round
    ? [roundedTimes(turned[0], attrs), ...turned.slice(1).map((x) => roundedTo(str(attrs.round), x))]
    : turned;
  const [B, T, H, K] = q.shape, [, S, G] = k.shape;
  return {
    q,
    k,
    v,
    each(visit) {
      for (let b = 0; b < B; b++) {
        for (let h = 0; h < H; h++) {
          for (let t = 0; t < T; t++) {
            const keys: number[] = [];
            for (let s = 0; s < S; s++) {
              const past = kPositions.data[b * S + s] <= qPositions.data[b * T + t];
              const same = !qDocs || qDocs.data[b * T + t] === kDocs.data[b * S + s];
              if (past && same) keys.push(((b * S + s) * G + Math.floor(h / (H / G))) * K);
            }
            visit(((b * T + t) * H + h) * K, keys, (b * H + h) * T + t);
          }
        }
      }
    },
  };
}

/** Queries rounded after they were multiplied by scale log2 e, and divided again. */
function roundedTimes({ shape, data }: Arr, attrs: Attrs): Arr {
  const factor = num(attrs.scale) * Math.LOG2E;
  return arr(
    shape,
    roundedTo(str(attrs.round), { shape, data: data.map((x) => x * factor) }).data.map((x) => x / factor),
  );
}

const dot = (a: Arr, i: number, b: Arr, j: number, n: number): number => {
  let sum = 0;
  for (let d = 0; d < n; d++) sum += a.data[i + d] * b.data[j + d];
  return sum;
};

/** q, k and v: the r query heads of one key/value head stay together. */
const HEADS = "b t (g r) k, b s g k, b s g k";
const documents = (attrs: Attrs): string => attrs.documents ? ", b t, b s" : "";
const others = (attrs: Attrs): string => attrs.others ? ", b t (g r) k, b (g r) t" : "";

/** `q, k, v, (o, lse,) positions... -> o, lse [B,H,T]` */
export const attention: Op = defineOp({
  name: "attention",
  attrs: {
    ...ATTENTION,
    others: { type: "flag", optional: true, writer: "tile_ring", doc: "do o and lse of other keys come in, too?" },
  },
  bf16: mayBeBf16([0, 1, 2], [0]),
  infer: (inputs, attrs) => {
    const [q, k, v] = inputs, [b, t, h] = q.shape, others = inputs.slice(3, numFirst(attrs));
    check(q, k, v);
    checkPlaces(q, k, inputs.slice(numFirst(attrs)), attrs);
    const types = [{ dtype: q.dtype, shape: q.shape }, { dtype: q.dtype, shape: [b, h, t] }];
    const stray = others.findIndex((type, i) => typeText(type) !== typeText(types[i]));
    if (stray >= 0) {
      const name = ["o", "lse"][stray];
      throw new TypeError(
        `${name} of the other keys is ${typeText(others[stray])}, expected ${typeText(types[stray])}`,
      );
    }
    return types;
  },
  reference: (inputs, attrs, [oType, lseType]) => {
    const { q, k, v, each } = load(inputs, inputs.slice(numFirst(attrs)), attrs);
    const [otherO, otherLse] = inputs.slice(3, numFirst(attrs));
    const o = arr(oType.shape), lse = arr(lseType.shape), size = q.shape[3];
    each((i, keys, bht) => {
      const scores = keys.map((j) => num(attrs.scale) * dot(q, i, k, j, size)),
        other = otherLse?.data[bht] ?? -Infinity;
      const max = Math.max(...scores, other), sum = scores.reduce((s, x) => s + Math.exp(x - max), 0);
      if (max === -Infinity) {
        lse.data[bht] = max;
        return;
      }
      const all = sum + Math.exp(other - max);
      lse.data[bht] = max + Math.log(all);
      keys.forEach((j, n) => {
        const p = Math.exp(scores[n] - max) / all;
        for (let d = 0; d < size; d++) o.data[i + d] += p * v.data[j + d];
      });
      if (otherO) { for (let d = 0; d < size; d++) o.data[i + d] += Math.exp(other - max) / all * otherO.data[i + d]; }
    });
    return [o, lse];
  },
  vjp: ({ inputs: [q, k, v, ...rest], outputs: [o, lse], cotangents: [dout, dlse], attrs }) => {
    if (dlse) throw new TypeError(`Cannot differentiate through "lse" of attention`);
    if (attrs.others) throw new TypeError(`op "attention" has no vjp with "others": differentiate it whole`);
    return q.apply("attention_backward", [k, v, o, lse, dout!, ...rest], attrs);
  },
  split: {
    dims: ({ attrs }) => `${HEADS}${others(attrs)}, b t, b s${documents(attrs)} -> b t (g r) k, b (g r) t`,
    whole: ["s", "k"],
    rounds: [1, 2],
  },
  rounding: { stored: 0 },
  takesRounded: true,
  recompute: "attention",
  // Half of the pairs are visible: q k^T and p v, 2 flops each.
  flops: ({ inputs: [q, k] }) => 2 * numel(q.shape) * k.shape[1],
});

/** `q, k, v, o, lse, do, positions... -> dq, dk, dv` */
export const attentionBackward: Op = defineOp({
  name: "attention_backward",
  attrs: ATTENTION,
  bf16: mayBeBf16([0, 1, 2, 3, 5], [0, 1, 2]),
  infer: ([q, k, v, _o, _lse, _do, ...rest], attrs) => {
    check(q, k, v);
    checkPlaces(q, k, rest, attrs);
    return [q, k, v].map(({ dtype, shape }) => ({ dtype, shape }));
  },
  reference: (inputs, attrs) => {
    const [, , , o, lse, grad, ...rest] = inputs, dout = attrs.round ? roundedTo(str(attrs.round), grad) : grad;
    const { q, k, v, each } = load(inputs, rest, attrs), { tables } = operandsBehind(rest, attrs);
    const size = q.shape[3], scale = num(attrs.scale), [dq, dk, dv] = [arr(q.shape), arr(k.shape), arr(v.shape)];
    each((i, keys, bht) => {
      const delta = dot(dout, i, o, i, size);
      for (const j of keys) {
        const p = Math.exp(scale * dot(q, i, k, j, size) - lse.data[bht]);
        const ds = p * (dot(dout, i, v, j, size) - delta) * scale;
        for (let d = 0; d < size; d++) {
          dq.data[i + d] += ds * k.data[j + d];
          dk.data[j + d] += ds * q.data[i + d];
          dv.data[j + d] += p * dout.data[i + d];
        }
      }
    });
    const back = (x: Arr, table: Arr | undefined) => table ? rope.reference!([x, table], { inverse: true }, [])[0] : x;
    return [back(dq, tables[0]), back(dk, tables[1]), dv];
  },
  split: {
    dims: ({ attrs }) =>
      `${HEADS}, b t (g r) k, b (g r) t, b t (g r) k, b t, b s${documents(attrs)} -> b t (g r) k, b s g k, b s g k`,
    whole: ["s", "k"],
    rounds: [1, 2],
    gradients: [[0, 0], [1, 1], [2, 2]],
  },
  rounding: {}, // its results are rounded where products take them, behind the rotation of queries and keys
  takesRounded: true,
  recompute: "attention",
  flops: ({ inputs: [q, k] }) => 5 * numel(q.shape) * k.shape[1],
});
