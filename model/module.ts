/** Modules and parameters: a model is a tree of plain objects, and a parameter's name is the property path that leads to it,
 * in the ecosystem's spelling: `layers.3.attentionNorm.weight` is `layers.3.attention_norm.weight` in graphs and files.
 * @module */
import { type DType, numel, type State } from "../graph/ir.ts";
import { Tensor, type Tracer } from "../graph/tensor.ts";

/** How a parameter starts; drawn by the graph that `train/optimizer.ts` traces, keyed by seed and name alone.
 * Bounds are absolute numbers, not multiples of `std`; a mean is 0 unless it is given. */
export type Init =
  | { readonly kind: "normal"; readonly mean?: number; readonly std: number }
  | {
    readonly kind: "truncated_normal";
    readonly mean?: number;
    readonly std: number;
    readonly low: number;
    readonly high: number;
  }
  | { readonly kind: "uniform"; readonly low: number; readonly high: number }
  | { readonly kind: "constant"; readonly value: number };

/** A trained tensor. Calling it inside a trace reads it. Its element type is the trace's choice, its name its place in the model. */
export interface Parameter {
  /** The parameter's value in the graph being traced.
   * @throws {Error} outside of {@linkcode bind}, or when the bound model does not hold it. */
  (): Tensor;
  /** Global shape. */
  readonly shape: readonly number[];
  /** Initial value. */
  readonly init: Init;
}

const parameters = new WeakSet<object>();
const isParameter = (x: unknown): x is Parameter => typeof x === "function" && parameters.has(x);

/** Makes a parameter; it belongs in a property of a {@linkcode Module}.
 * @throws {RangeError} when a dim is not a positive whole number. */
export function parameter(shape: readonly number[], init: Init): Parameter {
  if (!shape.every((d) => Number.isInteger(d) && d > 0)) {
    throw new RangeError(`Cannot make a parameter of shape [${shape}]: expected positive whole numbers`);
  }
  const self: Parameter = Object.assign((): Tensor => read(self), { shape: [...shape], init });
  parameters.add(self);
  return self;
}

/** A part of a model: keeps parameters and other modules in its properties (also in arrays), and has a method `forward`.
 * Nodes that `forward` makes carry the module's path as their scope. What is an element of a list of modules is a _block_: parameters
 * travel, and activations are made again, block by block. A module that holds nothing but such lists is none itself; its elements are.
 * @example
 * ```ts
 * import { Linear, type Tensor } from "@libtitan/titan";
 *
 * class GatedMixer extends Module {
 *   readonly gate: Linear;
 *   readonly value: Linear;
 *   constructor(dim: number) {
 *     super();
 *     this.gate = new Linear(dim, dim);
 *     this.value = new Linear(dim, dim);
 *   }
 *   forward(x_BTD: Tensor): Tensor {
 *     return this.gate.forward(x_BTD).sigmoid().mul(this.value.forward(x_BTD));
 *   }
 * }
 * ``` */
export abstract class Module {
  constructor() {
    // `this` has the subclass's methods already: each instance gets a `forward` of its own that sets the scope.
    const forward: unknown = Reflect.get(this, "forward");
    if (typeof forward !== "function") return;
    const value = (...args: unknown[]): unknown => called(this, () => Reflect.apply(forward, this, args));
    Object.defineProperty(this, "forward", { value, writable: true, configurable: true });
  }
}

/** Where a module is in a model. */
interface Position {
  readonly path: string;
  /** The block that it is in, or is. */
  readonly block?: string;
}

/** What a model is made of, each under the first path that leads to it. */
interface Contents {
  readonly modules: Map<Module, Position>;
  readonly parameters: Map<Parameter, { readonly name: string; readonly holder: Position }>;
}

/** Does a module hold lists of modules, and nothing else that is part of a model? */
function holdsListsAlone(module: Module): boolean {
  const isPart = (value: unknown): boolean => value instanceof Module || isParameter(value);
  const parts = Object.values(module).filter((v) => isPart(v) || Array.isArray(v) && v.flat(Infinity).some(isPart));
  return parts.length > 0 && parts.every((v) => Array.isArray(v) && !v.flat(Infinity).some(isParameter));
}

/** `attentionNorm` as `attention_norm`. */
const snakeCase = (name: string): string => name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toLowerCase();

function contentsOf(root: Module): Contents {
  const contents: Contents = { modules: new Map(), parameters: new Map() };
  const names = new Set<string>();
  const visit = (value: unknown, path: string, holder: Position, isElement = false): void => {
    if (isParameter(value)) {
      if (contents.parameters.has(value)) return;
      if (names.has(path)) {
        throw new TypeError(`Cannot name parameters: two of them are called "${path}"; rename a property`);
      }
      names.add(path);
      contents.parameters.set(value, { name: path, holder });
    } else if (Array.isArray(value)) value.forEach((item, i) => visit(item, `${path}.${i}`, holder, true));
    else if (value instanceof Module && !contents.modules.has(value)) {
      const isBlock = isElement && holder.block === undefined && !holdsListsAlone(value);
      const position: Position = { path, block: isBlock ? path : holder.block };
      contents.modules.set(value, position);
      for (const [key, property] of Object.entries(value)) {
        if (key === "forward") {
          throw new TypeError(`Cannot use ${value.constructor.name}: its "forward" is a property, expected a method`);
        }
        visit(property, path === "" ? snakeCase(key) : `${path}.${snakeCase(key)}`, position);
      }
    }
  };
  visit(root, "", { path: "" });
  return contents;
}

/** The modules of a model by path, in the order of its properties; the model itself is "". One that is reached by several paths has the
 * first of them. */
export function namedModules(root: Module): Map<string, Module> {
  return new Map([...contentsOf(root).modules].map(([module, { path }]) => [path, module]));
}

/** The parameters of a model by FQN, in the order of its properties. One that is reached by several paths (tied weights) has
 * the first of them as its name. */
export function namedParameters(root: Module): Map<string, Parameter> {
  return new Map([...contentsOf(root).parameters].map(([parameter, { name }]) => [name, parameter]));
}

/** The states that hold a model's parameters. */
export function parameterStates(root: Module, dtype: DType): State[] {
  return [...contentsOf(root).parameters].map(([{ shape }, { name, holder: { path, block } }]): State => ({
    name,
    kind: "parameter",
    dtype,
    shape,
    scope: path,
    block,
  }));
}

/** Number of trained numbers; a tied parameter counts once. */
export function numParameters(root: Module): number {
  return [...namedParameters(root).values()].reduce((n, { shape }) => n + numel(shape), 0);
}

/** Where parameters are read into: the graph under construction, and the element type that they have in it. */
export interface Target {
  /** The graph under construction. */
  readonly builder: Tracer;
  /** Element type of every parameter in it. */
  readonly dtype: DType;
}

interface Binding extends Target, Contents {
  readonly root: Module;
}

let binding: Binding | undefined;

/** Runs `body` with a model bound to a graph under construction: parameters are states of that graph and can be read, and
 * nodes get module paths as scopes. `body` may not be asynchronous. A real tensor of the graph serves as `target`.
 * @example
 * ```ts
 * import { f32, Linear, trace } from "@libtitan/titan";
 *
 * const linear = new Linear(8, 4);
 * const graph = trace((x) => bind(linear, x, () => linear.forward(x)), f32(2, 3, 8));
 * ``` */
export function bind<T>(root: Module, target: Target, body: () => T): T {
  const { builder, dtype } = target, outer = binding;
  for (const state of parameterStates(root, dtype)) builder.declare(state);
  binding = { root, builder, dtype, ...contentsOf(root) };
  try {
    return body();
  } finally {
    binding = outer;
  }
}

function read(parameter: Parameter): Tensor {
  const what = `Cannot read a parameter of shape [${parameter.shape}]`;
  if (!binding) throw new Error(`${what}: no graph is being traced; call the module inside of bind(model, ...)`);
  const known = binding.parameters.get(parameter);
  if (!known) {
    throw new Error(
      `${what}: ${binding.root.constructor.name} does not hold it; expected it in a property of a module or in an array ` +
        `there (a "#private" field or a Map cannot be searched)`,
    );
  }
  return new Tensor(binding.builder, binding.builder.read(known.name));
}

/** Runs a module's `forward`: what it makes comes from there, and what it gives is known by the module's path. */
function called<T>(module: Module, body: () => T): T {
  const position = binding?.modules.get(module);
  if (!position) return body();
  const { builder } = binding!, outer = builder.origin;
  builder.origin = { ...outer, scope: position.path, block: position.block };
  try {
    const result = body();
    if (result instanceof Tensor && position.path !== "") {
      builder.activations.push({ name: position.path, value: result.value });
    }
    return result;
  } finally {
    builder.origin = outer;
  }
}
