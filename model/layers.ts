/** The layers that every model is built from. Shape letters: B batch, T tokens, D model, V vocabulary.
 * @module */
import type { Tensor } from "../graph/tensor.ts";
import { type Init, Module, type Parameter, parameter } from "./module.ts";

/** Normal of deviation `std`, cut off at -2 and 2: absolute bounds, as in torchtitan, which at the usual deviations cut nothing. */
export function truncatedNormal(std: number): Init {
  return { kind: "truncated_normal", std, low: -2, high: 2 };
}

/** y = x W^T over the last dim, without bias; weight `[out, in]`. */
export class Linear extends Module {
  /** W, `[out, in]`. */
  readonly weight: Parameter;

  /** Makes the weight, or takes one that another layer has too: it is then one parameter, under the first of its names.
   * @param inputSize size of the last dim of x. @param outputSize size of the last dim of y.
   * @param weight initial weights, by default truncated normal of deviation 0.02; or a parameter `[out, in]` to share.
   * @throws {RangeError} when a shared parameter has another shape. */
  constructor(inputSize: number, outputSize: number, weight: Init | Parameter = truncatedNormal(0.02)) {
    super();
    const shape = [outputSize, inputSize];
    if (typeof weight === "function" && String(weight.shape) !== String(shape)) {
      throw new RangeError(`Cannot share a parameter of shape [${weight.shape}]: expected [${shape}] for this layer`);
    }
    this.weight = typeof weight === "function" ? weight : parameter(shape, weight);
  }

  /** `[..., in]` to `[..., out]` */
  forward(x: Tensor): Tensor {
    const lead = [..."btuvwxyz"].slice(0, x.shape.length - 1);
    return x.contract(`${[...lead, "i"].join(" ")}, o i -> ${[...lead, "o"].join(" ")}`, this.weight());
  }
}

/** A row of a table for each token id; weight `[V, D]`. */
export class Embedding extends Module {
  /** The table, `[V, D]`. */
  readonly weight: Parameter;

  /** Makes the table.
   * @param vocabSize V, number of rows. @param dim D, size of a row. @param init initial rows, by default normal of deviation 1. */
  constructor(vocabSize: number, dim: number, init: Init = { kind: "normal", std: 1 }) {
    super();
    this.weight = parameter([vocabSize, dim], init);
  }

  /** ids i32 `[...]` to `[..., D]` */
  forward(ids: Tensor): Tensor {
    return ids.apply("embedding", [this.weight()])[0];
  }
}

/** y = x w / sqrt(mean(x^2) + eps) over the last dim (Zhang & Sennrich 2019); weight `[D]` starts at 1. */
export class RMSNorm extends Module {
  /** w, `[D]`. */
  readonly weight: Parameter;
  /** Added to the mean square. */
  readonly eps: number;

  /** Makes the weight, all ones.
   * @param dim D, size of the last dim of x. @param eps added to the mean square. */
  constructor(dim: number, eps = 1e-5) {
    super();
    this.weight = parameter([dim], { kind: "constant", value: 1 });
    this.eps = eps;
  }

  /** `[..., D]` to `[..., D]` */
  forward(x: Tensor): Tensor {
    return x.apply("rmsnorm", [this.weight()], { eps: this.eps })[0];
  }
}
