/** What the planner lets one choose: fields that stand for flags of the command line, so that a choice is a command, a TOML file and the
 * part of an address behind its `#`, all the same.
 * @module */
import { flavors } from "../../model/families.ts";
import { AXES, DEGREE_KEYS } from "../../parallel/mesh.ts";

/** A field. */
export interface Field {
  /** The flag that it stands for. */
  readonly flag: string;
  readonly label: string;
  /** What it says at first; "" leaves the flag out. */
  readonly value: string;
  /** The only values that it takes. */
  readonly options?: readonly string[];
  /** Where there are none: a number, or text. */
  readonly kind?: "number" | "text";
}

/** Fields under a heading. */
export interface Group {
  readonly name: string;
  readonly fields: readonly Field[];
}

const DEGREES: Readonly<Record<string, string>> = { dp_shard: "8" };

/** The field of flags that have none of their own. */
export const OTHERS = "others";

/** All fields. */
export const groups: readonly Group[] = [
  {
    name: "Model",
    fields: [
      { flag: "model.flavor", label: "flavor", value: "8B", options: flavorOptions() },
      { flag: "model.n_layers", label: "layers, where not its own", value: "", kind: "number" },
    ],
  },
  {
    name: "Mesh",
    fields: AXES.map((axis) => ({
      flag: DEGREE_KEYS[axis],
      label: axis,
      value: DEGREES[axis] ?? "1",
      kind: "number" as const,
    })),
  },
  {
    name: "Pipeline",
    fields: [
      {
        flag: "parallelism.pipeline_parallel_schedule",
        label: "schedule",
        value: "1F1B",
        options: [
          "GPipe",
          "1F1B",
          "Interleaved1F1B",
          "LoopedBFS",
          "InterleavedZeroBubble",
          "ZBVZeroBubble",
          "DualPipeV",
        ],
      },
    ],
  },
  {
    name: "Step",
    fields: [
      { flag: "training.seq_len", label: "tokens of a sequence", value: "8192", kind: "number" },
      { flag: "training.local_batch_size", label: "sequences of a data rank", value: "1", kind: "number" },
      {
        flag: "training.global_batch_size",
        label: "sequences of a step (-1: the fewest)",
        value: "-1",
        kind: "number",
      },
    ],
  },
  {
    name: "Numbers and memory",
    fields: [
      {
        flag: "training.mixed_precision_param",
        label: "products",
        value: "bfloat16",
        options: ["bfloat16", "float32"],
      },
      { flag: "training.dtype", label: "parameters", value: "float32", options: ["float32", "bfloat16"] },
      {
        flag: "activation_checkpoint.mode",
        label: "made again in backward",
        value: "selective",
        options: ["none", "selective", "full", "memory_budget"],
      },
      {
        flag: "activation_checkpoint.memory_budget",
        label: "of a memory budget",
        value: "0.5",
        kind: "text",
      },
    ],
  },
  {
    name: "Device",
    fields: [
      { flag: "device-memory", label: "memory", value: "80GB", kind: "text" },
      { flag: "device-tflops", label: "TFLOP a second, in practice", value: "400", kind: "text" },
      { flag: "device-bandwidth", label: "speed of its memory", value: "3TB/s", kind: "text" },
      { flag: "link", label: "speed of its links", value: "tp=450GB/s,400Gb/s", kind: "text" },
      { flag: "tokens", label: "tokens of the run", value: "1T", kind: "text" },
    ],
  },
  {
    name: "Any other flags",
    fields: [{ flag: OTHERS, label: "as on the command line", value: "", kind: "text" }],
  },
];

/** The larger first: those for tests come last. */
function flavorOptions(): readonly string[] {
  const names = flavors.filter((flavor) => flavor.startsWith("llama3/")).map((flavor) => flavor.replace(/^.*\//, ""));
  return names.filter((name) => /^\d/.test(name)).concat(names.filter((name) => !/^\d/.test(name)));
}

/** What is in the fields, by flag. */
export type Choice = Readonly<Record<string, string>>;

const fields = groups.flatMap((group) => group.fields);

/** What the fields say at first. */
export const standard: Choice = Object.fromEntries(fields.map(({ flag, value }) => [flag, value]));

/** A choice as arguments of `train`. What has no effect on it is left out. */
export function argumentsOf(choice: Choice): string[] {
  const idle = [
    ...(choice[DEGREE_KEYS.pp] === "1" ? ["parallelism.pipeline_parallel_schedule"] : []),
    ...(choice["activation_checkpoint.mode"] === "memory_budget" ? [] : ["activation_checkpoint.memory_budget"]),
  ];
  const flags = fields.filter(({ flag }) => flag !== OTHERS && choice[flag] !== "" && !idle.includes(flag));
  const others = (choice[OTHERS] ?? "").split(/\s+/).filter((word) => word !== "");
  return [...flags.map(({ flag }) => `--${flag}=${choice[flag]}`), ...others];
}

/** A choice as the part of an address behind `#`: what differs from the standard. */
export function addressOf(choice: Choice): string {
  const changed = fields.filter(({ flag, value }) => choice[flag] !== value);
  return new URLSearchParams(changed.map(({ flag }) => [flag, choice[flag]])).toString();
}

/** The choice that an address holds; what it does not name, or is no value of a field, is the standard's. */
export function choiceOf(address: string): Choice {
  const said = new URLSearchParams(address.replace(/^#/, ""));
  return Object.fromEntries(fields.map(({ flag, value, options }) => {
    const given = said.get(flag);
    return [flag, given === null || (options && !options.includes(given)) ? value : given];
  }));
}
