/** Appends nodes to a graph under construction: types are inferred as each node is made, so an ill-formed graph cannot be built.
 * @module */
import {
  type Attrs,
  type DimRole,
  type Graph,
  idCount,
  type Input,
  type Level,
  type Named,
  type Node,
  type Origin,
  type Phase,
  sameType,
  type State,
  type Type,
  type Value,
} from "./ir.ts";
import { attributeFault } from "./attributes.ts";
import { inferTypes, type Op } from "./op.ts";
import { ops } from "./ops/mod.ts";
import type { Tracer } from "./tensor.ts";

/** The record of an op.
 * @throws {TypeError} when there is none of that name. */
export function opOf(name: string): Op {
  const op = ops.get(name);
  if (!op) throw new TypeError(`Cannot find op "${name}": expected one file in graph/ops/ that defines it`);
  return op;
}

/** Is there an op of that name? */
export function isOp(name: string): boolean {
  return ops.has(name);
}

/** A node with the output types that were inferred when it was made. It never changes, so they need not be inferred again. */
export class Emitted implements Node {
  /** Name in the op table. */
  readonly op: string;
  /** Operands. */
  readonly inputs: readonly Value[];
  /** Results. */
  readonly outputs: readonly Value[];
  /** What is fixed at compile time. */
  readonly attrs: Attrs;
  /** Path of the module that made it. */
  readonly scope: string;
  /** When it runs. */
  readonly phase: Phase;
  /** The block that it is in. */
  readonly block?: string;
  /** The stage of a pipeline that it is on. */
  readonly stage?: number;
  /** What `verify` has found out about it: private, so that no copy with other fields has it. */
  #notes: unknown;

  /** @ignore */
  get notes(): unknown {
    return this.#notes;
  }
  /** @ignore */
  set notes(notes: unknown) {
    this.#notes = notes;
  }

  /** @ignore */
  constructor(made: Omit<Node, keyof Origin>, { scope, phase, block, stage }: Origin, inputs = made.inputs) {
    this.op = made.op;
    this.inputs = inputs;
    this.outputs = made.outputs;
    this.attrs = made.attrs;
    this.scope = scope;
    this.phase = phase;
    this.block = block;
    this.stage = stage;
  }
}

/** The node on other operands. Where these have the types of the old ones, so have its results. */
export function withInputs(node: Node, inputs: readonly Value[]): Node {
  const isAlike = node instanceof Emitted && inputs.length === node.inputs.length &&
    inputs.every((v, i) => v === node.inputs[i] || sameType(v, node.inputs[i]));
  return isAlike ? new Emitted(node, node, inputs) : { ...node, inputs };
}

/** A graph under construction. */
export class Builder implements Tracer {
  /** Given to new nodes. */
  origin: Origin = { scope: "", phase: "forward" };
  /** Inputs so far. */
  readonly inputs: Input[] = [];
  /** Nodes so far, in execution order. */
  readonly nodes: Node[] = [];
  /** Named results so far. */
  readonly outputs: Named[] = [];
  /** What modules have given so far. */
  readonly activations: Named[] = [];
  /** Slower paths that passes have taken so far. */
  readonly notices: string[] = [];
  /** Declared states by name. */
  readonly states: Map<string, State> = new Map();
  /** The stage that the graph works for. */
  slot?: string;
  #next = 0;

  /** Begins a graph without inputs and nodes.
   * @param name name of the graph. @param states states that it may touch. @param level what it may hold; default: whole values. */
  constructor(readonly name: string, states: Iterable<State> = [], readonly level: Level = "global") {
    for (const state of states) this.declare(state);
  }

  /** A builder that goes on where a graph ends: its values stay valid, and all that it has is kept. */
  static extend(graph: Graph): Builder {
    const builder = Builder.beside(graph);
    builder.inputs.push(...graph.inputs);
    for (const node of graph.nodes) builder.nodes.push(node); // too many for the arguments of one call
    builder.outputs.push(...graph.outputs);
    builder.activations.push(...graph.activations);
    builder.notices.push(...graph.notices);
    return builder;
  }

  /** A builder of nodes that will stand among those of a graph: it has none yet, and its values are new there. */
  static beside(graph: Graph): Builder {
    const builder = new Builder(graph.name, [], graph.level);
    builder.slot = graph.slot;
    for (const state of graph.states) builder.states.set(state.name, state);
    builder.#next = idCount(graph);
    return builder;
  }

  #value(type: Type): Value {
    return { id: this.#next++, dtype: type.dtype, shape: type.shape };
  }

  /** Adds an input.
   * @param roles what each of its dims counts; without them every rank of a mesh is given all of it.
   * @param counts is each row 0, 1, 2 and so on? */
  input(name: string, type: Type, roles?: readonly DimRole[], counts = false): Value {
    if (this.inputs.some((i) => i.name === name)) throw new TypeError(`Cannot add input "${name}": it exists already`);
    if (roles && roles.length !== type.shape.length) {
      throw new TypeError(
        `Cannot add input "${name}" [${type.shape}] with roles ${roles.join(", ")}: expected one for each dim`,
      );
    }
    const value = this.#value(type);
    this.inputs.push({ name, value, ...(roles ? { roles } : {}), ...(counts ? { counts } : {}) });
    return value;
  }

  /** Declares a state; declaring it again is a no-op when nothing differs. */
  declare(state: State): void {
    const old = this.states.get(state.name);
    if (old && (old.dtype !== state.dtype || String(old.shape) !== String(state.shape))) {
      throw new TypeError(`Cannot declare state "${state.name}" twice with different types`);
    }
    this.states.set(state.name, state);
  }

  /** Adds a node and returns its outputs. */
  emit(op: string, inputs: readonly Value[], attrs: Attrs = {}, origin: Origin = this.origin): Value[] {
    const record = opOf(op), fault = attributeFault(record.attrs ?? {}, attrs);
    if (fault !== undefined) throw new TypeError(`Cannot apply "${op}": ${fault}`);
    const outputs = inferTypes(record, inputs, attrs).map((t) => this.#value(t));
    this.nodes.push(new Emitted({ op, inputs, outputs, attrs }, origin));
    return outputs;
  }

  #state(name: string): State {
    const state = this.states.get(name);
    if (!state) throw new TypeError(`Cannot touch state "${name}" in graph "${this.name}": it is not declared`);
    return state;
  }

  /** Reads one state, or several that lie one after another (their dim 0 joined). */
  read(...names: string[]): Value {
    const states = names.map((n) => this.#state(n));
    const tail = states[0].shape.slice(1);
    const shape = states.length === 1 ? states[0].shape : [states.reduce((n, s) => n + s.shape[0], 0), ...tail];
    return this.emit("read", [], { states: names, dtype: states[0].dtype, shape: [...shape] })[0];
  }

  /** Replaces a state. */
  assign(name: string, value: Value): void {
    this.#state(name);
    this.emit("assign", [value], { states: [name] });
  }

  /** Adds a value to a state; with `begin`, the first microbatch of a step overwrites instead. */
  accumulate(name: string, value: Value, begin = true): void {
    this.#state(name);
    this.emit("accumulate", [value], { states: [name], begin });
  }

  /** Names a result. */
  output(name: string, value: Value): void {
    this.outputs.push({ name, value });
  }

  /** The finished graph. */
  finish(): Graph {
    return {
      name: this.name,
      level: this.level,
      slot: this.slot,
      inputs: [...this.inputs],
      states: [...this.states.values()],
      nodes: [...this.nodes],
      outputs: [...this.outputs],
      activations: [...this.activations],
      notices: [...this.notices],
    };
  }
}

/** Type of an `f32` value. */
export function f32(...shape: number[]): Type {
  return { dtype: "f32", shape };
}
/** Type of an `f64` value. */
export function f64(...shape: number[]): Type {
  return { dtype: "f64", shape };
}
/** Type of an `i32` value: tokens, positions, document ids. */
export function i32(...shape: number[]): Type {
  return { dtype: "i32", shape };
}
