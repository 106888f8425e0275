/** Writes a model in another form: `deno task convert IN OUT`.
 * @module */
import { CheckpointError } from "../train/checkpoint/error.ts";
import { convertWeights, isConvertType } from "../train/weights/convert.ts";
import { GGUF_TYPES } from "../train/weights/gguf_export.ts";
import { byteProgress, runCommand, tellUsage } from "./tool.ts";

const TYPES = Object.keys(GGUF_TYPES);

const USAGE = `Usage: npx -y deno task convert [--dtype ${TYPES.join("|")}] [--tokenizer FOLDER] IN OUT

  IN       a checkpoint such as outputs/checkpoint/step-100, a folder with a model as transformers saves it or under Meta's
           names, or a file of GGUF
  OUT      a file that is to be made, if its name ends with .gguf; else a folder for transformers that is to be made
  --dtype  type of the matrices; f32 where it is not given. q8_0 is for files of GGUF alone
  --tokenizer   folder with tokenizer.json, in place of the one that belongs to IN`;

/** Milliseconds from one line about the progress to the next. */
const PROGRESS_MS = 2000;

/** Converts; returns the exit code.
 * @param note is told how far it is. */
export async function run(
  args: readonly string[],
  print: (text: string) => void,
  note: (text: string) => void = () => {},
): Promise<number> {
  const options = new Map<string, string>(), paths: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [, name, value] = /^--(dtype|tokenizer)(?:=(.*))?$/.exec(args[i]) ?? [];
    if (name !== undefined) options.set(name, value ?? args[++i] ?? "nothing");
    else paths.push(args[i]);
  }
  const dtype = options.get("dtype") ?? "f32", [from, to] = paths;
  if (paths.length !== 2 || paths.some((path) => path.startsWith("--"))) {
    return tellUsage(USAGE, args, print);
  }
  if (!isConvertType(dtype)) {
    throw new CheckpointError(`Cannot convert to ${dtype}`, TYPES.join(", "), "write one of these behind --dtype");
  }
  await convertWeights(from, to, {
    ...{ dtype, tokenizer: options.get("tokenizer") },
    progress: byteProgress("written", PROGRESS_MS, note),
  });
  print(`${to} has the model of ${from}, in ${dtype}`);
  return 0;
}

if (import.meta.main) Deno.exit(await runCommand(() => run(Deno.args, console.log, console.error)));
