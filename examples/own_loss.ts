/**
 * A loss of one's own: cross-entropy plus the square of log Z, which keeps logits from growing ("z-loss"). A loss is a sum over tokens and
 * how many they are; the gradient follows from it.
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/own_loss.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { type Batch, CrossEntropy, Embedding, Linear, type LossSum, Module, texts, train } from "jsr:@libtitan/titan";

class WithZLoss extends Module {
  readonly vocabSize = 2048;
  readonly table = new Embedding(2048, 32);
  readonly head = new Linear(32, 2048);
  readonly #loss = new CrossEntropy();
  constructor(readonly weight: number) {
    super();
  }
  loss({ tokens, targets }: Batch): LossSum {
    const logits_BTV = this.head.forward(this.table.forward(tokens));
    const { lossSum, count } = this.#loss.forward(logits_BTV, targets);
    const logZ_BT = logits_BTV.exp().sum(-1).log();
    return { lossSum: lossSum.add(logZ_BT.square().sum().mul(this.weight)), count };
  }
}

for (const weight of [0, 1e-2]) {
  const options = { data: texts("README.md"), steps: 60, batch: 8, seqLen: 64, lr: 1e-2 };
  let last = NaN;
  for await (const { loss } of train({ model: new WithZLoss(weight), ...options })) last = loss;
  console.log(`z-loss times ${weight}: loss ${last.toFixed(3)}`);
}
