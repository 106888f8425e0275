/** The plan: which parameter, gradient sum and activation lies how on the mesh. A plan is a short list of patterns; bound to a mesh
 * and the graphs of a step, it gives every state and input its layout.
 * @module */
import { gradientOf, type Graph, type Named, type State } from "../graph/ir.ts";
import {
  degreeOf,
  type Layout,
  LayoutError,
  layoutOf,
  layoutText,
  paddedAxes,
  partial,
  type Placement,
  replicate,
  replicated,
  shard,
} from "../graph/layout.ts";
import type { ModelPlan, ParameterRole } from "../graph/roles.ts";
import { AXES, type Axis, DEGREE_KEYS, type Mesh } from "./mesh.ts";

/** Placements by axis; what is left out stays as it is without the rule. */
export type Placements = Readonly<Partial<Record<Axis, Placement>>>;

/** Layouts of the parameters of a name. In a pattern, `*` stands for any part between dots. */
export interface ParameterRule {
  readonly pattern: string;
  /** Between steps; moments lie alike. Without a rule, dim 0 is sharded over `dp_shard` and `cp`. */
  readonly stored?: Placements;
  /** Where a product takes it. Without a rule, whole. */
  readonly used?: Placements;
  /** Its gradient sum. Without a rule, as it is stored, and over `dp_replicate` what each rank has added up. */
  readonly gradient?: Placements;
  /** Dims that are so many equal parts which belong together. */
  readonly units?: Readonly<Record<number, number>>;
}

/** Layout of the results of modules, named by path. */
export interface ActivationRule {
  readonly pattern: string;
  readonly layout: Placements;
}

/** A plan. Only tensor parallelism needs rules. */
export interface Plan {
  readonly parameters: readonly ParameterRule[];
  readonly activations: readonly ActivationRule[];
  /** Where partial values of so many dims, and of more than one use, are resolved to; others become whole. */
  readonly residual: { readonly rank: number; readonly layout: Placements };
}

/** Choices of tensor parallelism. */
export interface PlanOptions {
  /** Is the residual stream sharded along the sequence between the products? Default true. */
  readonly sequenceParallel?: boolean;
  /** Do logits stay sharded by vocabulary in the loss? Default true. */
  readonly lossParallel?: boolean;
}

/** The batch and the sequence are shared out by the data axes. */
const DATA: Placements = { dp_replicate: shard(0), dp_shard: shard(0), cp: shard(1) };
/** Where parameters are without a word; a scalar has no dim 0 and is whole. */
const SHARDED: Placements = { dp_shard: shard(0), cp: shard(0) };
/** What each data rank has added up for itself: losses, counts, and gradients that are not sharded. */
const SUMMANDS: Placements = { dp_replicate: partial(), dp_shard: partial(), cp: partial() };
/** The order in which axes cut a parameter: `tp` first, so that a gather over the others gives what a rank uses. */
const PARAMETER_ORDER: readonly Axis[] = ["tp", "dp_replicate", "dp_shard", "cp"];

/** The plan of a model that names its roles. */
export function planOf(model: ModelPlan, options: PlanOptions = {}): Plan {
  const { sequenceParallel = true, lossParallel = true } = options;
  const rule = ({ pattern, role, units }: ParameterRole): ParameterRule => {
    const dim = role === "row" ? 1 : 0, tp = { tp: shard(dim) };
    return { pattern, stored: tp, used: tp, gradient: tp, units: { [dim]: units } };
  };
  return {
    parameters: model.parameters.map(rule),
    activations: lossParallel ? [] : [{ pattern: model.logits, layout: { tp: replicate } }],
    residual: { rank: model.residualRank, layout: { ...DATA, ...(sequenceParallel ? { tp: shard(1) } : {}) } },
  };
}

/** The plan of a model that names nothing: data axes alone. */
export const dataPlan: Plan = { parameters: [], activations: [], residual: { rank: 3, layout: DATA } };

/** What pass `partition` asks. */
export interface Layouts {
  /** Layout of a state. */
  state(state: State): Layout;
  /** Layout in which a parameter is used. */
  used(parameter: State): Layout;
  /** Layout of an input. */
  input(input: Named): Layout;
  /** Placements asked for the result of a module. */
  activation(module: string): Placements;
  /** Where partial values with several uses are resolved to. */
  residual(rank: number): Placements;
}

/** A plan on a mesh, for the graphs of a step. */
export class BoundPlan implements Layouts {
  /** Global states by name, those of all graphs. */
  readonly states: ReadonlyMap<string, State>;
  readonly #plan: Plan;
  readonly #mesh: Mesh;
  readonly #parameters: ReadonlyMap<string, ParameterRule>;
  readonly #activations: ReadonlyMap<string, ActivationRule>;

  /** @throws {LayoutError} when a pattern matches nothing, a name is matched twice, or what belongs together would be cut. */
  constructor(plan: Plan, mesh: Mesh, graphs: readonly Graph[]) {
    this.#plan = plan;
    this.#mesh = mesh;
    this.states = new Map(graphs.flatMap((g) => g.states).map((s) => [s.name, s]));
    const parameters = [...this.states.values()].filter((s) => s.kind === "parameter").map((s) => s.name);
    const modules = new Set(graphs.flatMap((g) => g.activations).map((a) => a.name));
    this.#parameters = matched(plan.parameters, parameters, "parameter");
    this.#activations = matched(plan.activations, [...modules], "module");
    for (const name of parameters) this.#check(this.states.get(name)!);
  }

  state(state: State): Layout {
    const rule = this.#parameters.get(state.of ?? state.name);
    if (state.kind === "sum") return this.#layout(SUMMANDS, AXES);
    const sharded = state.shape.length === 0 ? {} : SHARDED;
    const placements = state.kind === "gradient"
      ? { ...SUMMANDS, ...sharded, ...rule?.gradient }
      : { ...sharded, ...rule?.stored };
    return this.#padded(state.shape, this.#layout(placements, PARAMETER_ORDER));
  }

  used(parameter: State): Layout {
    return this.#layout(this.#parameters.get(parameter.name)?.used ?? {}, PARAMETER_ORDER);
  }

  /** What has a batch and a sequence is shared out; learning rates and seeds are everybody's. */
  input({ value }: Named): Layout {
    return value.shape.length >= 2 ? this.#layout(DATA, AXES) : replicated;
  }

  activation(module: string): Placements {
    return this.#activations.get(module)?.layout ?? {};
  }

  residual(rank: number): Placements {
    return rank === this.#plan.residual.rank ? this.#plan.residual.layout : {};
  }

  /** States that are cut with padding. */
  padded(): State[] {
    return [...this.states.values()].filter((s) => s.shape.some((_, d) => paddedAxes(this.state(s), d).length > 0));
  }

  /** The same where gradient sums have been reduced: no rank has summands of its own. */
  get reduced(): Layouts {
    const state = (s: State): Layout => {
      const layout = this.state(s);
      return s.kind === "gradient" ? new Map([...layout].filter(([, p]) => p.kind !== "partial")) : layout;
    };
    return {
      state,
      used: (s) => this.used(s),
      input: (i) => this.input(i),
      activation: (module) => this.activation(module),
      residual: (rank) => this.residual(rank),
    };
  }

  /** One line for each parameter: its layouts stored, used, and of its gradient sum. */
  toString(): string {
    return [...this.states.values()].filter((s) => s.kind === "parameter").map((s) => {
      const gradient = this.state(gradientOf(s));
      return `${s.name} [${s.shape}]: stored ${layoutText(this.state(s))}; used ${layoutText(this.used(s))}; ` +
        `gradient ${layoutText(gradient)}\n`;
    }).join("");
  }

  #layout(placements: Placements, order: readonly Axis[]): Layout {
    return layoutOf(order.map((axis) => [axis, placements[axis] ?? replicate]), this.#mesh.degrees);
  }

  /** Data axes that do not cut a dim evenly cut it at one go, with padding. */
  #padded(shape: readonly number[], layout: Layout): Layout {
    const { degrees } = this.#mesh;
    return new Map([...layout].map(([axis, p]) => {
      if (p.kind !== "shard" || axis === "tp") return [axis, p];
      const axes = [...layout].filter(([, q]) => q.kind === "shard" && q.dim === p.dim).map(([a]) => a);
      return [axis, shard(p.dim, { padded: shape[p.dim] % degreeOf(axes, degrees) !== 0 })];
    }));
  }

  #check(parameter: State): void {
    const rule = this.#parameters.get(parameter.name), { degrees } = this.#mesh;
    for (const [axis, p] of Object.entries({ ...rule?.stored, ...rule?.used }) as [Axis, Placement][]) {
      if (p.kind !== "shard" || axis in SHARDED) continue;
      const units = rule?.units?.[p.dim] ?? parameter.shape[p.dim];
      if (units % degrees[axis] !== 0) {
        throw new LayoutError(
          `Cannot cut "${parameter.name}" over ${axis}: dim ${p.dim} of [${parameter.shape}] is ${units} parts that belong ` +
            `together, not a multiple of ${degrees[axis]}; change ${DEGREE_KEYS[axis]}, or the model's size`,
        );
      }
    }
  }
}

/** The rule of each name.
 * @throws {LayoutError} when a pattern matches none, or two match one. */
function matched<T extends { pattern: string }>(
  rules: readonly T[],
  names: readonly string[],
  what: string,
): Map<string, T> {
  const found = new Map<string, T>();
  for (const rule of rules) {
    const form = new RegExp(`^${rule.pattern.split("*").map((s) => s.replaceAll(".", "\\.")).join("[^.]*")}$`);
    const hits = names.filter((name) => form.test(name));
    if (hits.length === 0) {
      throw new LayoutError(
        `The plan's pattern "${rule.pattern}" matches no ${what}: expected one of ${names.slice(0, 8).join(", ")}` +
          `${names.length > 8 ? ", ..." : ""}; remove the pattern, or correct it`,
      );
    }
    for (const name of hits) {
      const other = found.get(name);
      if (other) {
        throw new LayoutError(
          `The plan's patterns "${other.pattern}" and "${rule.pattern}" both match ${what} "${name}": expected one; ` +
            `remove one of them, or make it narrower`,
        );
      }
      found.set(name, rule);
    }
  }
  return found;
}
