/**
 * A Llama with an attention of its own: queries and keys are normed before they are rotated, as some models do it to stay stable. A subclass
 * overrides one method; everything else, generation included, stays as it is.
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/own_attention.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import {
  Attention,
  type AttentionOptions,
  type Linear,
  llama,
  RMSNorm,
  type Tensor,
  texts,
  train,
} from "jsr:@libtitan/titan";

class NormedAttention extends Attention {
  readonly queryNorm: RMSNorm;
  readonly keyNorm: RMSNorm;
  constructor(options: AttentionOptions) {
    super(options);
    this.queryNorm = new RMSNorm(this.headDim);
    this.keyNorm = new RMSNorm(this.headDim);
  }
  protected override heads(x_BTD: Tensor, weight: Linear): Tensor {
    const y_BTHK = super.heads(x_BTD, weight);
    if (weight === this.wv) return y_BTHK;
    return (weight === this.wq ? this.queryNorm : this.keyNorm).forward(y_BTHK);
  }
}

const sizes = { dim: 64, numLayers: 2, numHeads: 4 };
const model = llama("debug", sizes);
for (const layer of model.layers) {
  const own = new NormedAttention({ dim: 64, numHeads: 4, numKvHeads: 4, headDim: 16 });
  Object.assign(layer, { attention: own });
}

const run = train({ model, data: texts("README.md"), steps: 30, batch: 4, seqLen: 64, lr: 5e-3 });
for await (const { step, loss } of run) {
  if (step === 1 || step % 10 === 0) console.log(`step ${step}: loss ${loss.toFixed(3)}`);
}
