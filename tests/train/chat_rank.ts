/** One rank of a run that is fine-tuned on chats, and judged by others: `deno run -A chat_rank.ts FOLDER MESH`. Prints one line of JSON.
 * @module */
import { chats } from "../../data/dataset.ts";
import { Loader } from "../../data/loader.ts";
import { degreeOf } from "../../graph/layout.ts";
import { worldOf } from "../../launch/world.ts";
import { BATCH_AXES, Mesh, type MeshOptions } from "../../parallel/mesh.ts";
import { dataRankOf } from "../../train/ranks.ts";
import { Trainer } from "../../train/trainer.ts";
import { tinyLlama } from "../model/tiny.ts";

/** What a run of chats has to tell. */
export interface ChatRun {
  readonly losses: readonly number[];
  /** Targets of each step. */
  readonly counts: readonly number[];
  readonly heldOut: { readonly loss: number; readonly tokens: number };
  /** Shards of the held-out chats that this rank reads. */
  readonly shards: readonly number[];
}

/** Chats, and a tokenizer for them. */
export const SAMPLE_CHAT: URL = new URL("../../data/sample_chat/", import.meta.url);

/** Sequences of a step and of a batch of validation, however they are shared out. */
const ROWS = 8;

/** Trains some steps on the chats of a folder, and judges by those of another.
 * @param maskPrompt is what the assistant says alone learned? */
export async function chatRun(folder: string, mesh: MeshOptions, maskPrompt = true): Promise<ChatRun> {
  const world = worldOf(), whole = new Mesh({ dp_shard: 1, ...mesh }, world?.size ?? 1);
  const batch = ROWS / degreeOf(BATCH_AXES, whole.degrees), seqLen = 64, chat = { maskPrompt };
  const common = { tokenizer: SAMPLE_CHAT.href, seqLen }, data = chats(`${folder}/held-out/*.json`);
  await using trainer = await Trainer.open({
    ...common,
    model: tinyLlama({ vocabSize: 512 }),
    data: chats(`${folder}/training/*.json`),
    validation: { data, batch, seqLen, steps: -1 },
    dataloader: { chat },
    ...{ batch, mesh, steps: 5, lr: 1e-2, lanes: 8, threads: 1, dtype: "f64", notice: () => {} },
  });
  const losses: number[] = [], counts: number[] = [];
  for await (const { loss, tokenCount } of trainer) {
    losses.push(loss);
    counts.push(tokenCount);
  }
  const { loss, tokens } = await trainer.evaluate();
  const read = new Set<number>(), share = world && dataRankOf(whole, world.rank);
  const options = { ...common, ...share, dataset: data, batchSize: batch, infinite: false };
  await using loader = await Loader.open({ ...options, onRead: (_, shard) => read.add(shard) });
  while (await loader.next());
  return { losses, counts, heldOut: { loss, tokens }, shards: [...read].sort() };
}

if (import.meta.main) {
  const [folder, mesh] = Deno.args;
  console.log(JSON.stringify({ rank: worldOf()!.rank, ...await chatRun(folder, JSON.parse(mesh)) }));
}
