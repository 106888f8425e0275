/** The plan: which parameter, gradient sum and activation lies how on the mesh. A plan is a short list of patterns; bound to a mesh
 * and the graphs of a step, it gives every state and input its layout.
 * @module */
import { type DimRole, gradientOf, type Graph, type Input, type State, type StateKind } from "../graph/ir.ts";
import {
  axesOfDim,
  degreeOf,
  type Layout,
  LayoutError,
  layoutOf,
  paddedAxes,
  partial,
  type Placement,
  replicate,
  shard,
} from "../graph/layout.ts";
import type { ModelPlan, ParameterRole } from "../graph/roles.ts";
import { AXES, type Axis, BATCH_AXES, DEGREE_KEYS, layoutTextOn, type Mesh } from "./mesh.ts";

/** Placements by axis; what is left out stays as it is without the rule. */
export type Placements = Readonly<Partial<Record<Axis, Placement>>>;

/** Layouts of the parameters of a name. In a pattern, `*` stands for any part between dots. */
export interface ParameterRule {
  readonly pattern: string;
  /** Between steps; moments lie alike. Without a rule, dim 0 is sharded over `dp_shard` and `cp`; where `ep` takes some
   * of their ranks, the others cut the first dim that they cut evenly. */
  readonly stored?: Placements;
  /** Where a product takes it. Without a rule, whole. */
  readonly used?: Placements;
  /** Its gradient sum. Without a rule, as it is stored, and over `dp_replicate` what each rank has added up. */
  readonly gradient?: Placements;
  /** Dims that are so many equal parts which belong together. */
  readonly parts?: Readonly<Record<number, number>>;
}

/** Layout of the results of modules, named by path. */
export interface ActivationRule {
  readonly pattern: string;
  readonly layout: Placements;
}

/** Layouts of the caches of a name. Without a rule they are whole. */
export interface CacheRule {
  readonly pattern: string;
  readonly layout: Placements;
  /** Dims that are so many equal parts which belong together. */
  readonly parts: Readonly<Record<number, number>>;
}

/** A plan. Only tensor and expert parallelism need rules. */
export interface Plan {
  readonly parameters: readonly ParameterRule[];
  readonly caches: readonly CacheRule[];
  readonly activations: readonly ActivationRule[];
  /** The residual stream: what its dims count, and where its partial values of more than one use are resolved to on axes other than
   * those of the data. */
  readonly residual: { readonly roles: readonly DimRole[]; readonly layout: Placements };
}

/** Choices of tensor parallelism. */
export interface PlanOptions {
  /** Is the residual stream sharded along the sequence between the products? Default true. */
  readonly sequenceParallel?: boolean;
  /** Do logits stay sharded by vocabulary in the loss? Default true. */
  readonly lossParallel?: boolean;
}

/** The axes that share out what a dim counts. */
const DATA_AXES: Readonly<Record<DimRole, readonly Axis[]>> = { batch: BATCH_AXES, sequence: ["cp"], features: [] };
/** Where parameters are without a word; a scalar has no dim 0 and is whole. */
const SHARDED: Placements = { dp_shard: shard(0), cp: shard(0) };
/** What each data rank has added up for itself: losses, counts, and gradients that are not sharded. */
const SUMMANDS: Placements = { dp_replicate: partial(), dp_shard: partial(), cp: partial() };
/** The order in which axes cut a parameter: those of its use first, so that a gather over the others gives what a rank uses. */
const PARAMETER_ORDER: readonly Axis[] = ["tp", "ep", "dp_replicate", "dp_shard", "cp"];

/** Where data axes put a value whose dims count this. */
function dataPlacements(roles: readonly DimRole[]): Placements {
  return Object.fromEntries(roles.flatMap((role, dim) => DATA_AXES[role].map((axis) => [axis, shard(dim)])));
}

/** The plan of a model that names its roles. */
export function planOf(model: ModelPlan, options: PlanOptions = {}): Plan {
  const { sequenceParallel = true, lossParallel = true } = options;
  const rule = ({ pattern, role, parts }: ParameterRole): ParameterRule => {
    const dim = role === "row" ? 1 : 0, cut = { [role === "expert" ? "ep" : "tp"]: shard(dim) };
    return { pattern, stored: cut, used: cut, gradient: cut, parts: { [dim]: parts } };
  };
  const roles = model.residual, sequence = sequenceParallel ? roles.indexOf("sequence") : -1;
  return {
    parameters: model.parameters.map(rule),
    caches: model.caches?.map(({ pattern, parts }) => ({ pattern, layout: { tp: shard(2) }, parts: { 2: parts } })) ??
      [],
    activations: lossParallel ? [] : [{ pattern: model.logits, layout: { tp: replicate } }],
    residual: { roles, layout: sequence < 0 ? {} : { tp: shard(sequence) } },
  };
}

/** The plan of a model that names nothing: data axes alone. */
export const dataPlan: Plan = { parameters: [], caches: [], activations: [], residual: { roles: [], layout: {} } };

/** What pass `partition` asks. Layouts are over the factors of a mesh. */
export interface Layouts {
  /** Layout of a state. */
  state(state: State): Layout;
  /** Layout in which a parameter is used. */
  used(parameter: State): Layout;
  /** Layout of an input. */
  input(input: Input): Layout;
  /** Placements asked for the result of a module; where none is, the rules decide. */
  activation(module: string): Layout;
  /** Where partial values with several uses are resolved to, by what their dims count. */
  residual(roles: readonly DimRole[]): Layout;
}

/** A plan on a mesh, for the graphs of a step. */
export class BoundPlan implements Layouts {
  /** Global states by name, those of all graphs. */
  readonly states: ReadonlyMap<string, State>;
  readonly #plan: Plan;
  readonly #mesh: Mesh;
  readonly #parameters: ReadonlyMap<string, ParameterRule>;
  readonly #caches: ReadonlyMap<string, CacheRule>;
  readonly #activations: ReadonlyMap<string, ActivationRule>;

  /** @throws {LayoutError} when a pattern matches nothing, a name is matched twice, or what belongs together would be cut. */
  constructor(plan: Plan, mesh: Mesh, graphs: readonly Graph[]) {
    this.#plan = plan;
    this.#mesh = mesh;
    this.states = new Map(graphs.flatMap((g) => g.states).map((s) => [s.name, s]));
    const named = (kind: StateKind) => [...this.states.values()].filter((s) => s.kind === kind).map((s) => s.name);
    const parameters = named("parameter"), caches = named("cache");
    const modules = new Set(graphs.flatMap((g) => g.activations).map((a) => a.name));
    this.#parameters = matched(plan.parameters, parameters, "parameter");
    this.#activations = matched(plan.activations, [...modules], "module");
    // A step of training keeps nothing.
    this.#caches = caches.length > 0 ? matched(plan.caches, caches, "cache") : new Map();
    for (const [name, { stored, used, parts }] of this.#parameters) this.#check(name, { ...stored, ...used }, parts);
    for (const [name, { layout, parts }] of this.#caches) this.#check(name, layout, parts);
  }

  state(state: State): Layout {
    const rule = this.#parameters.get(state.of ?? state.name);
    if (state.kind === "activation") return this.residual(state.roles ?? []);
    if (state.kind === "sum") return this.#layout(SUMMANDS, AXES);
    if (state.kind === "cache") return this.#layout(this.#caches.get(state.name)?.layout ?? {}, AXES);
    const sharded = state.shape.length === 0 ? {} : this.#sharded(state.shape, rule);
    const placements = state.kind === "gradient"
      ? { ...SUMMANDS, ...sharded, ...rule?.gradient }
      : { ...sharded, ...rule?.stored };
    return this.#padded(state.shape, placements);
  }

  used(parameter: State): Layout {
    return this.#layout(this.#parameters.get(parameter.name)?.used ?? {}, PARAMETER_ORDER);
  }

  /** What counts sequences and tokens is shared out; learning rates and seeds are everybody's. */
  input({ roles = [] }: Input): Layout {
    return this.#layout(dataPlacements(roles), AXES);
  }

  activation(module: string): Layout {
    return this.#placed(this.#activations.get(module)?.layout ?? {}, AXES);
  }

  residual(roles: readonly DimRole[]): Layout {
    const { residual } = this.#plan, isStream = String(roles) === String(residual.roles);
    return this.#layout({ ...dataPlacements(roles), ...(isStream ? residual.layout : {}) }, AXES);
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
      residual: (roles) => this.residual(roles),
    };
  }

  /** One line for each parameter: its layouts stored, used, and of its gradient sum. */
  toString(): string {
    return [...this.states.values()].filter((s) => s.kind === "parameter").map((s) => {
      const [stored, used, gradient] = [this.state(s), this.used(s), this.state(gradientOf(s))]
        .map((layout) => layoutTextOn(this.#mesh, layout));
      return `${s.name} [${s.shape}]: stored ${stored}; used ${used}; gradient ${gradient}\n`;
    }).join("");
  }

  /** Placements by factor: of axes that share one, the first in the order has it. */
  #placed(placements: Placements, order: readonly Axis[]): Layout {
    const placed = new Map<string, Placement>();
    for (const axis of order) {
      const factors = placements[axis] ? this.#mesh.factorsOf(axis).filter((factor) => !placed.has(factor)) : [];
      factors.forEach((factor) => placed.set(factor, placements[axis]!));
    }
    return placed;
  }

  #layout(placements: Placements, order: readonly Axis[]): Layout {
    return layoutOf(this.#placed(placements, order), this.#mesh.factors);
  }

  /** Where data axes put a parameter. Of experts, the ranks of `ep` among them have different ones, and the others cut the first dim that
   * they cut evenly. */
  #sharded(shape: readonly number[], rule?: ParameterRule): Placements {
    const { stored: { ep } = {} } = rule ?? {}, { degrees } = this.#mesh;
    if (ep?.kind !== "shard") return SHARDED;
    const others = degrees.dp_shard * degrees.cp / degrees.ep;
    const even = shape.findIndex((size, dim) => (dim === ep.dim ? size / degrees.ep : size) % others === 0);
    return { dp_shard: shard(Math.max(0, even)), cp: shard(Math.max(0, even)) };
  }

  /** Data axes that do not cut a dim evenly cut it at one go, with padding. */
  #padded(shape: readonly number[], placements: Placements): Layout {
    const layout = this.#layout(placements, PARAMETER_ORDER), { factors } = this.#mesh;
    const inUse = (["tp", "ep"] as const).filter((axis) => placements[axis]);
    const even = new Set(inUse.flatMap((axis) => this.#mesh.factorsOf(axis)));
    return new Map([...layout].map(([factor, p]) => {
      if (p.kind !== "shard" || even.has(factor)) return [factor, p];
      return [factor, shard(p.dim, { padded: shape[p.dim] % degreeOf(axesOfDim(layout, p.dim), factors) !== 0 })];
    }));
  }

  #check(name: string, placements: Placements, parts: ParameterRule["parts"]): void {
    const { shape } = this.states.get(name)!, { degrees } = this.#mesh;
    for (const [axis, p] of Object.entries(placements) as [Axis, Placement][]) {
      if (p.kind !== "shard" || axis in SHARDED) continue;
      const count = parts?.[p.dim] ?? shape[p.dim];
      if (count % degrees[axis] !== 0) {
        throw new LayoutError(
          `Cannot cut "${name}" over ${axis}: dim ${p.dim} of [${shape}] is ${count} parts that belong ` +
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
