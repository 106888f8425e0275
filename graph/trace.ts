/** From TypeScript to a graph: a function over tensors is run once on symbolic ones.
 * @module */
import { Builder } from "./builder.ts";
import type { Graph, Level, State, Type } from "./ir.ts";
import { autodiff } from "./passes/autodiff.ts";
import { Tensor } from "./tensor.ts";

/** A function of tensors. */
export type TensorFunction = (...inputs: Tensor[]) => Tensor | readonly Tensor[] | Readonly<Record<string, Tensor>>;

/** A function made by {@linkcode grad}: traced like any other. */
export interface Gradient {
  /** The function that is differentiated; it must have one scalar result. */
  readonly of: TensorFunction;
}

/** Gradient of a function with one scalar result, with respect to all its real inputs; parameters that it reads get none. */
export function grad(fn: TensorFunction): Gradient {
  return { of: fn };
}

/** Traces a function into a graph. Inputs are named `x0`, `x1`, ...; results `y0`, ... or by their keys.
 * @param specs a type for each argument.
 * @throws {TypeError} when an op does not fit its operands; the message names op and shapes.
 * @example
 * ```ts
 * import { f32, print, type Tensor } from "@libtitan/titan";
 *
 * const f = (x: Tensor) => x.matmul(x.transpose(0, 1)).softmax(-1).sum();
 * console.log(print(trace(grad(f), f32(8, 8))));
 * ``` */
export function trace(fn: TensorFunction | Gradient, ...specs: Type[]): Graph {
  if (typeof fn !== "function") {
    const forward = trace(fn.of, ...specs);
    if (forward.outputs.length !== 1 || forward.outputs[0].value.shape.length !== 0) {
      const got = forward.outputs.map((o) => `[${o.value.shape}]`).join(", ");
      throw new TypeError(`Cannot take the gradient of "${fn.of.name}": expected one scalar result, got ${got}`);
    }
    return autodiff(forward, { of: forward.outputs[0].name, inputs: forward.inputs.map((i) => i.name), keep: false });
  }
  return traceGraph(fn.name || "function", [], (builder) => {
    const inputs = specs.map((spec, i) => new Tensor(builder, builder.input(`x${i}`, spec)));
    return named(fn(...inputs));
  });
}

/** Results by name. */
function named(result: ReturnType<TensorFunction>): Record<string, Tensor> {
  if (result instanceof Tensor) return { y0: result };
  if (Array.isArray(result)) return Object.fromEntries(result.map((t, i) => [`y${i}`, t as Tensor]));
  return result as Record<string, Tensor>;
}

/** Traces `body` into a graph of a given name over given states; what `body` returns are the graph's outputs.
 * @param level what the graph may hold; default: whole values. */
export function traceGraph(
  name: string,
  states: Iterable<State>,
  body: (builder: Builder) => Readonly<Record<string, Tensor>> | void,
  level?: Level,
): Graph {
  const builder = new Builder(name, states, level);
  for (const [key, tensor] of Object.entries(body(builder) ?? {})) builder.output(key, tensor.value);
  return builder.finish();
}
