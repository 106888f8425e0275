/**
 * Another optimizer than AdamW: Lion moves every parameter by the sign of its momentum. A rule is a function over tensors, traced once for
 * each parameter; gradients come clipped, and two states of the parameter's shape are kept for it. On a mesh it is the same rule.
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/own_optimizer.ts
 * mpirun -n 2 npx -y deno run -A examples/own_optimizer.ts 2       # tp 2
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { llama, type Tensor, texts, train, type UpdateRule, worldOf } from "jsr:@libtitan/titan";

/** 1, 0 or -1. */
const sign = (x: Tensor) => x.neg().less(0).sub(x.less(0));

/** Lion (Chen et al., 2023). It needs one state; the other stays as it is. */
const lion =
  ({ beta1 = 0.9, beta2 = 0.99, weightDecay = 0.1 } = {}): UpdateRule =>
  ({ parameter, gradient, moments: [momentum, unused], lr }) => {
    const direction = sign(momentum.mul(beta1).add(gradient.mul(1 - beta1)));
    return {
      parameter: parameter.sub(direction.add(parameter.mul(weightDecay)).mul(lr)),
      moments: [momentum.mul(beta2).add(gradient.mul(1 - beta2)), unused],
    };
  };

const run = train({
  model: llama("debug", { dim: 64, numLayers: 1, numHeads: 4 }),
  data: texts("README.md"),
  mesh: { tp: Number(Deno.args[0] ?? 1) },
  steps: 60,
  batch: 4,
  seqLen: 64,
  lr: 1e-3,
  optimizer: { rule: lion() },
});
for await (const { step, loss } of run) {
  const isFirst = (worldOf()?.rank ?? 0) === 0;
  if (isFirst && (step === 1 || step % 20 === 0)) console.log(`step ${step}: loss ${loss.toFixed(3)}`);
}
