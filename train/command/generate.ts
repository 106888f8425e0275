/** `deno task generate`: text to the terminal as it comes, or a conversation.
 * @module */
import { DataError } from "../../data/error.ts";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { LibraryError } from "../../ffi/library.ts";
import { LayoutError } from "../../graph/layout.ts";
import { exitCodeOf, followLauncher, onStop, type StopSignal } from "../../launch/stop.ts";
import { LaunchError, type World, worldOf } from "../../launch/world.ts";
import { Mesh } from "../../parallel/mesh.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import { writeFullySync } from "../checkpoint/files.ts";
import { findCheckpoints } from "../checkpoint/open.ts";
import type { ChatMessage } from "../../data/chat_template.ts";
import { type Decoder, type DecoderRanks, openDecoder } from "../generate/decoder.ts";
import { GenerateError } from "../generate/error.ts";
import { chatTokens, promptTokens, roomFor } from "../generate/generate.ts";
import { openSource, type TextSource } from "../generate/source.ts";
import { checkPrompt, type GenerationStatistics, TextGenerator, type TextPiece } from "../generate/text_generator.ts";
import { ProcessGroup } from "../process_group.ts";
import { type GenerateArguments, readGenerateArguments, usage } from "./generate_arguments.ts";
import { launchRanks, numRanks } from "./start_ranks.ts";
import { enterWorkingFolder } from "./working_folder.ts";

/** Errors that say all there is to say. */
const KNOWN = [GenerateError, CheckpointError, DataError, LibraryError, TitanError, LaunchError, LayoutError];

/** Tokens that a conversation has room for, unless it is said otherwise: all that a model was made for may take much memory. */
const CHAT_LENGTH = 4096;

/** Milliseconds that ranks have to end a text behind the token under way. */
const GRACE_MS = 10_000;

/** Where text comes from and goes. */
export interface Terminal {
  /** Writes text, as it is. */
  readonly out: (text: string) => void;
  /** Writes what is not text of the model. */
  readonly note: (text: string) => void;
  /** What somebody says, line by line. */
  readonly lines: () => AsyncIterable<string>;
  /** See {@linkcode onStop}. */
  readonly onStop: (listener: (signal: StopSignal) => void) => () => void;
}

/** Runs the command; returns the exit code: 0, 1 after an error, 130 after Ctrl-C. */
export async function generateCommand(args: readonly string[], terminal: Terminal): Promise<number> {
  try {
    const options = readGenerateArguments(args);
    if (options.help) {
      terminal.out(`${usage()}\n`);
      return 0;
    }
    const found = worldOf(), world = found?.size === 1 ? undefined : found;
    const size = numRanks(world?.size, options.nproc ?? (options.mesh && options.mesh.pp * options.mesh.tp));
    if (size === 1) return await run(options, terminal);
    if (options.chat && options.prompt === undefined) {
      throw new GenerateError(
        "Several ranks read no conversation from standard input",
        "--prompt TEXT beside --chat",
        "add it, or leave out --mesh and --nproc",
      );
    }
    if (world) return await runAsRank(options, terminal, world);
    const ended = await launchRanks(size, args, {
      ...{ threads: options.threads, graceMs: GRACE_MS, asOne: true },
      main: import.meta.url, // which may not be what this process was started with
    });
    return ended.code;
  } catch (error) {
    if (!KNOWN.some((kind) => error instanceof kind)) throw error;
    terminal.note(`error: ${(error as Error).message}\n`);
    return 1;
  }
}

/** Runs as one of several ranks, all of which draw the same tokens; the first one writes them. */
async function runAsRank(options: GenerateArguments, terminal: Terminal, world: World): Promise<number> {
  const { rank, size } = world, mesh = new Mesh({ dp_shard: 1, ...options.mesh ?? { tp: size } }, size);
  followLauncher(world);
  const { device: kind, threads } = options, { hostRank: ordinal, hostSize } = world;
  using device = new Device({ kind, ordinal, threads, hostSize });
  await using group = await ProcessGroup.open(device, world);
  const silent = { ...terminal, out: () => {}, note: () => {} };
  try {
    await run(options, rank === 0 ? terminal : silent, { device, mesh, rank, group });
    return 0; // whoever started the ranks knows what stopped them
  } catch (error) {
    group.fail(error);
    throw error;
  }
}

async function run(
  options: GenerateArguments,
  terminal: Terminal,
  together?: DecoderRanks & { readonly group: ProcessGroup },
): Promise<number> {
  const from = latestOf(options.from), { prompt, chat, contextLength, maxNewTokens } = options;
  if (from !== options.from) terminal.note(`from ${from}\n`);
  const source = await openSource(from, options), isConversation = chat && prompt === undefined;
  const system: ChatMessage[] = options.system === undefined ? [] : [{ role: "system", content: options.system }];
  const tokens = prompt === undefined
    ? chatTokens(source, [...system, { role: "user", content: "" }]) // so that a missing template is told now
    : chat
    ? chatTokens(source, [...system, { role: "user", content: prompt }])
    : promptTokens(source, prompt);
  const needed = isConversation ? contextLength ?? CHAT_LENGTH : tokens.length + maxNewTokens;
  const maxLength = roomFor(source, needed, contextLength);
  checkPrompt(tokens.length, maxLength);
  const { samples: sequences, dtype, device, threads } = options;
  using decoder = await openDecoder(source.weights, { sequences, maxLength, dtype, device, threads, ranks: together });
  const stopping = (): Promise<void> => speaker.agree(together!.group);
  const generator = new TextGenerator(source, together ? agreeing(decoder, stopping) : decoder);
  const speaker = new Speaker(generator, options, terminal, together !== undefined);
  if (isConversation) return await converse(source, system, speaker, terminal);
  if (!chat && sequences === 1 && !options.json) terminal.out(prompt!);
  await speaker.say(tokens, chat ? "" : prompt!);
  return speaker.stopped ? exitCodeOf(speaker.stopped) : 0;
}

/** A decoder that does something before it reads on. */
function agreeing(decoder: Decoder, before: () => Promise<void>): Decoder {
  const { sequences, vocabSize, maxLength } = decoder;
  return {
    ...{ sequences, vocabSize, maxLength },
    get lengths() {
      return decoder.lengths;
    },
    async extend(tokens) {
      await before();
      return await decoder.extend(tokens);
    },
    truncate: (sequence, length) => decoder.truncate(sequence, length),
    [Symbol.dispose]: () => decoder[Symbol.dispose](),
  };
}

/** Takes turns until there is no further line, or somebody stops it while nothing is said. */
async function converse(
  source: TextSource,
  system: readonly ChatMessage[],
  speaker: Speaker,
  { note, lines, onStop }: Terminal,
): Promise<number> {
  const messages = [...system], stopped = Promise.withResolvers<{ done: true; value: StopSignal }>();
  const off = onStop((signal) => speaker.isSpeaking || stopped.resolve({ done: true, value: signal }));
  const input = lines()[Symbol.asyncIterator]();
  try {
    for (;;) {
      note("> ");
      const line = await Promise.race([input.next(), stopped.promise]);
      if (line.done) {
        note("\n");
        return line.value === undefined ? 0 : exitCodeOf(line.value);
      }
      if (line.value.trim() === "") continue;
      messages.push({ role: "user", content: line.value });
      messages.push({ role: "assistant", content: await speaker.say(chatTokens(source, messages), "") });
    }
  } finally {
    off();
  }
}

/** Has the model speak, and tells what it took. */
class Speaker {
  /** What ended the last text from outside. */
  stopped: StopSignal | undefined;
  /** Is a text under way? */
  isSpeaking = false;
  readonly #generator: TextGenerator;
  readonly #options: GenerateArguments;
  readonly #terminal: Terminal;
  readonly #isOfSeveral: boolean;
  #stopping = new AbortController();

  /** @param isOfSeveral does it stop when all ranks have agreed to? */
  constructor(generator: TextGenerator, options: GenerateArguments, terminal: Terminal, isOfSeveral: boolean) {
    this.#isOfSeveral = isOfSeveral;
    this.#generator = generator;
    this.#options = options;
    this.#terminal = terminal;
  }

  /** Has all ranks stop behind the same token. */
  async agree(group: ProcessGroup): Promise<void> {
    const stops = await group.exchange([this.stopped ? 1 : 0]);
    if (stops.some((stop) => stop !== 0)) this.#stopping.abort();
  }

  /** Writes texts while they come; returns the first.
   * @param before what is written before each of several. */
  async say(tokens: readonly number[], before: string): Promise<string> {
    const { out, note, onStop } = this.#terminal, { samples, sampling, maxNewTokens, stop, json } = this.#options;
    const texts = new Samples(samples, before, json ? () => {} : out);
    const said = Array.from({ length: samples }, () => ({ text: "", end: "" }));
    const stopping = this.#stopping = new AbortController();
    this.stopped = undefined;
    this.isSpeaking = true;
    const off = onStop((signal) => {
      this.stopped = signal;
      if (!this.#isOfSeveral) stopping.abort();
    });
    try {
      const { signal } = stopping;
      for await (const piece of this.#generator.continue(tokens, { sampling, maxNewTokens, stop, signal })) {
        texts.add(piece);
        said[piece.sample].text += piece.text;
        said[piece.sample].end = piece.end ?? "";
      }
    } finally {
      off();
      this.isSpeaking = false;
    }
    const statistics = this.#generator.statistics!, { prompt } = this.#options;
    if (json) out(`${JSON.stringify({ prompt, texts: said, statistics }, null, 2)}\n`);
    note(`${statisticsText(statistics)}\n`);
    return said[0].text;
  }
}

/** Texts one below the other: one is written as it comes, and those behind it once it has ended. */
class Samples {
  readonly #waiting: string[];
  readonly #ended: boolean[];
  readonly #out: (text: string) => void;
  #shown = 0;

  constructor(count: number, before: string, out: (text: string) => void) {
    this.#waiting = Array.from({ length: count }, (_, n) => count === 1 ? "" : `--- sample ${n + 1} ---\n${before}`);
    this.#ended = this.#waiting.map(() => false);
    this.#out = out;
  }

  add({ sample, text, end }: TextPiece): void {
    this.#waiting[sample] += end ? `${text}\n` : text;
    this.#ended[sample] = end !== undefined;
    while (this.#shown < this.#waiting.length) {
      this.#out(this.#waiting[this.#shown]);
      this.#waiting[this.#shown] = "";
      if (!this.#ended[this.#shown]) return;
      this.#shown++;
    }
  }
}

/** What a text took, in a line. */
export function statisticsText(
  { newTokens, firstTokenMs, decodeMs, readTokens, ...rest }: GenerationStatistics,
): string {
  const { promptTokens } = rest, known = promptTokens - readTokens;
  const rate = newTokens > 1 && decodeMs > 0 ? `, ${((newTokens - 1) / decodeMs * 1000).toFixed(1)} tokens/s` : "";
  return `[${promptTokens} tokens of prompt${known > 0 ? `, ${known} of them known` : ""}, first token after ` +
    `${Math.round(firstTokenMs)} ms; ${newTokens} new tokens${rate}]`;
}

/** The latest checkpoint of a folder of checkpoints, or of a run; else the path as it is. */
function latestOf(path: string): string {
  for (const folder of [path, `${path}/checkpoint`].filter(isFolder)) {
    const [latest] = findCheckpoints(folder).complete;
    if (latest) return latest.path;
  }
  return path;
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false; // whoever opens it says what is wrong
  }
}

/** Lines of standard input. */
async function* inputLines(): AsyncGenerator<string, void> {
  const decoder = new TextDecoder(), bytes = new Uint8Array(4096);
  let text = "";
  for (let length; (length = await Deno.stdin.read(bytes)) !== null;) {
    text += decoder.decode(bytes.subarray(0, length), { stream: true });
    const lines = text.split(/\r?\n/);
    text = lines.pop()!;
    yield* lines;
  }
  if (text !== "") yield text;
}

/** The terminal of this process. */
export function ownTerminal(): Terminal {
  const encoder = new TextEncoder();
  return {
    out: (text) => writeFullySync(Deno.stdout, encoder.encode(text)),
    note: (text) => writeFullySync(Deno.stderr, encoder.encode(text)),
    lines: inputLines,
    onStop,
  };
}

if (import.meta.main) {
  enterWorkingFolder();
  Deno.exit(await generateCommand(Deno.args, ownTerminal()));
}
