/** What one rank does in the tests of decoders on meshes: in turns, with weights of its own or between the steps of a run, it reads prompts,
 * continues them greedily and takes back a part. `mpirun -n N deno run -A decoder_rank.ts CASES FOLDER`, where CASES is JSON; each rank writes
 * what it found into a file of the folder.
 * @module */
import { makeBatch } from "../../../data/batch.ts";
import { Device } from "../../../ffi/device.ts";
import { worldOf } from "../../../launch/world.ts";
import type { LlamaOptions } from "../../../model/llama.ts";
import { Mesh, type MeshOptions } from "../../../parallel/mesh.ts";
import { BatchPart } from "../../../train/batch_part.ts";
import { type DecoderRanks, openDecoder, type ProgramDecoder } from "../../../train/generate/decoder.ts";
import type { PipelineChoices } from "../../../train/pipeline.ts";
import { ProcessGroup } from "../../../train/process_group.ts";
import { dataRankOf } from "../../../train/ranks.ts";
import { compileStep } from "../../../train/step_plan.ts";
import { StepProgram } from "../../../train/step_program.ts";
import { someRows } from "../../model/tiny.ts";
import { randomLlama, someTokens } from "./weights.ts";

/** A mesh, and what is decoded there; degrees that are not named are 1. */
export interface DecoderCase {
  readonly mesh: MeshOptions;
  readonly model?: LlamaOptions;
  /** Steps of a run over whose parameters is decoded, before the first of them and behind each; default: a decoder has weights of its own. */
  readonly steps?: number;
  /** Of the run. */
  readonly pipeline?: PipelineChoices;
}

/** What a rank found. */
export interface Continued {
  /** Tokens of both sequences, those of the second behind those of the first. */
  readonly tokens: readonly number[];
  /** Logits behind the last of them. */
  readonly logits: readonly number[];
  /** Bytes of caches that the rank holds. */
  readonly cacheBytes: number;
}

const VOCABULARY = 48, SIZES = { sequences: 2, maxLength: 60 }, BATCH = 2, SEQ_LEN = 16, MICROBATCHES = 4;

const modelOf = ({ model }: Pick<DecoderCase, "model">) =>
  randomLlama({ numHeads: 4, numKvHeads: 2, vocabSize: VOCABULARY, ...model });

/** Reads two prompts, continues both, takes the first one's back but for its begin, and continues again. */
async function continuedBy(decoder: ProgramDecoder): Promise<Continued> {
  const tokens: number[][] = [[], []];
  const goOn = async (times: number) => {
    for (let n = 0; n < times; n++) {
      const next = tokens.map((_, s) => {
        const own = decoder.logits.subarray(s * VOCABULARY, (s + 1) * VOCABULARY);
        return own.indexOf(Math.max(...own));
      });
      next.forEach((token, s) => tokens[s].push(token));
      await decoder.extend(next.map((token) => [token]));
    }
  };
  [0, 1].forEach((s) => decoder.truncate(s, 0));
  await decoder.extend([someTokens(40, 1), someTokens(3, 2)]);
  await goOn(6);
  decoder.truncate(0, 7);
  await decoder.extend([[5, 6], []]);
  await goOn(6);
  return { tokens: tokens.flat(), logits: [...decoder.logits], cacheBytes: decoder.cacheBytes };
}

/** What a case finds on a mesh, or in a process alone. */
export async function continued(run: DecoderCase, ranks?: DecoderRanks): Promise<Continued[]> {
  if (run.steps !== undefined) return await continuedBetweenSteps(run, run.steps, ranks);
  using decoder = await openDecoder(modelOf(run).weights, { ...SIZES, dtype: "f64", threads: 1, ranks });
  return [await continuedBy(decoder as ProgramDecoder)];
}

async function continuedBetweenSteps(run: DecoderCase, steps: number, ranks?: DecoderRanks): Promise<Continued[]> {
  const { model } = modelOf(run),
    { dataRank, dataRanks } = ranks ? dataRankOf(ranks.mesh, ranks.rank) : { dataRank: 0, dataRanks: 1 };
  const batch = BATCH / dataRanks, layout = ranks && { mesh: ranks.mesh, rank: ranks.rank, pipeline: run.pipeline };
  const compiled = compileStep({
    ...{ model, dtype: "f64", batch, seqLen: SEQ_LEN, accumulation: MICROBATCHES, threads: 1 },
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
    ...{ generate: SIZES, ranks: layout },
  });
  using stack = new DisposableStack();
  const device = ranks?.device ?? stack.use(new Device({ threads: 1 }));
  const program = stack.use(await StepProgram.load(device, compiled, MICROBATCHES));
  const decoder = program.decoder({ ...SIZES, vocabSize: VOCABULARY }) as ProgramDecoder;
  const part = new BatchPart(SEQ_LEN, layout), own = makeBatch(batch, SEQ_LEN), size = own.tokens.length;
  const rows = someRows(BATCH * MICROBATCHES, SEQ_LEN, VOCABULARY), found: Continued[] = [];
  await program.initialize(7);
  for (let step = 1; step <= steps + 1; step++) {
    found.push(await continuedBy(decoder));
    if (step > steps) break;
    program.microbatches.forEach((views, k) => {
      const from = (k * dataRanks + dataRank) * size;
      own.tokens.set(rows.tokens.slice(from, from + size));
      own.targets.set(rows.targets.slice(from, from + size));
      part.put(views, own);
    });
    await program.step(step, 0.05);
  }
  return found;
}

if (import.meta.main) {
  const { rank, size } = worldOf()!, found: Continued[][] = [];
  using device = new Device({ threads: 1 });
  await using _group = await ProcessGroup.open(device, { rank, size });
  for (const run of JSON.parse(Deno.args[0]) as DecoderCase[]) {
    found.push(await continued(run, { device, mesh: new Mesh({ dp_shard: 1, ...run.mesh }, size), rank }));
  }
  Deno.writeTextFileSync(`${Deno.args[1]}/${rank}`, JSON.stringify(found)); // long lines of several processes would be torn
  console.log(JSON.stringify({ rank }));
}
