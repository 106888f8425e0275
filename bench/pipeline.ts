/** Pipelines, measured: `deno task bench:pipeline`. `idle`: each schedule on real ranks whose products take a fixed time, so that they keep
 * to their times on few processors; the idle share of its profile beside the simulated one. `speed`: two ranks of a thread each beside one
 * process with two threads, taking turns, and how much of what messages take over a link is hidden. `halves`: backward in halves beside
 * backward as a whole, and both beside the step in one piece, in one process.
 * @module */
import { availableParallelism, cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { Actions } from "../ffi/buffer.ts";
import { Device } from "../ffi/device.ts";
import { Program } from "../ffi/program.ts";
import { Flag } from "../ffi/symbols.ts";
import { llama } from "../model/llama.ts";
import { parameterStates } from "../model/module.ts";
import { cutStages } from "../parallel/pipeline/cut_stages.ts";
import { scheduleKind, SCHEDULES } from "../parallel/pipeline/schedules.ts";
import { stagesOf } from "../parallel/pipeline/stages.ts";
import { compileGraphs } from "../train/compile.ts";
import { traceInitialize } from "../train/optimizer.ts";
import { traceMicrobatch } from "../train/step.ts";
import { runBench } from "./arguments.ts";
import { median } from "./report.ts";

const usage = `deno task bench:pipeline [options]: idle time, speed and halves of pipelines

  --what LIST        idle, speed, halves (all)
  --ranks LIST       idle: ranks of the pipeline (2,4)
  --schedules LIST   idle: names of schedules (all)
  --microbatches N   idle: of a step (8)
  --product N        idle: microseconds that a product takes (5000)
  --library FILE     idle: libtitan with such products (build/cmake/timed/libtitan.so, which is built)
  --link TEXT        speed: comm.simulate of one more run, "": none (1GB/s,1us)
  --rounds N         speed, halves: how often each runs, taking turns (5 and 20)
  --folder DIR       where runs write (outputs/bench/pipeline)
  --help             this text
`;

/** What a profile says of a pipeline, in percent. */
interface Told {
  readonly idle: number;
  readonly planned: number;
  readonly even: number;
  readonly hidden: number;
}

interface Run {
  /** Medians over the recorded steps, without the first. */
  readonly told?: Told;
  /** Tokens per second and rank of each step but the first two. */
  readonly speeds: readonly number[];
}

/** Trains in processes of its own. */
async function train(args: readonly string[], env: Record<string, string> = {}): Promise<Run> {
  const root = new URL("../", import.meta.url), common = ["--metrics.log_freq=1", "--metrics.disable_color_printing"];
  const command = ["run", "--quiet", "-A", "mod.ts", ...args, ...common, "--validation.no_enable"];
  const options = { args: command, cwd: root, env, stdout: "piped", stderr: "piped" } as const;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), options).output();
  const out = new TextDecoder().decode(stdout);
  if (code !== 0) {
    throw new Error(`The run has failed: ${command.join(" ")}\n${out}${new TextDecoder().decode(stderr)}`);
  }
  const percent = "([\\d.]+) %";
  const told = [...out.matchAll(
    new RegExp(
      `ranks are idle for ${percent} of .*\\n.*planned ${percent} .*, ${percent} if .*\\n.*travelled for .*, for ${percent}`,
      "g",
    ),
  )].slice(1).map((m) => m.slice(1).map(Number));
  const column = (i: number) => median(told.map((numbers) => numbers[i]));
  return {
    ...(told.length > 0 ? { told: { idle: column(0), planned: column(1), even: column(2), hidden: column(3) } } : {}),
    speeds: [...out.matchAll(/ tps: ([\d,.]+)/g)].map((m) => Number(m[1].replaceAll(",", ""))).slice(2),
  };
}

const profiled = ["--profiling.enable_profiling", "--profiling.profile_freq=2", "--profiling.profiler_warmup=0"];

/** Builds the library whose products take a fixed time, with the modules beside it. */
async function timedLibrary(): Promise<string> {
  const build = decodeURIComponent(new URL("../build", import.meta.url).pathname), folder = `${build}/cmake/timed`;
  const args = ["--build", `${build}/cmake`, "--target", "titan_timed"];
  const { success } = await new Deno.Command("cmake", { args, stdout: "null" }).spawn().status;
  if (!success) {
    throw new Error("Cannot build titan_timed\n  expected: a checkout that is set up\n  fix: deno task build");
  }
  for (const { name } of Deno.readDirSync(build)) {
    if (/^libtitan_.*\.so$/.test(name)) Deno.copyFileSync(`${build}/${name}`, `${folder}/${name}`);
  }
  return `${folder}/libtitan.so`;
}

interface IdleOptions {
  readonly ranks: readonly number[];
  readonly schedules: readonly string[];
  readonly microbatches: number;
  readonly product: string;
  readonly library: string;
  readonly folder: string;
}

async function idle({ ranks, schedules, microbatches, product, library, folder }: IdleOptions): Promise<void> {
  console.log(
    `\nIdle share of ranks, ${microbatches} microbatches, each product takes ${product} us (1 % is 1 % of the time)`,
  );
  console.log(
    "| ranks | schedule | stages alike | simulated | measured | measured / simulated |\n| - | - | - | - | - | - |",
  );
  for (const pp of ranks) {
    for (const schedule of schedules) {
      const stages = pp * (scheduleKind(schedule).stagesPerRank === "one" ? 1 : 2);
      // Two blocks in each stage; what the head multiplies takes next to no time.
      const parallelism = [
        `--parallelism.pipeline_parallel_schedule=${schedule}`,
        "--parallelism.pipeline_parallel_first_stage_less_layers=0",
        "--parallelism.pipeline_parallel_last_stage_less_layers=0",
      ];
      const sizes = ["--model.dim=64", "--model.n_heads=4", `--model.n_layers=${2 * stages}`, "--training.seq_len=64"];
      const { told } = await train([
        ...["--nproc", `${pp}`, "--mesh", `pp=${pp}`, ...parallelism, ...sizes, ...profiled],
        ...[`--training.local_batch_size=${microbatches}`, "--training.steps=6", `--job.dump_folder=${folder}`],
      ], { TITAN_LIB: library, TITAN_PRODUCT_US: product });
      const { idle, planned, even } = told!;
      console.log(
        `| ${pp} | ${schedule} | ${even.toFixed(1)} % | ${planned.toFixed(1)} % | ${idle.toFixed(1)} % | ` +
          `${(idle / planned).toFixed(3)} |`,
      );
    }
  }
}

/** 1F1B with 8 microbatches on two ranks of one thread, beside one process with two threads: a step of either has 8 sequences. */
async function speed(rounds: number, { link, folder }: { link: string; folder: string }): Promise<void> {
  const sizes = Object.entries({ dim: 512, n_layers: 8, n_heads: 8, n_kv_heads: 8, ffn_hidden_dim: 1408 });
  const common = [
    ...sizes.map(([key, value]) => `--model.${key}=${value}`),
    ...["--training.seq_len=512", "--training.steps=6", "--training.mixed_precision_param=float32"],
    ...["--training.global_batch_size=8", `--job.dump_folder=${folder}`],
  ];
  const piped = [...common, "--nproc", "2", "--mesh", "pp=2", "--training.local_batch_size=8"], bubble = 1 / 9;
  const shares: number[] = [];
  console.log("\n1F1B on two ranks of a thread each, by one process with two threads; 8 / 9 is what its bubble leaves");
  for (let round = 0; round < rounds; round++) {
    const one = median((await train([...common, "--training.local_batch_size=1"])).speeds);
    const both = 2 * median((await train(piped)).speeds);
    shares.push(both / one / (1 - bubble));
    console.log(
      `  one process ${one.toFixed(0)} tokens/s, pipeline ${both.toFixed(0)}: ${shares.at(-1)!.toFixed(3)} of 8 / 9`,
    );
  }
  console.log(`  median ${median(shares).toFixed(3)} of 8 / 9`);
  if (link === "") return;
  const { told } = await train([...piped, ...profiled, `--comm.simulate=${link}`]);
  console.log(
    `  over ${link}, ${told!.hidden.toFixed(1)} % of the time of messages lies beside kernels of one of their ranks`,
  );
}

/** A microbatch of the size "mid" in f32, as a whole, forward then backward, and with backward in halves. */
async function halves(rounds: number): Promise<void> {
  const threads = availableParallelism(), sizes = { dim: 512, numLayers: 8, numHeads: 8, numKvHeads: 8 };
  const model = llama("debug", { ...sizes, ffnHiddenDim: 1376, vocabSize: 8192 });
  const shape = { batch: 2, seqLen: 512, dtype: "f32", globalTokens: 1024 } as const;
  const stages = stagesOf(parameterStates(model, "f32"), { count: 1 });
  using device = new Device({ threads });
  const load = async (inHalves?: boolean) => {
    const own = inHalves === undefined
      ? [traceMicrobatch(model, shape)]
      : cutStages(traceMicrobatch(model, { ...shape, stages }), 1).graphs;
    const compiled = compileGraphs([traceInitialize(model, "f32"), ...own], { threads, halves: inHalves, slots: 1 });
    const { sections, bytes } = compiled.program;
    const most = (of: (section: typeof sections[number]) => number) => Math.max(...sections.map(of));
    const program = await Program.create(device, bytes, {
      inputBytes: most((s) => s.inputBytes),
      outputBytes: most((s) => s.outputBytes),
    });
    const [initialize, ...actions] = sections.map(({ index }) => ({ section: index, flags: Flag.FIRST }));
    await program.run(new Actions([initialize]));
    return { program, actions: new Actions(actions) };
  };
  const all = [await load(), await load(false), await load(true)], times = all.map((): number[] => []);
  for (let round = -2; round < rounds; round++) {
    for (const [i, { program, actions }] of all.entries()) {
      const begun = performance.now();
      await program.run(actions);
      if (round >= 0) times[i].push(performance.now() - begun);
    }
  }
  all.forEach(({ program }) => program[Symbol.dispose]());
  const [whole, two, three] = times.map(median);
  const ratio = (a: number[], b: number[]) => median(a.map((ms, i) => ms / b[i])).toFixed(4);
  console.log(`
A microbatch in f32, ${threads} threads, medians of ${rounds} rounds
  in one piece ${whole.toFixed(1)} ms
  forward, backward ${two.toFixed(1)} ms: ${ratio(times[1], times[0])} of that
  forward, input, weight ${three.toFixed(1)} ms: ${ratio(times[2], times[1])} of forward, backward`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      what: { type: "string", default: "idle,speed,halves" },
      ranks: { type: "string", default: "2,4" },
      schedules: { type: "string", default: SCHEDULES.map(({ name }) => name).join(",") },
      microbatches: { type: "string", default: "8" },
      product: { type: "string", default: "5000" },
      library: { type: "string" },
      link: { type: "string", default: "1GB/s,1us" },
      rounds: { type: "string" },
      folder: { type: "string", default: "outputs/bench/pipeline" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(usage);
  const what = values.what.split(","), { product, folder, link } = values;
  const unknown = what.find((name) => !["idle", "speed", "halves"].includes(name));
  if (unknown !== undefined) throw new Error(`Cannot measure "${unknown}"\n  expected: idle, speed or halves`);
  console.log(`${cpus()[0].model.trim()}, ${availableParallelism()} processors, load ${loadavg()[0].toFixed(1)}`);
  const ranks = values.ranks.split(",").map(Number), microbatches = Number(values.microbatches);
  if (what.includes("idle")) {
    const library = values.library ?? await timedLibrary(), schedules = values.schedules.split(",");
    await idle({ ranks, schedules, microbatches, product, library, folder });
  }
  if (what.includes("speed")) await speed(Number(values.rounds ?? 5), { link, folder });
  if (what.includes("halves")) await halves(Number(values.rounds ?? 20));
}

if (import.meta.main) await runBench(main);
