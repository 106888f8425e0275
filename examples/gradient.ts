/**
 * A function of one's own: its gradient as a graph, as native code, and checked against differences of the function.
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/gradient.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { compile, f64, grad, print, type Tensor, trace } from "jsr:@libtitan/titan";

/** How far the rows of x [3,2] are from being orthogonal: the sum of squares of x x' off its diagonal. */
function overlap(x: Tensor): Tensor {
  const products = x.matmul(x.transpose(0, 1)).square();
  const norms = x.square().sum(1).square();
  return products.sum().sub(norms.sum());
}

console.log(print(trace(grad(overlap), f64(3, 2))));

await using value = compile(overlap, f64(3, 2));
await using gradient = compile(grad(overlap), f64(3, 2));

const x = [1, 2, -1, 0.5, 0.25, -2];
const dx = await gradient.run(x);

const h = 1e-4;
for (const [i, slope] of dx.entries()) {
  const [[above], [below]] = [await value.run(x.with(i, x[i] + h)), await value.run(x.with(i, x[i] - h))];
  const difference = (above - below) / (2 * h);
  console.log(`d overlap / d x[${i}] = ${slope.toFixed(6)}, by differences ${difference.toFixed(6)}`);
  if (Math.abs(slope - difference) > 1e-6) throw new Error(`The gradient is wrong at x[${i}]`);
}
