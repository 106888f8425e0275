/** Training from the command line: what is printed and written while a run goes on, and how it ends.
 * @module */
import { dirname } from "@std/path";
import { TitanError } from "../../ffi/error.ts";
import { publishedPeak } from "../../graph/target/cuda/gpus.ts";
import { exitCodeOf, onStop, type StopSignal } from "../../launch/stop.ts";
import { isLaunched, worldOf } from "../../launch/world.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import { writeFullySync } from "../checkpoint/files.ts";
import { savedText, stagingLines, startLines } from "../checkpoint/report.ts";
import {
  type Config,
  float8Options,
  meshError,
  meshOf,
  profileCycle,
  tomlText,
  trainOptions,
  writing,
} from "../config/config.ts";
import { EMULATED, float8Lines } from "../float8.ts";
import { checkpointsOf, deviceHere } from "./dry_run.ts";
import { needOf, whatFits } from "./plans.ts";
import { JsonLines } from "../report/json_lines.ts";
import type { LiveServer } from "../report/live/live_server.ts";
import { type BarTerminal, durationText, ProgressBar, StepClock, takesText } from "../report/progress.ts";
import { RankNumbers } from "../report/rank_numbers.ts";
import { MemoryError, neededBytes, type PlannedStep, withStagingThatFits } from "../machine_memory.ts";
import { bitsPerByte, colorsWanted, memoryOf, Metrics } from "../report/metrics.ts";
import { memoryUse, smallPages } from "../report/plan_report.ts";
import { multipliesFloat8, precisionOf, precisionText } from "../precision.ts";
import type { ProcessGroup } from "../process_group.ts";
import { pipelineProfile } from "../report/measured_pipeline.ts";
import type { StepProfile } from "../report/profile.ts";
import { Profiler } from "../report/profiler.ts";
import { EventFile, eventFolder } from "../report/tensorboard.ts";
import { stagesText } from "../report/pipeline_report.ts";
import { rematText } from "../report/remat_report.ts";
import { deviceText, modelText, ranksText, slowPaths } from "../report/header.ts";
import { SteadyConsole } from "./steady_console.ts";
import { tokensPerStep } from "../options.ts";
import { Trainer } from "../trainer.ts";
import { openLive } from "./live.ts";
import { openFolder, type RunFolder, warn } from "./run_folder.ts";
import { TextSamples } from "./text_samples.ts";

/** Opens the run of a configuration.
 * @throws {MemoryError} that says what to change when it does not fit. */
async function openTrainer(config: Config): Promise<Trainer> {
  const mesh = meshOf(config, worldOf()?.size ?? 1);
  try {
    return await Trainer.open(trainOptions(config, mesh));
  } catch (error) {
    if (!(error instanceof MemoryError)) throw meshError(error);
    const { compiled, memory } = error;
    const { info } = deviceHere(trainOptions(config, mesh));
    const limit = {
      limit: memory.availableBytes,
      need: (p: PlannedStep) => neededBytes(withStagingThatFits(p, memory), memory).all,
    };
    throw new MemoryError(compiled, memory, whatFits(config, mesh, needOf(compiled, limit), info, limit));
  }
}

/** Makes way for what a run writes. */
function keepEarlier(folder: RunFolder, name: string): void {
  const kept = folder.keepEarlier(name);
  if (kept !== undefined) console.log(`  kept    ${name} of an earlier run as ${kept}`);
}

/** The file of the run's numbers, if it is to have one.
 * @param facts of the run, for its first line; `from`: the step that it goes on from, and so the file. */
function openJsonLines(config: Config, folder: RunFolder, facts: Record<string, unknown>): JsonLines | null {
  const { jsonl_file } = config.metrics, path = `${config.job.dump_folder}/${jsonl_file}`;
  if (jsonl_file === "") return null;
  return writing(path, 'set job.dump_folder to another, or metrics.jsonl_file = "" to write no numbers', () => {
    if (facts.from === undefined) keepEarlier(folder, jsonl_file);
    return new JsonLines(path, { started: new Date().toISOString(), ...facts, config }, { warn });
  });
}

/** The text of a file, if there is one. */
function textOf(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Writes down what the run was asked for, where that is asked for. */
function saveConfig(config: Config, folder: RunFolder): void {
  const { dump_folder, save_config_file } = config.job;
  if (save_config_file === null) return;
  const path = `${dump_folder}/${save_config_file}`;
  const text = save_config_file.endsWith(".json") ? `${JSON.stringify(config, null, 2)}\n` : tomlText(config);
  writing(path, "set job.dump_folder to another, or leave job.save_config_file out", () => {
    if (textOf(path) === text) return; // of a run that goes on
    keepEarlier(folder, save_config_file);
    Deno.mkdirSync(dirname(path), { recursive: true });
    Deno.writeTextFileSync(path, text);
  });
}

/** The event files of this rank, if it is to have some. All ranks call this, since rank 0 names the run's folder. */
async function openTensorboard({ job, metrics }: Config, { group, start }: Trainer): Promise<EventFile | null> {
  const { enable_tensorboard, save_tb_folder, save_for_all_ranks } = metrics;
  if (!enable_tensorboard) return null;
  const runs = `${job.dump_folder}/${save_tb_folder}`, rank = group?.info.rank ?? 0;
  const fix = "set job.dump_folder to another, or leave metrics.enable_tensorboard out";
  const own = rank === 0 ? writing(runs, fix, () => eventFolder(runs, start !== undefined)) : "";
  const [run] = group ? await group.exchangeJson(own) : [own];
  if (rank !== 0 && !save_for_all_ranks) return null;
  const folder = save_for_all_ranks ? `${runs}/${run}/rank_${rank}` : `${runs}/${run}`;
  return writing(folder, fix, () => new EventFile(folder, { firstStep: (start?.step ?? 0) + 1, warn }));
}

/** What records where time goes, if that is asked for.
 * @param runFolder of the rank that writes. */
async function openProfiler(
  config: Config,
  trainer: Trainer,
  gflops: number,
  runFolder?: RunFolder,
): Promise<Profiler | null> {
  const cycle = profileCycle(config), { save_traces_folder } = config.profiling;
  if (!cycle) return null;
  const { group } = trainer, path = `${config.job.dump_folder}/${save_traces_folder}`;
  const gather = group && (async (own: readonly StepProfile[]) => {
    const all = await group.exchangeJson(own);
    return group.info.rank === 0 ? all : undefined;
  });
  const rates = { gflops, gbytes: await trainer.measureBandwidth() };
  const { spread: { mesh }, pipeline: stages } = trainer.program.compiled;
  const pipeline = stages &&
    ((ranks: readonly (readonly StepProfile[])[]) =>
      pipelineProfile(stages, mesh.group(0, mesh.factorsOf("pp")).map((rank) => ranks[rank].at(-1)!)));
  return writing(path, "set job.dump_folder to another, or leave profiling.enable_profiling out", () => {
    if (runFolder) keepEarlier(runFolder, save_traces_folder);
    return new Profiler({ ...cycle, folder: runFolder ? path : null, rates, gather, pipeline, print: console.log });
  });
}

/** What writes texts between steps, if that is asked for. */
async function openSamples(
  { metrics, debug }: Config,
  trainer: Trainer,
  keep: (step: number, text: string) => void,
): Promise<TextSamples | undefined> {
  const { sample_freq: freq, sample_prompt: prompt, sample_tokens: tokens } = metrics;
  if (freq === 0) return undefined;
  const { seed } = debug, { steps: lastStep } = trainer.options;
  return await TextSamples.open(trainer, { freq, prompt, tokens, seed, lastStep, print: console.log, warn, keep });
}

/** Where a bar is drawn. */
const TERMINAL: BarTerminal = {
  write: (text) => writeFullySync(Deno.stdout, new TextEncoder().encode(text)),
  width: () => Deno.consoleSize().columns || 80, // 0 where the terminal does not say
};

/** Seconds to go that a log tells. */
const WORTH_TELLING = 10;

/** What the rest of a run takes. */
function takes(config: Config, { options, ranks, program, step }: Trainer, gflops: number): string {
  const { enable, interval, keep_latest_k: keep, last_save_model_only } = config.checkpoint;
  const { model, seqLen, steps } = options, { compiled } = program, saves = Math.floor((steps - 1) / interval);
  const plan = enable ? checkpointsOf(config, compiled) : undefined;
  const kind = last_save_model_only && saves === 0 ? "model" : "full";
  return takesText(model, {
    ...{ seqLen, gflops, steps: steps - step, tokensPerStep: tokensPerStep(options, ranks?.mesh) },
    devices: ranks?.mesh.size ?? 1,
    arenaBytes: compiled.plan.arenaBytes,
    save: plan && { bytes: plan[kind].bytes, count: Math.min(saves + 1, keep || Infinity) },
  });
}

/** The page of a run, on which the earlier ones of its folder are too. */
function openLivePage({ job: { dump_folder }, metrics: { jsonl_file, live_port } }: Config): LiveServer {
  const own = `${dump_folder.replace(/\/+$/, "")}/${jsonl_file}`;
  return openLive({ paths: [dump_folder], own, port: live_port }, "metrics.live_port");
}

/** Trains as a config says. Where that fails, other ranks are told, rather than waited for.
 * @param quiet is no bar to be drawn, where there is a terminal? */
export async function run(config: Config, quiet: boolean = false): Promise<number> {
  using _console = new SteadyConsole();
  using folder = (worldOf()?.rank ?? 0) === 0 ? openFolder(config) : undefined;
  await using trainer = await openTrainer(config);
  try {
    return await train(config, trainer, folder, quiet);
  } catch (error) {
    trainer.group?.fail(error);
    throw error;
  }
}

async function train(
  config: Config,
  trainer: Trainer,
  folder: RunFolder | undefined,
  quiet: boolean,
): Promise<number> {
  const { metrics: { log_freq, disable_color_printing }, job, validation } = config;
  const { options, device, program, ranks, group } = trainer, { model, seqLen, steps } = options;
  const limit = trainer.memory(); // of a CPU it stays, and asking reads files
  const gflops = await trainer.measure();
  console.log(`libtitan: ${job.description}`);
  const texts = {
    model: modelText(model, tokensPerStep(options, ranks?.mesh), seqLen),
    device: deviceText(device, gflops, precisionOf(options.precision, options.dtype).param),
    ranks: ranks && group && ranksText(ranks.mesh, group.info, config.comm.simulate, device.kind === "cuda"),
  };
  console.log(`  model   ${texts.model}`);
  console.log(`  data    ${trainer.dataDescription}`);
  console.log(`  device  ${texts.device}`);
  if (texts.ranks) console.log(`  ranks   ${texts.ranks}`);
  if (program.compiled.pipeline) console.log(`  stages  ${stagesText(program.compiled)}`);
  console.log(`  numbers ${precisionText(precisionOf(options.precision, options.dtype), options.dtype, device)}`);
  const float8 = float8Options(config);
  const slow = multipliesFloat8(device) ? [] : [EMULATED];
  if (float8) [...float8Lines(options.model, float8), ...slow].forEach((line) => console.log(`  float8  ${line}`));
  console.log(`  remat   ${rematText(program.compiled)}`);
  console.log(`  takes   ${takes(config, trainer, gflops)}`);
  if (trainer.start) startLines(trainer.start, options.agreed).forEach((line) => console.log(line));
  const pages = Deno.build.os === "linux" ? smallPages(program.memory) : []; // other systems do not say
  const staging = stagingLines(program.compiled.host, options.checkpoint?.async ?? false);
  [...slowPaths(program.compiled), ...pages, ...staging].forEach((line) => console.log(`  slower  ${line}`));
  if (!group && config.comm.simulate) warn("comm.simulate has no effect: it needs several ranks");
  if (folder) saveConfig(config, folder);
  const facts = {
    from: trainer.start?.step,
    ...texts,
    size: ranks?.mesh.size ?? 1,
    memory: memoryUse(program.compiled.plan).use,
  };
  using jsonl = folder ? openJsonLines(config, folder, facts) : null;
  if (config.checkpoint.create_seed_checkpoint) return await saveSeed(trainer, config);
  using events = await openTensorboard(config, trainer);
  await using live = jsonl && config.metrics.live ? openLivePage(config) : null;
  if (live) console.log(`  live    ${live.address}`);
  /** Writes what is no report into the file of numbers, from which the page has it. */
  const record = (values: Record<string, unknown>) => {
    jsonl?.write(values);
    live?.write();
  };
  const samples = await openSamples(config, trainer, (step, sample) => record({ step, sample }));
  const rankNumbers = config.metrics.live && group ? new RankNumbers() : undefined;
  const profiler = await openProfiler(config, trainer, gflops, folder);
  const metrics = new Metrics({
    logFreq: log_freq,
    lastStep: steps,
    devices: ranks?.mesh.size ?? 1,
    flopsPerToken: model.flopsPerToken?.(seqLen) ?? null,
    peakFlops: publishedPeak(device, options) ?? gflops * 1e9,
    measurePeak: async () => await trainer.measure() * 1e9,
    memory: () => memoryOf(program.compiled.plan.arenaBytes, limit.isGpu ? trainer.memory() : limit),
    colors: colorsWanted(disable_color_printing),
    epochs: trainer.documents !== undefined,
    print: console.log,
    sinks: [jsonl, events, live].filter((sink) => sink !== null),
    now: () => performance.now(),
  });
  const clock = new StepClock(() => performance.now());
  // Launchers give ranks terminals of their own, and print what comes out of them line by line.
  using bar = Deno.stdout.isTerminal() && !ranks && !quiet ? new ProgressBar(TERMINAL) : undefined;
  const signal = stopOnSignal(trainer);
  try {
    let told = 0, toldTime = bar !== undefined;
    const tellSaves = () => {
      while (told < trainer.saves.length) console.log(savedText(trainer.saves[told++]));
    };
    for await (const { tokenCount, loadingMs, profile, saved: _, ...result } of trainer) {
      const { step, nativeMs } = result;
      metrics.batch(tokenCount, loadingMs);
      await metrics.step(result);
      rankNumbers?.step({ loadingMs, nativeMs });
      if (rankNumbers && metrics.isReported(step)) {
        record({ step, ranks: await rankNumbers.gather(group!, await program.ownLoss()) });
      }
      tellSaves();
      const progress = clock.at(step, steps), { secondsLeft } = progress;
      bar?.set(progress);
      if (!toldTime && metrics.isReported(step) && secondsLeft !== null) {
        toldTime = true;
        if (secondsLeft >= WORTH_TELLING) console.log(`  ${durationText(secondsLeft)} to go at this speed`);
      }
      if (profile) await profiler?.add(profile);
      const due = step === 1 || step === steps || step % validation.freq === 0;
      if (validation.enable && due && !trainer.stopped) await validate(trainer, metrics);
      if (samples?.isDue(step) && !trainer.stopped) {
        const begun = performance.now();
        await samples.write(step);
        metrics.exclude(performance.now() - begun);
      }
    }
    tellSaves();
    const by = trainer.stopped ? { stopped: signal.received() ?? "another rank" } : {};
    record({ end: { step: trainer.step, ...by } });
  } catch (error) {
    record({ end: { step: trainer.step, error: (error as Error).message.split("\n")[0] } });
    if (group && error instanceof TitanError && error.status === "COMMUNICATION") saveRecord(config, group, error);
    throw error;
  } finally {
    signal.off();
  }
  if (trainer.stopped) {
    console.log(`stopped by ${signal.received() ?? "another rank"} after step ${trainer.step} of ${steps}`);
  }
  if ((ranks?.rank ?? 0) === 0) console.log(endText(trainer));
  if (!trainer.stopped) return 0;
  return isLaunched() ? 0 : exitCodeOf(signal.received() ?? "SIGTERM"); // a launcher knows
}

/** Saves a run that has made no step. */
async function saveSeed(trainer: Trainer, { checkpoint }: Config): Promise<number> {
  const folder = trainer.options.checkpoint!.folder, { start } = trainer;
  if (start) {
    throw new CheckpointError(
      `Cannot save the initial parameters in ${folder}: the run goes on from ${start.path}`,
      "a run that begins anew",
      "set checkpoint.folder to another, or leave checkpoint.create_seed_checkpoint out",
    );
  }
  console.log(savedText(await trainer.save(`${folder}/step-0`, checkpoint.last_save_model_only ? "model" : "full")));
  return 0;
}

/** What becomes of the weights at the end of a run. */
function endText({ saved, start, stopped, step, options: { checkpoint } }: Trainer): string {
  if (!checkpoint) {
    return "weights are not kept: --checkpoint.enable saves them, and a run that is stopped goes on where it was";
  }
  if (!saved && start && start.step === step) return `no step was made: ${start.path} stands at step ${step}`;
  if (!saved || saved.failure) return "weights are not kept: nothing was saved";
  if (!stopped) return `the weights are in ${saved.path}`;
  const since = saved.path.endsWith(`/step-${step}`) ? "" : ", and repeats the steps since then";
  return `saved in ${saved.path}: the same command goes on from there${since}`;
}

/** Writes what the ranks of this host did last when they cannot go on together; the error then says where. */
function saveRecord({ job, comm }: Config, group: ProcessGroup, error: TitanError): void {
  const folder = `${job.dump_folder}/${comm.save_traces_folder}`;
  try {
    Deno.mkdirSync(folder, { recursive: true });
    Deno.writeTextFileSync(`${folder}/${comm.save_traces_file_prefix}${group.info.rank}`, group.comm.record());
    error.message += `\n  the last collectives of all ranks: ${folder}`;
  } catch (cause) {
    error.message += `\n  their last collectives cannot be written to ${folder}: ${(cause as Error).message}`;
  }
}

async function validate(trainer: Trainer, metrics: Metrics): Promise<void> {
  const evaluation = await trainer.evaluate(), { loss, tokens, unigramEntropy } = evaluation;
  metrics.validation({ step: trainer.step, ...evaluation });
  const gain = unigramEntropy - loss, bits = bitsPerByte(evaluation);
  console.log(
    `  ${tokens.toLocaleString("en-US")} held-out tokens: loss ${loss.toFixed(4)}, their unigram entropy ` +
      `${unigramEntropy.toFixed(4)}: ${Math.abs(gain).toFixed(4)} nats ${gain >= 0 ? "below" : "above"} it` +
      (bits === null ? "" : `; ${bits.toFixed(4)} bits per byte`),
  );
}

/** Ctrl-C and SIGTERM end the run after the step under way; a second one ends the process at once. */
function stopOnSignal(trainer: Trainer): { off(): void; received(): StopSignal | undefined } {
  let received: StopSignal | undefined;
  const off = onStop((signal) => {
    if (received) Deno.exit(exitCodeOf(signal));
    received = signal;
    console.log(`${signal}: stopping after this step; once more to stop at once`);
    trainer.stop();
  });
  return { off, received: () => received };
}
