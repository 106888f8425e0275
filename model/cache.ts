/** What a model remembers of the tokens that it has read, so that a further one costs one token's work.
 * Shape letters: B sequences, T new tokens of each, S tokens that there is room for, D model, V vocabulary.
 * @module */
import type { DType } from "../graph/ir.ts";
import type { ModelPlan } from "../graph/roles.ts";
import { Tensor } from "../graph/tensor.ts";
import type { Module } from "./module.ts";

/** Tokens that follow those that a cache has already. */
export interface NewTokens {
  /** Token ids, i32 `[B,T]`. */
  readonly tokens: Tensor;
  /** Place of each token in its sequence, from 0, i32 `[B,T]`; -1 where there is no token: it sees nothing and nothing is kept of it. */
  readonly positions: Tensor;
  /** Index among the T of each sequence's last token, i32 `[B,1]`. */
  readonly last: Tensor;
  /** What earlier tokens have left. */
  readonly cache: Cache;
}

/** What can generate: any module that says how likely each token is to come next. */
export interface GenerativeModel extends Module {
  /** Logits `[B,V]` behind the last token of each sequence. Traced for one new token, and for several at once. */
  next(tokens: NewTokens): Tensor;
  /** V. */
  readonly vocabSize: number;
  /** What tensor parallelism may cut. */
  readonly plan?: ModelPlan;
}

/** Can a model generate? */
export function isGenerative<T extends Module>(model: T): model is T & GenerativeModel {
  return "next" in model && typeof model.next === "function" && "vocabSize" in model &&
    typeof model.vocabSize === "number";
}

/** Rows of all tokens, of each thing that is kept. A token's row is its position: rows behind the last token may hold anything, as no
 * token sees positions behind its own. So to forget tokens is to read others at their positions. */
export class Cache {
  /** Position of each row, i32 `[B,S]`. */
  readonly positions: Tensor;

  /** Adds nothing to the graph but the rows' positions.
   * @param at positions of the new tokens, i32 `[B,T]`. @param length S. @param dtype how rows are stored. */
  constructor(readonly at: Tensor, readonly length: number, readonly dtype: DType) {
    const [batch] = at.shape, counted = at.constant(1, [length]).cumsum(0, { exclusive: true });
    this.positions = counted.broadcastTo([batch, length]);
  }

  /** Keeps rows of the new tokens, `[B,T,H,K]`, and gives those of all, `[B,S,H,K]`. In a model's modules alone: rows are found again by
   * the module's path and this name. */
  extend(name: string, rows: Tensor): Tensor {
    const { builder, dtype, shape: [batch, , heads, size] } = rows, { origin: { scope, block } } = builder;
    const state = `cache/${scope}.${name}`, shape = [batch, this.length, heads * size];
    builder.declare({ name: state, kind: "cache", dtype: this.dtype, shape, scope, block });
    const old = new Tensor(builder, builder.read(state));
    const all = old.putRows(this.at, rows.cast(this.dtype).reshape("b t h k -> b t (h k)"));
    builder.assign(state, all.value);
    return all.cast(dtype).reshape("b s (h k) -> b s h k", { h: heads });
  }
}
