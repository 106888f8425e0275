/** From one form of weights to another: a checkpoint, a folder of Hugging Face's or Meta's, or a file of GGUF becomes a folder that
 * `transformers` opens, or a file of GGUF.
 * @module */
import { basename } from "@std/path";
import { isGgufName } from "../../data/gguf.ts";
import { toGgufTokenizer } from "../../data/gguf_tokenizer.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import { EXPORT_TYPES, exportHuggingFace, type ExportType } from "./export.ts";
import { exportGguf, GGUF_TYPES, type GgufType } from "./gguf_export.ts";
import { openModel } from "./model_source.ts";

/** How to convert. */
export interface ConvertOptions {
  /** Element type of what is written; default `f32`. Folders have no `q8_0`. */
  readonly dtype?: GgufType;
  /** Folder of the tokenizer, in place of the model's own. */
  readonly tokenizer?: string;
  /** Is told the bytes that are written, and all. */
  readonly progress?: (done: number, all: number) => void;
}

/** Tokens of texts where nothing says so; what `transformers` takes then, too. */
const CONTEXT_LENGTH = 2048;

/** Writes a model in another form; it gets its name when all of it is written.
 * @param to ends with `.gguf`, or is a folder that is to be made.
 * @throws {CheckpointError} about weights, or when `to` is there already. @throws {DataError} about the tokenizer. */
export async function convertWeights(
  from: string,
  to: string,
  { dtype = "f32", tokenizer: folder, progress }: ConvertOptions = {},
): Promise<void> {
  const model = await openModel(from, { tokenizer: folder }), { checkpoint, family, tokenizerPath } = model;
  if (!isGgufName(to)) {
    if (!isExportType(dtype)) {
      const types = Object.keys(EXPORT_TYPES).join(", ");
      throw new CheckpointError(
        `Cannot write ${to}: folders have no ${dtype}`,
        types,
        `write one of these, or a file: ${to}.gguf`,
      );
    }
    const { contextLength } = model;
    return await exportHuggingFace(checkpoint, family, to, {
      dtype,
      tokenizer: tokenizerPath,
      contextLength,
      progress,
    });
  }
  const { tokenizer, addsBos: bos, chatTemplate: template, contextLength = CONTEXT_LENGTH } = model;
  await exportGguf(checkpoint, family, to, {
    ...{ dtype, contextLength, progress },
    tokenizer: toGgufTokenizer(tokenizer.files, { size: family.sizes.vocabSize, from: tokenizerPath, bos, template }),
    name: basename(to).replace(/\.gguf$/i, ""),
  });
}

/** Is it the name of a type that can be written? */
export function isConvertType(name: string): name is GgufType {
  return Object.hasOwn(GGUF_TYPES, name);
}

function isExportType(dtype: GgufType): dtype is Exclude<GgufType, "q8_0"> & ExportType {
  return Object.hasOwn(EXPORT_TYPES, dtype);
}
