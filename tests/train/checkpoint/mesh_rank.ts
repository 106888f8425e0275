/** One rank of a run that goes on from its checkpoint, makes some steps, and is saved. Prints one line of JSON.
 * @module */
import { texts } from "../../../data/dataset.ts";
import { Bigrams } from "../../../examples/mixture_of_experts.ts";
import type { MeshOptions } from "../../../parallel/mesh.ts";
import { BATCH_AXES, Mesh } from "../../../parallel/mesh.ts";
import { degreeOf } from "../../../graph/layout.ts";
import { worldOf } from "../../../launch/world.ts";
import type { TrainOptions } from "../../../train/options.ts";
import { Trainer } from "../../../train/trainer.ts";
import { tinyLlama } from "../../model/tiny.ts";

/** A leg of a run. */
export interface Leg {
  readonly mesh: MeshOptions;
  /** The last step of this leg. */
  readonly until: number;
  readonly accumulation?: number;
  /** Steps from one save to the next; default: only the end is saved. */
  readonly interval?: number;
  /** Are process and losses printed as they come? */
  readonly tell?: boolean;
  /** Does training go on while a checkpoint is written? */
  readonly async?: boolean;
  /** Folder of the checkpoints; default `checkpoint`. */
  readonly checkpoints?: string;
  /** Is it a mixture of experts that is trained, instead of a Llama? */
  readonly experts?: boolean;
  /** Has the Llama an output layer of its own, or the embedding's table? */
  readonly tied?: boolean;
  /** What else the run is made of. */
  readonly options?: Partial<TrainOptions>;
}

/** Sequences of a step, however they are shared out. */
const ROWS = 4;

/** Runs a leg of a run of `steps` steps, and returns its losses. */
export async function runLeg(leg: Leg, folder: string, steps: number): Promise<number[]> {
  const mesh = { dp_shard: 1, ...leg.mesh }, size = worldOf()?.size ?? 1, { degrees } = new Mesh(mesh, size);
  const accumulation = leg.accumulation ?? 1, losses: number[] = [];
  await using trainer = await Trainer.open({
    model: leg.experts
      ? new Bigrams()
      : tinyLlama({ vocabSize: 2048, numHeads: 4, numKvHeads: 2, tiedEmbeddings: leg.tied }),
    data: texts(`${folder}/*.txt`),
    ...{ steps, mesh, accumulation, seqLen: 16, lr: 1e-2, lanes: 4, threads: 1, dtype: "f64" },
    ...leg.options,
    batch: ROWS / accumulation / degreeOf(BATCH_AXES, degrees),
    checkpoint: {
      folder: `${folder}/${leg.checkpoints ?? "checkpoint"}`,
      ...{ interval: leg.interval ?? steps, keepLatestK: 2, async: leg.async },
    },
  });
  const rank = worldOf()?.rank ?? 0;
  if (leg.tell) console.log(JSON.stringify({ rank, pid: Deno.pid }));
  for await (const { step, loss } of trainer) {
    losses.push(loss);
    if (leg.tell) console.log(JSON.stringify({ rank, step, loss }));
    if (step === leg.until - (size === 1 ? 0 : 1)) trainer.stop(); // ranks agree behind the next step
  }
  return losses;
}

if (import.meta.main) {
  const [leg, folder, steps] = Deno.args, losses = await runLeg(JSON.parse(leg), folder, Number(steps));
  console.log(JSON.stringify({ rank: worldOf()?.rank ?? 0, losses }));
}
