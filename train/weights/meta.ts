/** Folders of models under Meta's own names, which are ours: `params.json`, and `consolidated*.safetensors`. Rows that RoPE turns lie as
 * they do here.
 * @module */
import { ROPE_SCALING } from "../../model/attention.ts";
import { feedForwardHiddenDim } from "../../model/feed_forward.ts";
import { families } from "../../model/families.ts";
import type { Family } from "../../model/loss.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import type { Checkpoint } from "../checkpoint/manifest.ts";
import { readHeader, type TensorEntry } from "./safetensors.ts";
import { checkpointOf, SizesFile } from "./weight_files.ts";

/** Name of the file with the sizes. */
export const PARAMS_FILE = "params.json";

/** Keys of `params.json` that are understood; the last two say nothing of the model. */
const KEYS: ReadonlySet<string> = new Set([
  ...["dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "norm_eps", "rope_theta"],
  ...["hidden_dim", "multiple_of", "ffn_dim_multiplier", "use_scaled_rope", "rope_scaling_factor"],
  ...["max_seq_len", "max_batch_size"],
]);

/** A tensor, and the file that has it. */
interface Placed extends TensorEntry {
  readonly file: string;
}

/** `params.json` does not say its family. */
const [FAMILY] = families;

/** Sizes that a folder's `params.json` gives; those of the vocabulary where it says -1, and whether embeddings are tied, follow from
 * the tensors. `use_scaled_rope` is scaling by 8, unless `rope_scaling_factor` says otherwise.
 * @throws {CheckpointError} when it is missing, or asks for what models here do not have. */
export function readMetaParams(folder: string): Family<TransformerSizes> {
  return { name: FAMILY.name, sizes: sizesOf(folder, tensorsOf(folder)) };
}

function sizesOf(folder: string, tensors: ReadonlyMap<string, Placed>): TransformerSizes {
  const file = new SizesFile(`${folder}/${PARAMS_FILE}`), { json } = file;
  for (const [key, value] of Object.entries(json)) {
    if (!KEYS.has(key) && value !== null && value !== false) {
      file.refuse(file.shown(key), `nothing but ${[...KEYS].join(", ")}`);
    }
  }
  const dim = file.count("dim"), numHeads = file.count("n_heads");
  const multiplier = json.ffn_dim_multiplier == null ? undefined : file.number("ffn_dim_multiplier");
  const multipleOf = file.count("multiple_of", 256), factor = file.number("rope_scaling_factor", 8);
  const rows = tensors.get("tok_embeddings.weight")?.shape[0];
  return file.checked({
    dim,
    numHeads,
    numLayers: file.count("n_layers"),
    numKvHeads: file.count("n_kv_heads", numHeads),
    headDim: file.number("head_dim", dim / numHeads),
    vocabSize: json.vocab_size === -1 && rows !== undefined ? rows : file.count("vocab_size"),
    ffnHiddenDim: file.count("hidden_dim", feedForwardHiddenDim(dim, { multipleOf, multiplier })),
    normEps: file.number("norm_eps", 1e-5),
    ropeTheta: file.number("rope_theta", 10000),
    ropeScaling: json.use_scaled_rope === true ? { ...ROPE_SCALING, factor } : null,
    tiedEmbeddings: !tensors.has("output.weight"),
  });
}

/** A folder as a checkpoint of parameters alone.
 * @throws {CheckpointError} when a file or a tensor is missing, or is nothing of the family. */
export function openMeta(folder: string): Checkpoint {
  const tensors = tensorsOf(folder), sizes = sizesOf(folder, tensors);
  return checkpointOf({
    folder,
    sizes,
    files: new Map([...tensors].map(([name, { file }]) => [name, file])),
    names: new Map([...FAMILY.huggingFace.names(sizes).keys()].map((name) => [name, name])),
    derived: /^rope\.freqs$/,
  });
}

/** The tensors of a folder.
 * @throws {CheckpointError} when it has none, or one of them lies in several files. */
function tensorsOf(folder: string): Map<string, Placed> {
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  const files = names.filter((name) => name.endsWith(".safetensors")), tensors = new Map<string, Placed>();
  if (files.length === 0) {
    const pickle = names.find((name) => /\.(pth|bin)$/.test(name));
    throw new CheckpointError(
      `Cannot use ${folder}: there is no safetensors file`,
      `weights in safetensors${pickle ? `: ${pickle} is a pickle, which runs whatever code it holds` : ""}`,
      "fetch the model's safetensors files, or write its tensors by safetensors.torch.save_file on a machine that may run the pickle",
    );
  }
  for (const file of files) {
    for (const [name, entry] of readHeader(`${folder}/${file}`).tensors) {
      const other = tensors.get(name)?.file;
      if (other !== undefined) {
        throw new CheckpointError(
          `Cannot use ${folder}: "${name}" is in ${other} and in ${file}, as shards for model parallelism are`,
          "each tensor whole, in one file: how shards are put together depends on the program that cut them",
          "join the shards into one file, or fetch the model as transformers saves it",
        );
      }
      tensors.set(name, { ...entry, file });
    }
  }
  return tensors;
}
