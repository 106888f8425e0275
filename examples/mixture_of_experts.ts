/**
 * A mixture of experts: each token is given to the two of four experts that its router likes best, as far as they have room. On many
 * processes each has some of the experts, and all print the same losses.
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/mixture_of_experts.ts
 * mpirun -n 4 npx -y deno run -A examples/mixture_of_experts.ts 4 2       # dp_shard 4, ep 2
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import type { Batch, LossSum, ModelPlan, Tensor } from "jsr:@libtitan/titan";
import { CrossEntropy, Embedding, Linear, Module, parameter, texts, train, worldOf } from "jsr:@libtitan/titan";

/** E experts of width F; B rows of T tokens, of which an expert takes at most C from a row; S = 2 T choices a row. */
class Experts extends Module {
  readonly router = new Linear(64, 4);
  readonly up = parameter([4, 128, 64], { kind: "normal", std: 0.1 });
  readonly down = parameter([4, 64, 128], { kind: "normal", std: 0.1 });
  forward(x_BTD: Tensor): Tensor {
    const [B, T, D] = x_BTD.shape, E = 4, C = Math.ceil(1.25 * 2 * T / E);
    const [weights_BTK, ids_BTK] = this.router.forward(x_BTD).softmax().topK(2);
    // The place of each choice among those of its expert; without room, -1: that is no row.
    const ids_BS = ids_BTK.reshape("b t k -> b (t k)"), chosen_BSE = ids_BS.oneHot(E);
    const place_BS = chosen_BSE.cumsum(1, { exclusive: true }).mul(chosen_BSE).sum(2).cast("i32");
    const row_BS = place_BS.less(C).select(ids_BS.mul(C).add(place_BS), ids_BS.constant(-1, ids_BS.shape));
    const twice_BSD = x_BTD.reshape("b t d -> b t 1 d").broadcastTo([B, T, 2, D]).reshape("b t k d -> b (t k) d");
    const rows = twice_BSD.scatterAdd(row_BS, E * C).reshape("b (e c) d -> b e c d", { e: E });
    const rows_END = rows.transpose("b e c d -> e b c d").reshape("e b c d -> e (b c) d");
    const hidden_ENF = rows_END.contract("e n d, e f d -> e n f", this.up()).silu();
    const made = hidden_ENF.contract("e n f, e d f -> e n d", this.down()).reshape("e (b c) d -> e b c d", { b: B });
    const made_BSD = made.transpose("e b c d -> b e c d").reshape("b e c d -> b (e c) d").take(row_BS);
    const weighed = made_BSD.reshape("b (t k) d -> b t k d", { k: 2 }).contract("b t k d, b t k -> b t d", weights_BTK);
    return x_BTD.add(weighed);
  }
}

/** Tells the next token from the one before it. */
export class Bigrams extends Module {
  readonly table = new Embedding(2048, 64);
  readonly experts = new Experts();
  readonly head = new Linear(64, 2048);
  readonly #loss = new CrossEntropy();
  loss({ tokens, targets }: Batch): LossSum {
    return this.#loss.forward(this.head.forward(this.experts.forward(this.table.forward(tokens))), targets);
  }
  readonly plan: ModelPlan = {
    parameters: ["experts.up", "experts.down"].map((pattern) => ({ pattern, role: "expert", parts: 4 })),
    logits: "head",
    residual: ["batch", "sequence", "features"],
  };
}

if (import.meta.main) {
  const data = texts(`${import.meta.dirname}/../README.md`), [dp = 1, ep = 1] = Deno.args.map(Number);
  const options = { dtype: "f64", batch: 8 / dp, seqLen: 64, steps: 40, lr: 1e-2 } as const; // f32 rounds: other choices
  for await (const { step, loss } of train({ model: new Bigrams(), data, mesh: { dp_shard: dp, ep }, ...options })) {
    const isTold = (worldOf()?.rank ?? 0) === 0 && (step === 1 || step % 10 === 0);
    if (isTold) console.log(`step ${step}: loss ${loss.toFixed(3)}`);
  }
}
