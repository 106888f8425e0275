/** How a model is cut into the stages of a pipeline: which blocks, and which parameters outside of blocks, each stage is given. Rule and
 * keys are torchtitan's.
 * @module */
import { LayoutError } from "../../graph/layout.ts";
import type { State } from "../../graph/ir.ts";

/** The cut of a model. */
export interface Stages {
  readonly count: number;
  /** The stage of a block. */
  ofBlock(block: string): number;
  /** The stage that was asked for a parameter; none where the flow of data decides. */
  ofParameter(name: string): number | undefined;
}

/** What decides it. */
export interface StageOptions {
  readonly count: number;
  /** Blocks that what comes before the first one counts for; default 1. */
  readonly firstLess?: number;
  /** Blocks that what comes behind the last one counts for; default 1. */
  readonly lastLess?: number;
  /** By stage, the paths of its modules; without it, blocks are shared out evenly. */
  readonly modules?: readonly (readonly string[])[];
}

const KEYS = {
  degree: "parallelism.pipeline_parallel_degree",
  layers: "parallelism.pipeline_parallel_layers_per_stage",
  first: "parallelism.pipeline_parallel_first_stage_less_layers",
  last: "parallelism.pipeline_parallel_last_stage_less_layers",
  modules: "parallelism.module_fqns_per_model_part",
} as const;

/** Blocks of each stage: with what comes before and behind them counted as so many more, all stages have equally many, the first ones one
 * more where it does not divide. Source: torchtitan, `generate_llm_fqn_per_model_part`.
 * @throws {LayoutError} when there are more stages than blocks, or fewer on a stage than it is to have less. */
export function blocksPerStage(blocks: number, { count, firstLess = 1, lastLess = 1 }: StageOptions): number[] {
  if (count === 1) return [blocks];
  const all = blocks + firstLess + lastLess, base = Math.floor(all / count), extra = all % count;
  const refuse = (what: string) => {
    throw new LayoutError(
      `Cannot cut ${blocks} blocks into ${count} stages: ${what}; change ${KEYS.degree}, ${KEYS.layers}, ${KEYS.first} ` +
        `or ${KEYS.last}`,
    );
  };
  if (count > all) refuse(`expected at most ${all}, as many as there are blocks and what counts as blocks`);
  for (const [key, less] of [[KEYS.first, firstLess], [KEYS.last, lastLess]] as const) {
    if (less > base) refuse(`a stage has ${base}, and ${key} is ${less}; expected at most ${base}`);
  }
  return Array.from({ length: count }, (_, i) => {
    const less = (i === 0 ? firstLess : 0) + (i === count - 1 ? lastLess : 0);
    return base + (i < extra ? 1 : 0) - less;
  });
}

/** Cuts a model.
 * @param parameters the states of its parameters, in the order of the model.
 * @throws {LayoutError} when it cannot be cut so: too few blocks, or modules that are missing, unknown or named twice. */
export function stagesOf(parameters: readonly State[], options: StageOptions): Stages {
  const blocks = [...new Set(parameters.flatMap((s) => s.block ?? []))], { count, modules } = options;
  if (modules) return namedStages(parameters, blocks, modules);
  const sizes = blocksPerStage(blocks.length, options);
  const byBlock = new Map(sizes.flatMap((n, stage) => Array<number>(n).fill(stage)).map((s, i) => [blocks[i], s]));
  return { count, ofBlock: (block) => byBlock.get(block)!, ofParameter: () => undefined };
}

/** The cut that a list of modules says. */
function namedStages(
  parameters: readonly State[],
  blocks: readonly string[],
  modules: readonly (readonly string[])[],
): Stages {
  const refuse = (what: string) => {
    throw new LayoutError(`Cannot cut the model as ${KEYS.modules} says: ${what}`);
  };
  const stageOf = new Map<string, number>();
  for (const [stage, paths] of modules.entries()) {
    for (const path of paths) {
      const before = stageOf.get(path);
      if (before !== undefined) {
        refuse(`"${path}" is in stages ${before} and ${stage}; expected each module once; remove one`);
      }
      const isKnown = blocks.includes(path) || parameters.some(({ name }) => isWithin(name, path));
      if (!isKnown) {
        const known = new Set(parameters.map(moduleOf));
        refuse(`there is no "${path}"; expected one of ${[...known].join(", ")}; correct it`);
      }
      stageOf.set(path, stage);
    }
  }
  const found = (name: string) => [...stageOf].find(([path]) => isWithin(name, path))?.[1];
  const missing = blocks.find((block) => !stageOf.has(block)) ??
    parameters.find(({ name, block }) => block === undefined && found(name) === undefined)?.name;
  if (missing !== undefined) refuse(`no stage has "${missing}"; expected every module in one; add it`);
  return {
    count: modules.length,
    ofBlock: (block) => stageOf.get(block)!,
    ofParameter: (name) => parameters.find((s) => s.name === name)?.block === undefined ? found(name) : undefined,
  };
}

/** The block of a parameter, or the module that it lies in outside of blocks: `layers.0`, `tok_embeddings`. */
export function moduleOf({ name, block }: Pick<State, "name" | "block">): string {
  return block ?? (name.includes(".") ? name.slice(0, name.lastIndexOf(".")) : name);
}

/** Modules in a line, those that are numbered one after another as one: `tok_embeddings layers.0-2`. */
export function modulesText(modules: readonly string[]): string {
  const runs: { readonly stem: string; readonly first: string; last: string }[] = [];
  for (const name of modules) {
    const [, stem, number] = /^(.*?)(\d+)$/.exec(name) ?? [, name, ""], run = runs.at(-1);
    if (number !== "" && run?.stem === stem && Number(number) === Number(run.last) + 1) run.last = number;
    else runs.push({ stem, first: number, last: number });
  }
  return runs.map(({ stem, first, last }) => `${stem}${first}${last === first ? "" : `-${last}`}`).join(" ");
}

/** Does a module's path lead to a parameter of this name? */
const isWithin = (name: string, path: string): boolean => name === path || name.startsWith(`${path}.`);

/** How many stages there are: as many as are asked for, or as blocks on each need; else one on each rank, or two where the schedule has
 * several.
 * @throws {LayoutError} when ranks cannot have equally many, or not so many as the schedule does with. */
export function stageCount(
  { ranks, several, blocks, perStage, firstLess = 1, lastLess = 1, modules }: {
    readonly ranks: number;
    /** Does the schedule have several stages on each rank? */
    readonly several: boolean;
    readonly blocks: number;
    readonly perStage?: number;
    readonly firstLess?: number;
    readonly lastLess?: number;
    readonly modules?: number;
  },
): number {
  const count = modules ??
    (perStage === undefined ? ranks * (several ? 2 : 1) : Math.ceil((blocks + firstLess + lastLess) / perStage));
  const key = modules === undefined ? `${KEYS.layers} ${perStage}` : KEYS.modules;
  const fix = `change ${modules === undefined ? KEYS.layers : KEYS.modules} or parallelism.pipeline_parallel_schedule`;
  if (count % ranks !== 0) {
    throw new LayoutError(`${key} makes ${count} stages: expected a multiple of ${KEYS.degree} ${ranks}; ${fix}`);
  }
  const each = count / ranks;
  if (several ? each < 2 : each !== 1) {
    const expected = several ? "at least two" : "one";
    throw new LayoutError(`${key} makes ${each} stages on each rank: expected ${expected} for the schedule; ${fix}`);
  }
  return count;
}
