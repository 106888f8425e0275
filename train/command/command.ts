/** The command line: a config becomes a run, and errors become one clear message.
 * @module */
import { DataError } from "../../data/error.ts";
import { TitanError } from "../../ffi/error.ts";
import { LibraryError } from "../../ffi/library.ts";
import { MemoryBudgetError } from "../../graph/passes/remat_search.ts";
import { partOf } from "../../launch/hosts.ts";
import { followLauncher } from "../../launch/stop.ts";
import { LaunchError, worldOf } from "../../launch/world.ts";
import { follows, isLast } from "../../launch/rank_output.ts";
import { AgreementError } from "../agreement.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import { ConfigError, helpText, loadConfig, meshOf, shownFile, tomlText } from "../config/config.ts";
import { printMeshPlan, printPlan } from "./dry_run.ts";
import { GenerateError } from "../generate/error.ts";
import { MemoryError } from "../machine_memory.ts";
import { QuietConsole } from "./quiet_console.ts";
import { RankConsole } from "./rank_console.ts";
import { SteadyConsole } from "./steady_console.ts";
import { DivergedError } from "../step_program.ts";
import { numRanks, shownRanks, startRanks } from "./start_ranks.ts";
import { enterWorkingFolder } from "./working_folder.ts";
import { openFolder, warn } from "./run_folder.ts";
import { run } from "./run.ts";

/** Errors that say all there is to say. */
const KNOWN = [
  ...[
    ConfigError,
    DataError,
    LibraryError,
    TitanError,
    CheckpointError,
    MemoryError,
    MemoryBudgetError,
    DivergedError,
    LaunchError,
    AgreementError,
    GenerateError,
  ],
];

/** The file of the default run. */
const STANDARD = new URL("../../configs/debug.toml", import.meta.url).href;

/** Milliseconds that a rank which fails because of another leaves to that one, to say why: mpirun ends all with the first that ends. */
const FOLLOW_MS = 4000;

/** Runs the command line and returns the exit code: 0, 1 after an error, 128 + n when signal n stopped the run.
 * @param args as `Deno.args`; without a config file, `configs/debug.toml` is read. */
export async function main(args: readonly string[]): Promise<number> {
  using stack = new DisposableStack();
  try {
    enterWorkingFolder();
    const found = worldOf(), world = found?.size === 1 ? undefined : found;
    const rankConsole = world && stack.use(new RankConsole(world.rank));
    if (world) followLauncher(world);
    const named = args.some((a) => /^--(config|job[._-]config[_-]file)(=|$)/.test(a));
    const defaults = named ? [] : ["--config", STANDARD];
    const { config, warnings, ...asked } = await loadConfig([...defaults, ...args], readText);
    const nproc = asked.hosts?.reduce((all, { ranks }) => all + ranks, 0) ?? asked.nproc;
    const size = asked.dryRun ? 1 : numRanks(world?.size, nproc);
    const shown = size > 1 || (asked.logRanks && !asked.dryRun)
      ? shownRanks(asked.logRanks, size, config.parallelism)
      : "all";
    rankConsole?.show(shown);
    if (asked.quiet && !asked.help && !asked.printConfig) {
      stack.use(new QuietConsole(!world || shown === "all" || shown.includes(world.rank)));
    }
    if (asked.help) {
      console.log(helpText({ name: shownFile(STANDARD), text: await readText(STANDARD) }));
      return 0;
    }
    if (asked.printConfig) {
      warnings.forEach((warning) => console.error(`warning: ${warning}`)); // what is printed can be kept as a file
      console.log(tomlText(config).trimEnd());
      return 0;
    }
    if (size > 1 && !world) {
      const part = asked.hosts && partOf(asked.hosts, asked.host);
      // Rank 0 takes it; what keeps it from that is told on its host before any rank starts.
      if (!part?.firstRank) openFolder(config)?.[Symbol.dispose]();
      using _console = new SteadyConsole();
      return await startRanks(config, size, args, { ...asked, part });
    }
    warnings.forEach(warn);
    if (config.job.print_config) console.log(JSON.stringify(config, null, 2));
    if (!asked.dryRun) return await run(config, asked.quiet);
    const mesh = meshOf(config, nproc);
    if (mesh.size > 1 && config.activation_checkpoint.visualize_memory_budget_pareto) {
      warn("what memory budgets cost is shown for one rank alone, not for a mesh");
    }
    const { json, page, deviceMemory } = asked.plan, isMesh = mesh.size > 1 || nproc || json || page;
    const fits = isMesh ? printMeshPlan(config, mesh, asked.plan) : printPlan(config, asked.plan);
    return fits || deviceMemory === undefined ? 0 : 1;
  } catch (error) {
    if (KNOWN.some((kind) => error instanceof kind)) console.error(`error: ${(error as Error).message}`);
    else console.error("error:", error);
    if (follows(`${error}`) && !isLast(`${error}`)) await new Promise((resolve) => setTimeout(resolve, FOLLOW_MS));
    return 1;
  }
}

/** The text of a path or URL. The default config has a URL, since this package may be imported over the network. */
async function readText(path: string): Promise<string> {
  if (/^https?:/.test(path)) {
    const response = await fetch(path);
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    return await response.text();
  }
  return await Deno.readTextFile(path.startsWith("file:") ? new URL(path) : path);
}
