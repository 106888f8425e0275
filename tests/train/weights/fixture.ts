/** A small Llama of random numbers, as a checkpoint of this program. @module */
import { SAMPLE } from "../../../data/dataset.ts";
import { Llama, type LlamaConfig, llamaConfig } from "../../../model/llama.ts";
import type { Family } from "../../../model/loss.ts";
import { namedParameters } from "../../../model/module.ts";
import { writeLasting } from "../../../train/checkpoint/files.ts";
import { encodeManifest, MANIFEST } from "../../../train/checkpoint/manifest.ts";
import { fromFileUrl } from "@std/path";
import { writeWeights } from "../checkpoint/fixture.ts";

/** Folder of the sample's tokenizer. */
export const sample: string = fromFileUrl(SAMPLE).replace(/\/$/, "");

/** Sizes for which each format has whole blocks. */
export const smallConfig: LlamaConfig = {
  ...llamaConfig("llama3/debugmodel"),
  ...{ dim: 64, numLayers: 2, numHeads: 4, numKvHeads: 2, headDim: 16, ffnHiddenDim: 96, vocabSize: 2048 },
};

/** The family that they belong to. */
export const smallFamily: Family<LlamaConfig> = { name: "llama", sizes: smallConfig };

/** Numbers like weights, the same for the same model: those of norms are about 1. */
export function weightsOf(config: LlamaConfig) {
  return new Map([...namedParameters(new Llama(config))].map(([name, { shape }], n) => {
    const count = shape.reduce((a, b) => a * b, 1), base = name.includes("norm") ? 1 : 0;
    const number = (_: unknown, i: number) => base + 0.3 * wave(i + 7919 * n);
    return [name, { shape, numbers: Float32Array.from({ length: count }, number) }] as const;
  }));
}

/** A number from -1 to 1 that looks random. */
function wave(i: number): number {
  const x = Math.sin(12.9898 * i + 4.1414) * 43758.5453;
  return 2 * (x - Math.floor(x)) - 1;
}

/** Makes a folder that is a checkpoint of a run.
 * @param path ends with `step-N`. @param state what `state.json` says beside the sizes. */
export async function smallCheckpoint(
  path: string,
  config: LlamaConfig = smallConfig,
  state: Record<string, unknown> = { seqLen: 256, tokenizer: null },
): Promise<string> {
  const { manifest } = writeWeights(path, weightsOf(config)), step = Number(/\d+$/.exec(path)![0]);
  const file = await writeLasting(`${path}/state.json`, JSON.stringify({ step, llama: config, ...state }));
  const complete = { ...manifest, step, files: { ...manifest.files, "state.json": file } };
  await Deno.writeTextFile(`${path}/${MANIFEST}`, encodeManifest(complete));
  return path;
}
