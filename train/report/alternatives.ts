/** What to change when a run does not fit into memory: other values of the configuration, each really planned.
 * @module */
import { degreeOf } from "../../graph/layout.ts";
import { BATCH_AXES, type Mesh } from "../../parallel/mesh.ts";
import type { Config } from "../config/config.ts";
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

/** Values of a key, each of which needs less than the one before. */
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

/** The same steps in smaller pieces. @param dataRanks ranks that share out a step's sequences. */
const batch = (dataRanks: number): Knob => (config) => {
  const { local_batch_size: from, global_batch_size: global } = config.training;
  const sequences = global < 0 ? from * dataRanks : global;
  return divisors(from).map((to) => ({
    text:
      `training.local_batch_size ${to} instead of ${from} (training.global_batch_size ${sequences}: the same steps)`,
    config: replaced(replaced(config, "training.local_batch_size", to), "training.global_batch_size", sequences),
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

/** Halves of a size of the step, down to a least one; batches of a step stay multiples of it. */
function halves(key: "seq_len" | "local_batch_size" | "global_batch_size", least: number): Knob {
  const of = key === "global_batch_size" ? least : 1;
  return (config) => {
    const from = config.training[key], changes: Change[] = [];
    for (let to = Math.floor(from / 2); to >= least && to % of === 0; to = Math.floor(to / 2)) {
      changes.push({
        text: `training.${key} ${to} instead of ${from}`,
        config: replaced(config, `training.${key}`, to),
      });
    }
    return changes;
  };
}

/** Shards of the states on more ranks, each with as much memory as one has now: from `least` times as many on, and up to eight times
 * that, as what steps take does not shrink with them. */
const shards = (mesh: Mesh, least: number): Knob => (config) => {
  const from = mesh.degrees.dp_shard, { local_batch_size: local, global_batch_size: global } = config.training;
  const others = mesh.size / from, rows = local * degreeOf(BATCH_AXES, mesh.degrees) / from;
  const first = Math.max(1, Math.ceil(Math.log2(least)));
  return [0, 1, 2, 3].map((i) => from * 2 ** (first + i))
    .filter((to) => global < 0 || global % (rows * to) === 0)
    .map((to) => ({
      text: `parallelism.data_parallel_shard_degree ${to} on ${others * to} ranks with this memory each`,
      config: replaced(config, "parallelism.data_parallel_shard_degree", to),
    }));
};

const checkpointing = choices("activation_checkpoint.mode", ["none", "selective", "full"]);
const stored = choices("training.dtype", ["float64", "float32", "bfloat16"]);

/** What alternatives are looked for with. */
export interface AlternativesOptions {
  /** Bytes that there are for each rank. */
  readonly limit: number;
  /** Parameters of the model. */
  readonly parameters: number;
  /** The ranks of the run. */
  readonly mesh: Mesh;
  /** What the configuration needs as it is. */
  readonly now: Need;
  /** Plans a configuration, which takes a second or so for a large model. */
  plan(config: Config): Need;
}

/** Configurations near this one that need no more than `limit` bytes; where there is none, those that come closest. */
export function alternatives(config: Config, options: AlternativesOptions): Alternative[] {
  const { limit, parameters, now } = options, search = new Search(options);
  if (now.stateBytes <= limit) return lighterSteps(config, search, options);
  return [
    ...smallerStates(config, search, options),
    smallerModel(now.stateBytes / parameters, limit, parameters),
  ];
}

/** Tries knobs, and keeps what they find. */
class Search {
  readonly #found: Alternative[] = [];
  readonly #options: AlternativesOptions;

  constructor(options: AlternativesOptions) {
    this.#options = options;
  }

  /** Finds the mildest change of a knob that fits, else takes the last if it needs less than `need`: changes need ever less, so that
   * halving finds it with few plans. @returns whether it helps. */
  turn(knob: Knob, base: Config, prefix: string, need: number): boolean {
    const { plan, limit } = this.#options, changes = knob(base), needs = new Map<Change, number>();
    const bytesOf = (change: Change): number => {
      if (!needs.has(change)) needs.set(change, plan(change.config).bytes);
      return needs.get(change)!;
    };
    let [low, high] = [0, changes.length - 1];
    if (high < 0 || bytesOf(changes[high]) >= need) return false;
    if (bytesOf(changes[high]) > limit) low = high;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (bytesOf(changes[middle]) <= limit) high = middle;
      else low = middle + 1;
    }
    this.#found.push({ change: prefix + changes[low].text, bytes: bytesOf(changes[low]) });
    return true;
  }

  /** Takes a combination of changes. */
  take(change: string, config: Config): void {
    this.#found.push({ change, bytes: this.#options.plan(config).bytes });
  }

  get fits(): boolean {
    return this.#found.some(({ bytes }) => bytes <= this.#options.limit);
  }

  /** All that fit, or the three that come closest. */
  get best(): Alternative[] {
    const fitting = this.#found.filter(({ bytes }) => bytes <= this.#options.limit);
    return fitting.length > 0 ? fitting : this.#found.toSorted((a, b) => a.bytes - b.bytes).slice(0, 3);
  }
}

/** The last changes of some knobs, one on top of the other. */
function strongest(config: Config, knobs: readonly Knob[]): { readonly base: Config; readonly prefix: string } {
  return knobs.reduce(({ base, prefix }, knob) => {
    const last = knob(base).at(-1);
    return last ? { base: last.config, prefix: `${prefix}${last.text}, ` } : { base, prefix };
  }, { base: config, prefix: "" });
}

/** Where states leave room for a step: first what leaves training as it is, each by itself and all together, then smaller steps. */
function lighterSteps(config: Config, search: Search, { now, mesh }: AlternativesOptions): Alternative[] {
  const dataRanks = degreeOf(BATCH_AXES, mesh.degrees);
  const precision = choices("training.mixed_precision_param", ["auto", "float32", "bfloat16"]);
  const gentle = [batch(dataRanks), validationBatch, checkpointing, precision];
  const { base, prefix } = strongest(config, gentle.filter((knob) => search.turn(knob, config, "", now.bytes)));
  if (!search.fits && prefix !== "") search.take(prefix.replace(/, $/, ""), base);
  if (search.fits) return search.best;
  const fewer: Knob = (from) => halves("global_batch_size", from.training.local_batch_size * dataRanks)(from);
  const harsh = [halves("seq_len", 128), fewer, stored, shards(mesh, 2)];
  for (const knob of harsh) search.turn(knob, config, "", now.bytes);
  if (!search.fits && prefix !== "") { for (const knob of harsh) search.turn(knob, base, prefix, now.bytes); }
  return search.best;
}

/** Where states alone are too large: another type, or more ranks, if need be with smaller steps. */
function smallerStates(config: Config, search: Search, { now, limit, mesh }: AlternativesOptions): Alternative[] {
  const more = shards(mesh, now.stateBytes / limit);
  const least = now.stateBytes / 4; // of f64 in bf16
  for (const knob of [...(least <= limit ? [stored] : []), more]) search.turn(knob, config, "", now.bytes);
  if (search.fits) return search.best;
  const { base, prefix } = strongest(config, [halves("local_batch_size", 1), checkpointing]);
  search.turn(more, base, prefix, now.bytes);
  return search.best;
}

/** How large a model may be. @param perParameter bytes of its states, divided by its parameters. */
function smallerModel(perParameter: number, limit: number, parameters: number): Alternative {
  const millions = (n: number) => (n / 1e6).toLocaleString("en-US", { maximumFractionDigits: 0 });
  const change = `a model of at most ${millions(limit / perParameter)} million parameters instead of ` +
    `${millions(parameters)} million (model.flavor, model.dim, model.n_layers), whose state alone`;
  return { change, bytes: limit };
}

/** Alternatives as lines; none where nothing helps. */
export function alternativeLines(list: readonly Alternative[], limit: number): string[] {
  return list.map(({ change, bytes }) =>
    `${change} needs ${bytesText(bytes)}${bytes <= limit ? "" : ", which is still too much"}`
  );
}
