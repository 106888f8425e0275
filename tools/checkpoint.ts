/** Looks into checkpoints: `deno task checkpoint ls|show|verify|diff`.
 * @module */
import { CheckpointError } from "../train/checkpoint/error.ts";
import { exportHuggingFace } from "../train/checkpoint/export.ts";
import { damages, differences, listText, showText } from "../train/checkpoint/inspect.ts";
import { findCheckpoints, openCheckpoint } from "../train/checkpoint/manifest.ts";
import { readSmall } from "../train/checkpoint/read.ts";
import { STATE_FILE } from "../train/checkpoint/save.ts";
import { enterWorkingFolder } from "../train/working_folder.ts";

const USAGE = `Usage: npx -y deno task checkpoint COMMAND ...

  ls [FOLDER]      the checkpoints in a folder; without one, in outputs/checkpoint
  show STEP        files and tensors of one, such as outputs/checkpoint/step-100
  verify STEP      compares every byte with the hashes that it was written with; exit code 1 where one differs
  export STEP FOLDER [TOKENIZER]   writes the parameters as a folder that transformers opens, with the files of a tokenizer's folder
  diff STEP STEP   the tensors in which two differ; exit code 1 where there are some`;

/** Runs a command; returns its exit code. */
export async function run(args: readonly string[], print: (text: string) => void): Promise<number> {
  const [name, ...paths] = args;
  switch (`${name} ${paths.length}`) {
    case "ls 0":
    case "ls 1":
      print(listText(findCheckpoints(paths[0] ?? "outputs/checkpoint")));
      return 0;
    case "show 1":
      print(await showText(openCheckpoint(paths[0])));
      return 0;
    case "verify 1": {
      const checkpoint = openCheckpoint(paths[0]), found = damages(checkpoint);
      const files = Object.keys(checkpoint.manifest.files).length;
      print(found.length > 0 ? found.join("\n") : `all bytes of ${files} files are those that were written`);
      return found.length > 0 ? 1 : 0;
    }
    case "diff 2": {
      const found = await differences(openCheckpoint(paths[0]), openCheckpoint(paths[1]));
      print(found.length > 0 ? found.join("\n") : "all tensors are the same, bit for bit");
      return found.length > 0 ? 1 : 0;
    }
    case "export 2":
    case "export 3": {
      const checkpoint = openCheckpoint(paths[0]), { llama } = JSON.parse(readSmall(checkpoint, STATE_FILE));
      if (!llama) {
        throw new CheckpointError(`Cannot export ${paths[0]}: it is of no Llama`, "a Llama", "export one of a Llama");
      }
      await exportHuggingFace(checkpoint, llama, paths[1], { tokenizer: paths[2] });
      print(`${paths[1]} has the weights as transformers opens them`);
      return 0;
    }
    default:
      print(USAGE);
      return name === "--help" ? 0 : 1;
  }
}

if (import.meta.main) {
  try {
    enterWorkingFolder();
    Deno.exit(await run(Deno.args, console.log));
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    console.error(`error: ${error.message}`);
    Deno.exit(1);
  }
}
