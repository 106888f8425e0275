/** What to change when a run does not fit into memory: other values of the configuration, each really planned.
 * @module */
import type { Config } from "./config.ts";
import { bytesText } from "./plan_report.ts";

/** Memory of a configuration, in bytes. */
export interface Need {
  /** Of the whole run. */
  readonly bytes: number;
  /** Of that, parameters, gradient sums and moments. */
  readonly stateBytes: number;
}

/** A changed configuration, and what it needs. */
export interface Alternative {
  /** Keys with their values, for people. */
  readonly change: string;
  readonly bytes: number;
}

interface Change {
  readonly text: string;
  readonly config: Config;
}

/** Ever stronger values of a key. */
type Knob = (config: Config) => Change[];

/** A configuration with one value replaced. */
function replaced(config: Config, name: string, value: unknown): Config {
  const [section, key] = name.split(".");
  return { ...config, [section]: { ...config[section as keyof Config], [key]: value } };
}

/** A key's value; undefined where this version has no such key. */
function valueOf(config: Config, name: string): unknown {
  const [section, key] = name.split(".");
  return (config as unknown as Record<string, Record<string, unknown> | undefined>)[section]?.[key];
}

/** Numbers below `from` that divide it, largest first. */
function divisors(from: number): number[] {
  return Array.from({ length: Math.floor(from / 2) }, (_, i) => i + 1).filter((n) => from % n === 0).reverse();
}

/** The same steps in smaller pieces. */
const batch: Knob = (config) => {
  const { local_batch_size: from, global_batch_size: global } = config.training, whole = global < 0 ? from : global;
  return divisors(from).map((to) => ({
    text: `training.local_batch_size ${to} instead of ${from} (training.global_batch_size ${whole}: the same steps)`,
    config: replaced(replaced(config, "training.local_batch_size", to), "training.global_batch_size", whole),
  }));
};

/** Smaller batches of held-out text. */
const validationBatch: Knob = (config) => {
  const { enable, local_batch_size: from } = config.validation;
  return divisors(enable ? from : 1).map((to) => ({
    text: `validation.local_batch_size ${to} instead of ${from}`,
    config: replaced(config, "validation.local_batch_size", to),
  }));
};

/** Values of a key, of which those stronger than the present one are tried. */
function choices(name: string, values: readonly string[]): Knob {
  return (config) => {
    const now = valueOf(config, name);
    if (now === undefined) return [];
    return values.slice(values.indexOf(String(now)) + 1).map((value) => ({
      text: `${name} "${value}" instead of "${now}"`,
      config: replaced(config, name, value),
    }));
  };
}

/** Halves of a number, down to a least one. */
function halves(name: string, least: number, present: (config: Config) => number): Knob {
  return (config) => {
    const from = present(config), changes: Change[] = [];
    for (let to = Math.floor(from / 2); to >= least; to = Math.floor(to / 2)) {
      changes.push({ text: `${name} ${to} instead of ${from}`, config: replaced(config, name, to) });
    }
    return changes;
  };
}

/** They leave what is trained as it is. */
const gentle: readonly Knob[] = [
  batch,
  validationBatch,
  choices("activation_checkpoint.mode", ["none", "selective", "full"]),
  choices("training.mixed_precision_param", ["auto", "float32", "bfloat16"]),
];

/** They train something else. @param numLayers those of the model. */
const harsh = (numLayers: number): readonly Knob[] => [
  halves("training.seq_len", 128, (config) => config.training.seq_len),
  choices("training.dtype", ["float64", "float32", "bfloat16"]),
  halves("model.n_layers", 1, () => numLayers),
];

/** Configurations near this one that need no more than `limit` bytes; where there is none, those that come closest.
 * @param options `plan` a configuration, which takes a second or so for a large model; `numLayers` of its model. */
export function alternatives(
  config: Config,
  options: { readonly limit: number; readonly numLayers: number; plan(config: Config): Need },
): Alternative[] {
  const { limit, numLayers, plan } = options, now = plan(config);
  const found: Alternative[] = [];
  /** The mildest value that fits, else the one that helps most. */
  const turn = (knob: Knob, base: Config, prefix: string, need: number): Change | undefined => {
    let best: Change & { bytes: number } | undefined;
    for (const change of knob(base)) {
      const { bytes } = plan(change.config);
      if (bytes < (best?.bytes ?? need)) best = { ...change, bytes };
      if (bytes <= limit) break;
    }
    if (best) found.push({ change: prefix + best.text, bytes: best.bytes });
    return best;
  };
  const fitting = () => found.filter(({ bytes }) => bytes <= limit);

  let base = config, prefix = "";
  if (now.stateBytes <= limit) {
    for (const knob of gentle) {
      const best = turn(knob, config, "", now.bytes);
      if (!best) continue;
      const last = knob(base).at(-1)!;
      [base, prefix] = [last.config, `${prefix}${last.text}, `];
    }
    if (fitting().length === 0 && prefix !== "") {
      found.push({ change: prefix.replace(/, $/, ""), bytes: plan(base).bytes });
    }
  }
  if (fitting().length === 0) {
    const need = plan(base).bytes;
    for (const knob of harsh(numLayers)) turn(knob, base, prefix, need);
  }
  const fits = fitting();
  return fits.length > 0 ? fits : found.toSorted((a, b) => a.bytes - b.bytes).slice(0, 3);
}

/** Alternatives as lines; none where nothing helps. */
export function alternativeLines(list: readonly Alternative[], limit: number): string[] {
  return list.map(({ change, bytes }) =>
    `${change} needs ${bytesText(bytes)}${bytes <= limit ? "" : ", which is still too much"}`
  );
}
