/** A model over caches: it reads tokens of several sequences and tells what may come next, with one native call for each token.
 * @module */
import { Actions } from "../../ffi/buffer.ts";
import { Device } from "../../ffi/device.ts";
import { Program } from "../../ffi/program.ts";
import { numel, type State } from "../../graph/ir.ts";
import { boxOf, replicated } from "../../graph/layout.ts";
import type { EncodedSection } from "../../graph/passes/encode.ts";
import { fullPrecision, type Precision } from "../../graph/passes/precision.ts";
import { targetOf } from "../../graph/target/cuda.ts";
import type { GenerativeModel } from "../../model/cache.ts";
import { buildModel, familyNames } from "../../model/families.ts";
import type { FamilyModel } from "../../model/family.ts";
import { Mesh } from "../../parallel/mesh.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import type { LoadedCheckpoint } from "../checkpoint/load.ts";
import { stretches } from "../checkpoint/pieces.ts";
import { compileGraphs } from "../compile.ts";
import { cutGraphs, generationActions, type Pipeline, pipelineOf, type SectionRun, stageGraphs } from "../pipeline.ts";
import { bindRanks } from "../ranks.ts";
import { newArray, setNumbers, typedArray } from "../typed_array.ts";
import { generationGraphs, generationName, quickest, tokenCounts } from "./graphs.ts";

/** A model that reads on. */
export interface Decoder extends Disposable {
  /** Sequences that it reads side by side. */
  readonly sequences: number;
  /** Logits of a sequence. */
  readonly vocabSize: number;
  /** Tokens of a sequence that there is room for. */
  readonly maxLength: number;
  /** Tokens that each sequence has. */
  readonly lengths: readonly number[];
  /** Reads tokens behind those that each sequence has; none for a sequence that rests. One call at a time.
   * @returns logits `[sequences, vocabSize]` behind the last token of each, valid until the next call: of a sequence that rests those
   * that it had, zeros if it has no tokens yet.
   * @throws {RangeError} when there is no such token, or no room for so many; nothing is read then. */
  extend(tokens: readonly (readonly number[])[]): Promise<Float32Array>;
  /** Forgets all tokens of a sequence behind its first `length`. Its logits stay those behind the token that was read last.
   * @throws {RangeError} when it has fewer. */
  truncate(sequence: number, length: number): void;
}

/** How a decoder computes. */
export interface DecoderOptions {
  /** Sequences that it reads side by side; default 1. */
  readonly sequences?: number;
  /** Tokens of a sequence that there is room for. */
  readonly maxLength: number;
  /** Element type of weights, products and cache; sums and the residual stream are f32 where this is bf16. Default f32. */
  readonly dtype?: "f32" | "bf16" | "f64";
  /** Where it decodes: `cpu`, the default, `cuda`, an NVIDIA GPU, or `auto`: a GPU where one is found. */
  readonly device?: "auto" | "cpu" | "cuda";
  /** CPU threads; default 0: one for each core that the process may use. */
  readonly threads?: number;
  /** What is decoded; default: that of the weights' family and sizes. */
  readonly model?: GenerativeModel;
  /** The ranks of a mesh, which all open a decoder and then read the same tokens; default: this process does it alone.
   * @internal */
  readonly ranks?: DecoderRanks;
}

/** A process among the ranks that decode together.
 * @internal */
export interface DecoderRanks {
  /** Its device, which has joined those of the others.
   * @internal */
  readonly device: Device;
  /** How the ranks are arranged. */
  readonly mesh: Mesh;
  /** Which of them this is. */
  readonly rank: number;
}

/** What a decoder needs of a checkpoint, or of weights that another program has saved: {@linkcode load} gives it. */
export type ModelWeights = Pick<LoadedCheckpoint, "path" | "family" | "tensors" | "read">;

const inBf16: Precision = { ...fullPrecision, param: "bf16", stored: "bf16" };

/** Opens a decoder with a copy of the weights.
 * @throws {CheckpointError} when they are not those of the model. @throws {RangeError} when an option is no positive whole number.
 * @example
 * ```ts
 * import { load, openDecoder } from "@libtitan/titan";
 *
 * using decoder = await openDecoder(load("tests/goldens/hf/plain"), { maxLength: 16 });
 * let logits = await decoder.extend([[1, 7, 3]]);
 * for (let n = 0; n < 5; n++) {
 *   const likeliest = logits.indexOf(Math.max(...logits));
 *   logits = await decoder.extend([[likeliest]]);
 * }
 * ``` */
export async function openDecoder(weights: ModelWeights, options: DecoderOptions): Promise<Decoder> {
  const { sequences = 1, maxLength, dtype = "f32", device: kind, threads = 0 } = options;
  for (const [name, value] of Object.entries({ sequences, maxLength })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot open a decoder: ${name} is ${value}\n  expected: a whole number from 1 on\n  fix: change ${name}`,
      );
    }
  }
  const model = options.model ?? modelOf(weights), isBf16 = dtype === "bf16";
  const shape = { sequences, maxLength, dtype: isBf16 ? "f32" : dtype, cache: dtype } as const;
  using stack = new DisposableStack();
  const device = options.ranks?.device ?? stack.use(new Device({ kind, threads }));
  const pipeline = options.ranks && pipelineOf(model, options.ranks, 1);
  const whole = generationGraphs(model, { ...shape, stages: pipeline?.stages });
  const ranks = options.ranks && bindRanks(model, whole, options.ranks);
  const { mesh, rank } = options.ranks ?? { mesh: new Mesh({}, 1), rank: 0 };
  const parameters = whole[0].states.filter((s) => s.kind === "parameter");
  const graphs = pipeline
    ? stageGraphs(cutGraphs(whole, pipeline.stages.count), pipeline, {
      ...{ mesh, rank, parameters, layoutOf: (state) => ranks!.layouts.state(state) },
    }).graphs
    : whole;
  const { plan, program: encoded } = compileGraphs(graphs, {
    precision: isBf16 ? inBf16 : fullPrecision,
    ...{ threads: device.info.threads, target: targetOf(device.info), ranks, slots: pipeline?.slots },
  });
  const program = stack.use(await Program.create(device, encoded.bytes));
  for (const state of parameters) {
    const place = plan.states.get(state.name);
    if (!place) continue; // of another stage
    const layout = ranks?.layouts.state(state) ?? replicated,
      box = boxOf(state.shape, layout, mesh.factors, mesh.coordinates(rank));
    await putParameter(weights, state, { ...place, starts: box.starts, program });
  }
  const sizes = { sequences, maxLength, vocabSize: model.vocabSize, cacheBytes: plan.categories.cache, pipeline };
  return new ProgramDecoder(program, encoded.sections, { ...sizes, owned: stack.move() });
}

function modelOf({ path, family }: ModelWeights): FamilyModel {
  if (family) return buildModel(family);
  throw new CheckpointError(
    `Cannot generate from ${path}: it does not say the family and sizes of its model`,
    `a checkpoint of a model of a known family, or its weights: ${familyNames}`,
    "give openDecoder the model that was trained",
  );
}

/** Copies what a rank has of a parameter into its program.
 * @param whole the whole parameter. @param part.state what the rank has of it. @param part.starts where that begins. */
async function putParameter(
  weights: ModelWeights,
  whole: State,
  part: {
    readonly state: State;
    readonly offset: number;
    readonly starts: readonly number[];
    readonly program: Program;
  },
): Promise<void> {
  const { name, shape } = whole, { state, offset, starts, program } = part;
  const saved = weights.tensors.get(name), text = saved ? `[${saved.shape}]` : "not there";
  if (text !== `[${shape}]`) {
    throw new CheckpointError(
      `Cannot generate from ${weights.path}: "${name}" is ${text}`,
      `[${shape}], as the model has it`,
      "name weights of this model",
    );
  }
  const values = await weights.read(name), data = newArray(state), all = { starts: shape.map(() => 0), sizes: shape };
  for (const { from, to, length } of stretches(all, { starts, sizes: state.shape })) {
    setNumbers(data.subarray(to, to + length), state.dtype, values.subarray(from, from + length));
  }
  await program.write(offset, data);
}

/** What the program does to read tokens, and where inputs and output are in the host buffers. */
interface Reader {
  /** New tokens of each sequence. */
  readonly count: number;
  readonly actions: Actions;
  readonly tokens: Int32Array;
  readonly positions: Int32Array;
  readonly last: Int32Array;
  readonly logits: Float32Array | Float64Array;
}

interface ProgramDecoderOptions extends Pick<Decoder, "sequences" | "vocabSize" | "maxLength"> {
  readonly cacheBytes: number;
  /** Of the ranks, where they have stages of the model. */
  readonly pipeline?: Pipeline;
  /** What is freed with the decoder; default: nothing. */
  readonly owned?: Disposable;
}

/** A decoder that runs sections of a program, those of {@linkcode generationGraphs}. */
export class ProgramDecoder implements Decoder {
  readonly sequences: number;
  readonly vocabSize: number;
  readonly maxLength: number;
  /** What this process keeps of the tokens. */
  readonly cacheBytes: number;
  /** What `extend` gives, in the element type that is computed in. */
  readonly logits: Float32Array | Float64Array;
  readonly #program: Program;
  /** By the number of new tokens that they take of each sequence. */
  readonly #readers: ReadonlyMap<number, Reader>;
  readonly #lengths: number[];
  readonly #given: Float32Array;
  readonly #owned: Disposable | undefined;

  /** @param program which has the sections loaded. */
  constructor(program: Program, sections: readonly EncodedSection[], options: ProgramDecoderOptions) {
    const { sequences, vocabSize, maxLength, cacheBytes, pipeline, owned } = options;
    this.sequences = sequences;
    this.vocabSize = vocabSize;
    this.maxLength = maxLength;
    this.cacheBytes = cacheBytes;
    this.#program = program;
    this.#readers = new Map(
      tokenCounts(maxLength).map((count) => {
        const runs = generationActions(pipeline, generationName(count));
        return [count, readerOf(program, sections, { count, runs })];
      }),
    );
    this.#lengths = Array(sequences).fill(0);
    this.#given = new Float32Array(sequences * vocabSize);
    this.logits = this.#readers.get(1)!.logits instanceof Float32Array
      ? this.#given
      : new Float64Array(this.#given.length);
    this.#owned = owned;
  }

  get lengths(): readonly number[] {
    return this.#lengths;
  }

  async extend(tokens: readonly (readonly number[])[]): Promise<Float32Array> {
    this.#check(tokens);
    const done = Array<number>(this.sequences).fill(0), starts = [...this.#lengths];
    const left = () => tokens.reduce((most, list, s) => Math.max(most, list.length - done[s]), 0);
    for (let most = left(); most > 0; most = left()) {
      const reader = this.#readers.get(quickest([...this.#readers.keys()], most, this.sequences))!;
      const counts = tokens.map((list, s) => Math.min(list.length - done[s], reader.count));
      for (const [s, list] of tokens.entries()) {
        const row = s * reader.count;
        for (let i = 0; i < reader.count; i++) {
          const isToken = i < counts[s];
          reader.tokens[row + i] = isToken ? list[done[s] + i] : 0;
          reader.positions[row + i] = isToken ? starts[s] + done[s] + i : -1;
        }
        reader.last[s] = Math.max(counts[s] - 1, 0);
      }
      await this.#program.run(reader.actions);
      for (const [s, count] of counts.entries()) {
        if (count === 0) continue;
        done[s] += count;
        this.logits.set(reader.logits.subarray(s * this.vocabSize, (s + 1) * this.vocabSize), s * this.vocabSize);
      }
    }
    // Only now: what a call that failed half way has left is behind what each sequence has.
    tokens.forEach((list, s) => this.#lengths[s] += list.length);
    if (this.logits !== this.#given) this.#given.set(this.logits);
    return this.#given;
  }

  truncate(sequence: number, length: number): void {
    const has = this.#lengths[sequence];
    if (has !== undefined && Number.isInteger(length) && length >= 0 && length <= has) {
      this.#lengths[sequence] = length;
      return;
    }
    throw new RangeError(
      has === undefined
        ? `Cannot truncate sequence ${sequence}: there is none\n  expected: one of 0 to ${this.sequences - 1}\n  ` +
          `fix: correct the number`
        : `Cannot truncate sequence ${sequence} to ${length} tokens: it has ${has}\n  expected: a whole number from 0 to ` +
          `${has}\n  fix: correct the length`,
    );
  }

  #check(tokens: readonly (readonly number[])[]): void {
    const refuse = (what: string, expected: string, fix: string): never => {
      throw new RangeError(`Cannot extend: ${what}\n  expected: ${expected}\n  fix: ${fix}`);
    };
    if (tokens.length !== this.sequences) {
      refuse(
        `tokens of ${tokens.length} sequences`,
        `of ${this.sequences}`,
        "give a list for each, empty where it rests",
      );
    }
    for (const [s, list] of tokens.entries()) {
      const length = this.#lengths[s] + list.length;
      if (length > this.maxLength) {
        refuse(
          `sequence ${s} would have ${length} tokens`,
          `at most ${this.maxLength}, for which there is room`,
          "truncate it, give fewer tokens, or open the decoder with a larger maxLength",
        );
      }
      const stray = list.find((token) => !(Number.isInteger(token) && token >= 0 && token < this.vocabSize));
      if (stray !== undefined) {
        refuse(
          `sequence ${s} has a token ${stray}`,
          `a whole number from 0 to ${this.vocabSize - 1}`,
          "use the tokenizer that the model was trained with",
        );
      }
    }
  }

  /** Frees the program and what belongs to it. */
  [Symbol.dispose](): void {
    this.#owned?.[Symbol.dispose]();
  }
}

function readerOf(
  { input, output }: Program,
  sections: readonly EncodedSection[],
  { count, runs }: { readonly count: number; readonly runs: readonly SectionRun[] },
): Reader {
  // Where there are stages, nothing may have to be handed over between two of them.
  const found = runs.flatMap(({ section: name, slot, source }) => {
    const section = sections.find((s) => s.name === name);
    return section ? [{ section, slot, source }] : [];
  });
  const view = <T>(buffer: ArrayBuffer, of: "inputs" | "outputs", name: string): T => {
    const { value: { dtype, shape }, offset } = found.flatMap(({ section }) => section[of]).find((s) =>
      s.name === name
    )!;
    return typedArray(dtype, buffer, offset, numel(shape)) as T;
  };
  const [tokens, positions, last] = ["tokens", "positions", "last"].map((name) =>
    view<Int32Array>(input.buffer, "inputs", name)
  );
  const logits = view<Float32Array | Float64Array>(output.buffer, "outputs", "logits");
  const actions = new Actions(found.map(({ section: { index }, ...slots }) => ({ section: index, ...slots })));
  return { count, actions, tokens, positions, last, logits };
}
