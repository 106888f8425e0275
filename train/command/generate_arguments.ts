/** The command line of `deno task generate`.
 * @module */
import { closest } from "fastest-levenshtein";
import { GenerateError } from "../generate/error.ts";
import { type Sampling, samplingOf } from "../generate/sampler.ts";

/** Ranks that share out the layers, as stages, and ranks that share out each layer. */
export type MeshDegrees = Readonly<Record<"pp" | "tp", number>>;

/** What the command line says. */
export interface GenerateArguments {
  readonly from: string;
  /** Text to continue, or the only thing that is said. */
  readonly prompt: string | undefined;
  readonly chat: boolean;
  /** What the model is told before a conversation. */
  readonly system: string | undefined;
  readonly maxNewTokens: number;
  readonly samples: number;
  readonly stop: readonly string[];
  readonly sampling: Sampling;
  readonly tokenizer: string | undefined;
  readonly contextLength: number | undefined;
  readonly dtype: "f32" | "bf16" | undefined;
  readonly device: "auto" | "cpu" | "cuda";
  readonly threads: number;
  /** Ranks that are started to do it together. */
  readonly nproc: number | undefined;
  /** How they share out the model; default: each layer. */
  readonly mesh: MeshDegrees | undefined;
  /** Print one object of JSON at the end, and no text before? */
  readonly json: boolean;
  readonly help: boolean;
}

/** Where runs save unless they are told otherwise. */
const FROM = "outputs/checkpoint";

/** Options with what their value is called, and what they mean; those without a value are switches. */
const OPTIONS: Readonly<Record<string, readonly [value: string, meaning: string]>> = {
  "from": [
    "PATH",
    `checkpoint, folder of checkpoints (its latest), folder of weights, or file of GGUF; default ${FROM}`,
  ],
  "prompt": ["TEXT", "text to continue; with --chat, what is said"],
  "chat": [
    "",
    "a conversation, by the tokenizer's chat template; without --prompt, read from standard input line by line",
  ],
  "system": ["TEXT", "what the model is told before a conversation"],
  "max-new-tokens": ["N", "tokens of a text at most; default 100, in a conversation 500"],
  "temperature": ["X", "0 takes the likeliest token always; default 0.8"],
  "top-k": ["N", "only the N likeliest tokens; default 0: all"],
  "top-p": ["X", "only the likeliest tokens that have this probability together; default 1: all"],
  "min-p": ["X", "only tokens with this part of the likeliest one's probability; default 0: all"],
  "repetition-penalty": ["X", "divides the logits of tokens that are there already; default 1"],
  "seed": ["N", "another one draws other tokens; default 0"],
  "samples": ["N", "so many texts at once; default 1"],
  "stop": ["TEXT", "ends a text, and is no part of it; may be given several times"],
  "json": ["", "prints texts and what they took as one object of JSON"],
  "tokenizer": ["FOLDER", "folder with tokenizer.json, in place of the one that belongs to the model"],
  "context-length": [
    "N",
    "tokens of prompt and text at most; default: as the model was made for, in a conversation up to 4096",
  ],
  "dtype": ["f32|bf16", "type of weights and products; default f32"],
  "device": ["auto|cpu|cuda", "where to compute; default auto: an NVIDIA GPU where one is found"],
  "threads": ["N", "CPU threads; default 0: one for each core"],
  "nproc": ["N", "ranks that do it together, started here through mpirun; default: as many as --mesh has"],
  "mesh": ["tp=N,pp=N", "tp: ranks that share out each layer; pp: ranks that share out the layers; or both"],
  "help": ["", "prints this"],
};

/** What `--help` prints. */
export function usage(): string {
  const heads = Object.entries(OPTIONS).map(([name, [value]]) => `--${name}${value === "" ? "" : ` ${value}`}`);
  const width = Math.max(...heads.map((head) => head.length));
  const lines = Object.values(OPTIONS).map(([, meaning], i) => `  ${heads[i].padEnd(width)}  ${meaning}`);
  return `Usage: npx -y deno task generate [--from PATH] --prompt TEXT\n\n${lines.join("\n")}`;
}

/** Reads a command line: `--name value` or `--name=value`; `-` and `_` within names are the same.
 * @throws {GenerateError} when it cannot be understood, or a value cannot be. */
export function readGenerateArguments(args: readonly string[]): GenerateArguments {
  const given = new Map<string, string[]>();
  for (let i = 0; i < args.length; i++) {
    const [, raw, inline] = /^--([^=]+)(?:=([^]*))?$/.exec(args[i]) ?? [], name = raw?.replaceAll("_", "-");
    if (name === undefined) {
      throw new GenerateError(
        `"${args[i]}" belongs to no option`,
        "options, such as --prompt TEXT",
        "put the text in quotes",
      );
    }
    if (!Object.hasOwn(OPTIONS, name)) {
      const near = closest(name, Object.keys(OPTIONS));
      throw new GenerateError(`--${raw} is not known`, "an option of deno task generate --help", `write --${near}`);
    }
    const [kind] = OPTIONS[name];
    if (kind === "" && inline !== undefined) {
      throw new GenerateError(`--${name} takes no value`, `--${name} alone`, "leave the value out");
    }
    const value = kind === "" ? "" : inline ?? args[++i];
    if (value === undefined) {
      throw new GenerateError(`--${name} has no value`, `--${name} ${kind}`, "write one behind it");
    }
    given.set(name, [...given.get(name) ?? [], value]);
  }
  const text = (name: string) => given.get(name)?.at(-1);
  const number = (name: string) => {
    const value = text(name);
    if (value === undefined) return undefined;
    if (value.trim() !== "" && Number.isFinite(Number(value))) return Number(value);
    throw new GenerateError(`--${name} is ${JSON.stringify(value)}`, "a number", `write one, such as --${name} 1`);
  };
  const count = (name: string, least: number) => {
    const value = number(name);
    if (value === undefined || Number.isSafeInteger(value) && value >= least) return value;
    throw new GenerateError(`--${name} is ${value}`, `a whole number from ${least} on`, `change --${name}`);
  };
  const sampling = samplingOf({
    temperature: number("temperature"),
    topK: number("top-k"),
    topP: number("top-p"),
    minP: number("min-p"),
    repetitionPenalty: number("repetition-penalty"),
    seed: number("seed"),
  }, (option) => `--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`);
  const chat = given.has("chat"), dtype = text("dtype"), help = given.has("help"), prompt = text("prompt");
  const device = text("device") ?? "auto";
  if (dtype !== undefined && dtype !== "f32" && dtype !== "bf16") {
    throw new GenerateError(`--dtype is ${dtype}`, "f32 or bf16", "write one of these");
  }
  if (device !== "auto" && device !== "cpu" && device !== "cuda") {
    throw new GenerateError(`--device is ${device}`, "auto, cpu or cuda", "write one of these");
  }
  if (prompt === undefined && !chat && !help) {
    throw new GenerateError(
      "There is no prompt",
      "a text to continue, or a conversation",
      "add --prompt TEXT, or --chat",
    );
  }
  if (given.has("system") && !chat) {
    throw new GenerateError("--system is for conversations", "--chat beside it", "add --chat, or leave --system out");
  }
  const json = given.has("json"), samples = count("samples", 1) ?? 1;
  if (json && prompt === undefined && !help) {
    throw new GenerateError("--json is for a text", "--prompt TEXT beside it", "add it, or leave --json out");
  }
  if (samples > 1 && chat && prompt === undefined) {
    throw new GenerateError(
      `--samples is ${samples}`,
      "1 in a conversation",
      "leave --samples out, or add --prompt TEXT",
    );
  }
  return {
    ...{ from: text("from") ?? FROM, prompt, chat, samples, sampling, dtype, device, json, help },
    system: text("system"),
    maxNewTokens: count("max-new-tokens", 1) ?? (chat ? 500 : 100),
    stop: given.get("stop") ?? [],
    tokenizer: text("tokenizer"),
    contextLength: count("context-length", 1),
    threads: count("threads", 0) ?? 0,
    nproc: count("nproc", 1),
    mesh: meshIn(text("mesh")),
  };
}

/** `tp=2,pp=2` as degrees.
 * @throws {GenerateError} when it names other axes, or one twice. */
function meshIn(text: string | undefined): MeshDegrees | undefined {
  if (text === undefined) return undefined;
  const parts = text.split(",").map((part) => /^\s*(pp|tp)\s*=\s*([1-9]\d*)\s*$/.exec(part));
  const named = new Map(parts.flatMap((found) => found ? [[found[1], Number(found[2])]] : []));
  if (named.size === parts.length) return { pp: 1, tp: 1, ...Object.fromEntries(named) };
  throw new GenerateError(
    `--mesh is ${text}`,
    "tp=N, pp=N or both: a text is made token by token, so that the model alone can be shared out",
    "write --mesh tp=2, --mesh pp=2 or --mesh pp=2,tp=2, or leave it out",
  );
}
