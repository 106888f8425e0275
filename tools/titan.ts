/** All commands by one name: `deno run -A mod.ts COMMAND ...`. Each is loaded when it is asked for.
 * @module */
import { closest } from "fastest-levenshtein";
import { IS_CHECKOUT } from "../ffi/library.ts";
import { runCommand } from "./tool.ts";

/** A command. */
interface Command {
  /** What it does, in a line. */
  readonly about: string;
  /** Gives the exit code. */
  readonly run: (args: readonly string[]) => Promise<number>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  train: {
    about: "trains a model; so does no command at all: train --help lists every key",
    run: async (args) => (await import("../train/command/command.ts")).main(args),
  },
  plan: {
    about: "says what a run would take, and starts nothing: train --dry-run",
    run: async (args) => (await import("../train/command/command.ts")).main(["--dry-run", ...args]),
  },
  generate: {
    about: "continues a text, or chats: generate --from outputs/checkpoint --prompt TEXT",
    run: async (args) => {
      const { generateCommand, ownTerminal } = await import("../train/command/generate.ts");
      return generateCommand(args, ownTerminal());
    },
  },
  convert: {
    about: "writes a model as a folder for transformers or as a file of GGUF: convert IN OUT",
    run: async (args) => (await import("./convert.ts")).run(args, console.log, console.error),
  },
  data: {
    about:
      "data show|stats|verify looks at text, data download fetches it and models, data tokenizer learns a vocabulary",
    run: data,
  },
  checkpoint: {
    about: "looks into checkpoints: checkpoint ls|show|verify|diff|export",
    run: async (args) => (await import("./checkpoint.ts")).run(args, console.log, console.error),
  },
  view: {
    about: "shows runs on a page, also while they go on: view outputs/",
    run: async (args) => (await import("../train/command/live.ts")).view(args),
  },
  setup: {
    about: "builds the native library, as the first use does: setup [--again] [--mpi] [--gloo] [--cuda]",
    run: async (args) => (await import("./install.ts")).run(args),
  },
  completion: {
    about: "has a shell complete commands, keys and values: completion bash|zsh|fish",
    run: async (args) => (await import("./completion.ts")).completion(args, Object.keys(COMMANDS)),
  },
  bench: {
    about: "compares training speed with PyTorch, in a checkout: bench --help",
    run: async (args) => {
      if (!IS_CHECKOUT) {
        console.error(
          "error: There is no bench in the package\n  expected: a checkout\n  fix: npx -y deno task bench, in one",
        );
        return 1;
      }
      const bench = new URL("../bench/bench.ts", import.meta.url).href;
      const { code } = await new Deno.Command(Deno.execPath(), { args: ["run", "-A", bench, ...args] }).spawn().status;
      return code;
    },
  },
};

/** What there is, in the words of {@linkcode COMMANDS}. */
function helpText(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const lines = Object.entries(COMMANDS).map(([name, { about }]) => `  ${name.padEnd(width)}  ${about}`);
  return ["Usage: deno run -A mod.ts COMMAND ...", "", ...lines, "", "COMMAND --help tells more of each."].join("\n");
}

/** Runs the command that the first argument names, or trains; returns the exit code. */
export async function titan([name = "", ...rest]: readonly string[]): Promise<number> {
  if (name === "" || name.startsWith("-")) return await COMMANDS.train.run(name === "" ? rest : [name, ...rest]);
  if (name === "help") {
    console.log(helpText());
    return 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!command) {
    const fix = `write ${closest(name, [...Object.keys(COMMANDS), "help"])}`;
    console.error(
      `error: There is no command ${name}\n  expected: ${Object.keys(COMMANDS).join(", ")}, help\n  fix: ${fix}`,
    );
    return 1;
  }
  return await runCommand(() => command.run(rest));
}

async function data(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === "download") {
    const { run, terminal } = await import("./download.ts");
    return await run(rest, terminal());
  }
  if (name === "tokenizer") return await (await import("./tokenizer.ts")).run(rest, console.log, console.error);
  return await (await import("./data.ts")).run(args, console.log, Deno.stdout.isTerminal() && !Deno.noColor);
}
