/** What every graph must be: a list of named rules, checked behind every pass. Reading it tells what a graph may hold. One walk over
 * the nodes asks all rules, and what a node is by itself is asked once, as long as no pass makes it anew: so it costs little.
 * @module */
import { attributeFault, dependsOnRank } from "./attributes.ts";
import { Emitted, isOp, opOf } from "./builder.ts";
import { touchedStates } from "./edit.ts";
import { stateUse } from "./facts.ts";
import {
  type Graph,
  idCount,
  inBackward,
  type Level,
  type Node,
  numel,
  sameType,
  type State,
  type Type,
  typeText,
  type Value,
  wide,
} from "./ir.ts";
import { inferTypes } from "./op.ts";
import { nodeText } from "./print.ts";

/** What the walk has found so far. */
interface Facts {
  readonly graph: Graph;
  /** Declared states by name. */
  readonly states: () => ReadonlyMap<string, State>;
  /** Values by id, as soon as they are made: the first rule sees to that. */
  readonly made: (Value | undefined)[];
}

/** A fault in words; `undefined` where there is none. */
type Fault = string | undefined;

/** What is known of a node, as long as no pass makes it anew. */
interface Known {
  /** The level on which it was found to be in order by itself. */
  level?: Level;
  /** The states with which it was found to be in order. */
  states?: readonly State[];
  /** States that it touches. */
  readonly touched: readonly string[];
  /** What it makes right in its states. */
  readonly added: Value | undefined;
}

/** What is asked of the whole graph, of each node, in order, and then of the whole graph again. */
interface Checks {
  readonly begin?: () => Fault;
  readonly node?: (node: Node, known: Known) => Fault;
  readonly end?: () => Fault;
}

/** A rule of graphs. */
export interface Rule {
  readonly name: string;
  /** Levels that it holds on; default: all. */
  readonly levels?: readonly Level[];
  /** Asks about each node by itself: the answer stays the same as long as the node and the level do. */
  readonly own?: (node: Node) => Fault;
  /** Asks about nodes among others. */
  readonly among?: (facts: Facts) => Checks;
}

function first<T>(list: Iterable<T>, fault: (item: T) => Fault): Fault {
  for (const item of list) {
    const found = fault(item);
    if (found !== undefined) return found;
  }
}

/** The rules, of which the first that is broken is told. */
export const rules: readonly Rule[] = [
  {
    name: "a value is made once, under an id of its own, before it is used",
    among: ({ graph, made }) => ({
      begin: () =>
        first(graph.inputs, ({ value: v }) => {
          if (made[v.id] !== undefined) return `%${v.id} is two inputs`;
          made[v.id] = v;
        }),
      node: ({ inputs, outputs }) => {
        for (const v of inputs) if (made[v.id] !== v) return `%${v.id} is not there yet`;
        for (const v of outputs) {
          if (made[v.id] !== undefined) return `%${v.id} is ${made[v.id] === v ? "made again" : "another value"}`;
          made[v.id] = v;
        }
      },
      end: () =>
        first(graph.outputs, ({ name, value: v }) => made[v.id] === v ? undefined : `nothing makes output "${name}"`),
    }),
  },
  {
    name: "what modules give is made, too",
    among: ({ graph, made }) => ({
      end: () =>
        first(graph.activations, ({ name, value: v }) => made[v.id] === v ? undefined : `not what "${name}" gives`),
    }),
  },
  {
    name: "ops are those of the table",
    own: ({ op }) => isOp(op) ? undefined : `"${op}" is none`,
  },
  {
    name: "attributes are those of the op's schema",
    own: (node) => node instanceof Emitted ? undefined : attributeFault(opOf(node.op).attrs ?? {}, node.attrs),
  },
  {
    name: "output types follow from op, inputs and attributes",
    own: (node) => {
      if (node instanceof Emitted) return;
      let types: Type[];
      try {
        types = inferTypes(opOf(node.op), node.inputs, node.attrs);
      } catch (error) {
        return (error as Error).message;
      }
      const fits = types.length === node.outputs.length && types.every((t, i) => sameType(t, node.outputs[i]));
      return fits ? undefined : `expected ${types.map(typeText).join(", ")}`;
    },
  },
  {
    name: "dims are positive whole numbers",
    own: ({ outputs }) => {
      for (const v of outputs) {
        for (const d of v.shape) if (!(Number.isInteger(d) && d > 0)) return typeText(v);
      }
    },
  },
  {
    name: "forward reads nothing that backward makes",
    among: ({ made }) => {
      const late = new Uint8Array(made.length);
      let begun = false;
      return {
        node: (node) => {
          if (inBackward(node)) {
            begun = true;
            for (const v of node.outputs) late[v.id] = 1;
          } else if (begun) { for (const v of node.inputs) if (late[v.id]) return `%${v.id} is made in backward`; }
        },
      };
    },
  },
  {
    name: "a gradient and a moment say which parameter they belong to, an activation which slot",
    among: ({ graph, states }) => ({
      end: () =>
        ownersChecked.get(graph.states) === graph.level
          ? undefined
          : first(graph.states, ({ name, kind, of, block, shape }) => {
            if (kind === "activation") return of === undefined ? `"${name}" lies in no slot` : undefined;
            if (kind !== "gradient" && kind !== "moment") {
              return of === undefined ? undefined : `"${name}" is a ${kind}, and belongs to "${of}"`;
            }
            if (of === undefined) return `"${name}" belongs to none`;
            const parameter = states().get(of);
            if (!parameter) return;
            if (parameter.kind !== "parameter") return `"${name}" belongs to "${of}", which is a ${parameter.kind}`;
            if (parameter.block !== block) return `"${name}" is in another block than "${of}"`;
            const isWhole = graph.level !== "global" || String(shape) === String(parameter.shape);
            return isWhole ? undefined : `"${name}" has another shape than "${of}"`;
          }),
    }),
  },
  {
    name: "states are declared, and a value put into them has their type",
    among: ({ graph, states }) => ({
      node: (node, known) => {
        const { touched: names, added } = known;
        if (names.length === 0 || known.states === graph.states) return;
        const declared = states(), undeclared = names.find((name) => !declared.has(name));
        if (undeclared !== undefined) return `"${undeclared}" is not declared`;
        const value = added ?? (stateUse(node) === "reads" ? node.outputs[0] : node.inputs[0]);
        const touched = names.map((name) => declared.get(name)!), [{ dtype }] = touched;
        const size = touched.reduce((n, s) => n + numel(s.shape), 0);
        const fits = stateUse(node) === "adds" ? wide(value.dtype) === wide(dtype) : value.dtype === dtype;
        if (!fits || numel(value.shape) !== size) return `${typeText(value)} for ${touched.map(typeText).join(", ")}`;
        known.states = graph.states;
      },
    }),
  },
  {
    name: "a value added into state is not read",
    among: ({ graph, made }) => {
      const sums = new Uint8Array(made.length);
      let some = false;
      return {
        node: ({ inputs }, { added }) => {
          if (added) {
            some = true;
            sums[added.id] = 1;
          }
          if (some) { for (const v of inputs) if (sums[v.id]) return `%${v.id} lies in its sum`; }
        },
        end: () =>
          first(graph.outputs, ({ name, value }) => sums[value.id] ? `output "${name}" lies in its sum` : undefined),
      };
    },
  },
  {
    name: "no state is read after it was assigned",
    among: () => {
      const assigned = new Set<string>();
      return {
        node: (node, { touched }) => {
          const use = touched.length === 0 ? undefined : stateUse(node);
          if (use === "replaces") touched.forEach((s) => assigned.add(s));
          if (assigned.size === 0 || use !== "reads") return;
          const late = touched.find((s) => assigned.has(s));
          return late === undefined ? undefined : `"${late}" has a new value`;
        },
      };
    },
  },
  {
    name: "a graph of whole values knows of no ranks",
    levels: ["global"],
    own: ({ op, attrs }) => {
      const { attrs: schema = {} } = opOf(op);
      if (schema.axes) return "only ranks do that";
      return dependsOnRank(schema, attrs) ? "it depends on the rank" : undefined;
    },
  },
  {
    name: "in the graph of all ranks an exchange is among those of some axes, and the group is still open",
    levels: ["ranks"],
    own: ({ op, attrs }) => {
      if (attrs.group !== undefined) return "it has a group already";
      return opOf(op).together && attrs.axes === undefined ? "it has no axes" : undefined;
    },
  },
  {
    name: "in the graph of one rank an exchange has its group, and nothing else depends on the rank",
    levels: ["rank", "placed"],
    own: ({ op, attrs }) => {
      const { together, attrs: schema = {} } = opOf(op), { group, size } = attrs;
      if (together && group === undefined) return "it has no group";
      if (together && (group as readonly number[]).length !== size) return `its group is not of ${size} ranks`;
      return !together && schema.axes || dependsOnRank(schema, attrs) ? "it depends on the rank" : undefined;
    },
  },
];

const known = new WeakMap<Node, Known>(), verified = new WeakSet<Graph>();
/** The level on which the owners of states were found to be in order. */
const ownersChecked = new WeakMap<readonly State[], Level>();

function knownOf(node: Node): Known {
  const noted = node instanceof Emitted ? node.notes as Known | undefined : known.get(node);
  if (noted) return noted;
  const added = node.attrs.into === undefined ? undefined : node.outputs[opOf(node.op).into ?? -1];
  const found: Known = { level: undefined, states: undefined, touched: touchedStates(node), added };
  if (node instanceof Emitted) node.notes = found;
  else known.set(node, found);
  return found;
}

/** Checks a graph against all rules and returns it.
 * @throws {Error} naming the graph, the rule and the node. */
export function verify(graph: Graph): Graph {
  if (verified.has(graph)) return graph;
  const { level } = graph, made = new Array<Value | undefined>(idCount(graph)).fill(undefined);
  let byName: Map<string, State> | undefined;
  const states = () => byName ??= new Map(graph.states.map((s) => [s.name, s]));
  const facts: Facts = { graph, states, made };
  const here = rules.filter((r) => r.levels === undefined || r.levels.includes(level));
  const own = here.filter((r) => r.own),
    among = here.filter((r) => r.among).map((r) => ({ rule: r, ...r.among!(facts) }));
  const asked = among.filter((r) => r.node);
  const refuse = ({ name }: Rule, fault: string, node?: Node): never => {
    const at = node === undefined ? "" : ` in ${nodeText(node)}`;
    throw new Error(`Invalid graph "${graph.name}": ${name}: ${fault}${at}`);
  };
  for (const { rule, begin } of among) {
    const fault = begin?.();
    if (fault !== undefined) refuse(rule, fault);
  }
  for (const node of graph.nodes) {
    const all = knownOf(node);
    if (all.level !== level) {
      for (const rule of own) {
        const fault = rule.own!(node);
        if (fault !== undefined) refuse(rule, fault, node);
      }
      all.level = level;
    }
    for (let k = 0; k < asked.length; k++) {
      const fault = asked[k].node!(node, all);
      if (fault !== undefined) refuse(asked[k].rule, fault, node);
    }
  }
  for (const { rule, end } of among) {
    const fault = end?.();
    if (fault !== undefined) refuse(rule, fault);
  }
  ownersChecked.set(graph.states, level);
  verified.add(graph);
  return graph;
}
