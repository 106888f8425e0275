/**
 * A model that this library has never seen, on one process or on many: its plan for tensor parallelism is a property of a few lines, and
 * data parallelism needs none. Both runs print the same losses.
 *
 * npx -y deno run -A examples/own_model_tp.ts
 * mpirun -n 4 npx -y deno run -A examples/own_model_tp.ts 2 2       # dp_shard 2, tp 2
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import {
  type Batch,
  CrossEntropy,
  Embedding,
  Linear,
  type LossSum,
  type ModelPlan,
  Module,
  RMSNorm,
  type Tensor,
  texts,
  train,
  worldOf,
} from "jsr:@libtitan/titan";

/** A gate on one half of what a token is turned into, and back. */
class GatedMixer extends Module {
  readonly norm: RMSNorm;
  readonly gate: Linear;
  readonly value: Linear;
  readonly back: Linear;
  constructor(dim: number, hidden: number) {
    super();
    this.norm = new RMSNorm(dim);
    this.gate = new Linear(dim, hidden);
    this.value = new Linear(dim, hidden);
    this.back = new Linear(hidden, dim);
  }
  forward(x_BTD: Tensor): Tensor {
    const h_BTD = this.norm.forward(x_BTD);
    return x_BTD.add(this.back.forward(this.gate.forward(h_BTD).sigmoid().mul(this.value.forward(h_BTD))));
  }
}

/** Tells the next token from the one before it. */
class Bigrams extends Module {
  readonly table: Embedding;
  readonly mixers: GatedMixer[];
  readonly head: Linear;
  readonly #loss = new CrossEntropy();
  constructor(readonly vocabSize: number, dim: number, readonly hidden: number) {
    super();
    this.table = new Embedding(vocabSize, dim);
    this.mixers = [new GatedMixer(dim, hidden), new GatedMixer(dim, hidden)];
    this.head = new Linear(dim, vocabSize);
  }
  loss({ tokens, targets }: Batch): LossSum {
    const x_BTD = this.mixers.reduce((x, mixer) => mixer.forward(x), this.table.forward(tokens));
    return this.#loss.forward(this.head.forward(x_BTD), targets);
  }
  /** What tensor parallelism may cut, and into how many equal parts; it names no axis of a mesh. */
  get plan(): ModelPlan {
    const { hidden, vocabSize } = this;
    return {
      parameters: [
        { pattern: "table.weight", role: "table", parts: vocabSize },
        { pattern: "mixers.*.gate.weight", role: "column", parts: hidden },
        { pattern: "mixers.*.value.weight", role: "column", parts: hidden },
        { pattern: "mixers.*.back.weight", role: "row", parts: hidden },
        { pattern: "head.weight", role: "column", parts: vocabSize },
      ],
      logits: "head",
      residual: ["batch", "sequence", "features"],
    };
  }
}

const [dp = 1, tp = 1] = Deno.args.map(Number);
const run = train({
  model: new Bigrams(2048, 64, 256),
  data: texts(`${import.meta.dirname}/../README.md`),
  mesh: { dp_shard: dp, tp },
  precision: { param: "f32" },
  batch: 8 / dp, // of each data rank
  seqLen: 64,
  steps: 40,
  lr: 1e-2,
});
for await (const { step, loss } of run) {
  const isFirst = (worldOf()?.rank ?? 0) === 0;
  if (isFirst && (step === 1 || step % 10 === 0)) console.log(`step ${step}: loss ${loss.toFixed(3)}`);
}
