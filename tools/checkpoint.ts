/** Looks into checkpoints, and exports them: `deno task checkpoint ls|show|verify|export|diff`.
 * @module */
import { familyNames } from "../model/families.ts";
import { CheckpointError } from "../train/checkpoint/error.ts";
import { EXPORT_TYPES, exportHuggingFace, type ExportType } from "../train/weights/export.ts";
import {
  contentOf,
  damages,
  differences,
  listing,
  listText,
  showLines,
  shownTensors,
} from "../train/checkpoint/inspect.ts";
import { familyOf, openFolder } from "../train/checkpoint/load.ts";
import { contextLengthOf } from "../train/weights/model_source.ts";
import { byteProgress, runCommand, tellUsage } from "./tool.ts";

const USAGE = `Usage: npx -y deno task checkpoint COMMAND ...

  ls [FOLDER]      the checkpoints in a folder; without one, in outputs/checkpoint
  show STEP        files and tensors of one, such as outputs/checkpoint/step-100
  verify STEP      compares every byte with the hashes that it was written with; exit code 1 where one differs
  export [--dtype f32|bf16|f16] STEP FOLDER [TOKENIZER]   writes the parameters as a folder that transformers opens, with the
                   files of a tokenizer's folder; without a type, in f32
  diff STEP STEP   the tensors in which two differ, whatever meshes have saved them; exit code 1 where there are some

--json, behind any but export, prints the same as one object of JSON.
STEP may also be a folder with a model as transformers saves it or under Meta's names, or a file of GGUF, but for verify: these have
no hashes. "deno task convert" writes files of GGUF.`;

/** Milliseconds from one line about the progress to the next. */
const PROGRESS_MS = 5000;

/** Runs a command; returns its exit code.
 * @param note is told how far a long command is. */
export async function run(
  args: readonly string[],
  print: (text: string) => void,
  note: (text: string) => void = () => {},
): Promise<number> {
  const isJson = args.includes("--json"), [name, ...rest] = args.filter((arg) => arg !== "--json");
  const { dtype, paths } = exportType(rest), json = (value: unknown) => print(JSON.stringify(value, null, 2));
  if (name === "export" ? isJson : dtype !== undefined) return tellUsage(USAGE, args, print);
  switch (`${name} ${paths.length}`) {
    case "ls 0":
    case "ls 1": {
      const folder = paths[0] ?? "outputs/checkpoint";
      if (isJson) json(listing(folder));
      else print(listText(folder));
      return 0;
    }
    case "show 1": {
      const checkpoint = openFolder(paths[0]);
      if (isJson) json({ ...contentOf(checkpoint), tensors: await Array.fromAsync(shownTensors(checkpoint)) });
      else for await (const line of showLines(checkpoint)) print(line);
      return 0;
    }
    case "verify 1": {
      const checkpoint = openFolder(paths[0]);
      const found = await damages(checkpoint, byteProgress("compared", PROGRESS_MS, note));
      const files = Object.keys(checkpoint.manifest.files).length;
      if (isJson) json({ files, damages: found });
      else print(found.length > 0 ? found.join("\n") : `all bytes of ${files} files are those that were written`);
      return found.length > 0 ? 1 : 0;
    }
    case "diff 2": {
      const found = await differences(openFolder(paths[0]), openFolder(paths[1]));
      if (isJson) json({ differences: found });
      else print(found.length > 0 ? found.join("\n") : "all tensors are the same, bit for bit");
      return found.length > 0 ? 1 : 0;
    }
    case "export 2":
    case "export 3": {
      const checkpoint = openFolder(paths[0]), model = familyOf(checkpoint);
      if (!model) {
        throw new CheckpointError(
          `Cannot export ${paths[0]}: its model is of no known family`,
          `a model of one: ${familyNames}`,
          "export another checkpoint",
        );
      }
      await exportHuggingFace(checkpoint, model, paths[1], {
        dtype,
        tokenizer: paths[2],
        contextLength: contextLengthOf(checkpoint),
      });
      print(`${paths[1]} has the weights as transformers opens them`);
      return 0;
    }
    default:
      return tellUsage(USAGE, args, print);
  }
}

/** Takes `--dtype TYPE` out of arguments, wherever it stands. */
function exportType(args: readonly string[]): { readonly dtype?: ExportType; readonly paths: readonly string[] } {
  const at = args.indexOf("--dtype");
  if (at < 0) return { paths: args };
  const dtype = args[at + 1] ?? "nothing";
  if (!Object.hasOwn(EXPORT_TYPES, dtype)) {
    const types = Object.keys(EXPORT_TYPES).join(", ");
    throw new CheckpointError(`Cannot export as ${dtype}`, types, "write one of these behind --dtype");
  }
  return { dtype: dtype as ExportType, paths: args.toSpliced(at, 2) };
}

if (import.meta.main) Deno.exit(await runCommand(() => run(Deno.args, console.log, console.error)));
