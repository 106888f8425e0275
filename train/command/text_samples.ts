/** Texts that a run writes between its steps, so that one sees what it has learned.
 * @module */
import { GenerateError } from "../generate/error.ts";
import { generateFrom, promptTokens } from "../generate/generate.ts";
import { describeRun, type RunUnderWay, weightsOfRun } from "../generate/source.ts";
import { checkPrompt } from "../generate/text_generator.ts";

/** What is written, and when. */
export interface TextSampleOptions {
  /** Steps from one text to the next. */
  readonly freq: number;
  /** Text that is continued. */
  readonly prompt: string;
  /** Tokens of a text. */
  readonly tokens: number;
  readonly seed: number;
  /** Also behind this step. */
  readonly lastStep: number;
  readonly print: (line: string) => void;
  /** Receives what goes wrong; no text follows then. */
  readonly warn: (text: string) => void;
}

/** A run as it is needed here; `Trainer` is one. */
export interface SampledRun extends RunUnderWay {
  /** The other ranks. */
  readonly group?: {
    readonly info: { readonly rank: number };
    meet<T>(work: Promise<T>): Promise<T[]>;
  };
  readonly device: { readonly threads: number };
}

/** The texts of a run. All ranks call the same. */
export class TextSamples {
  readonly #run: SampledRun;
  readonly #options: TextSampleOptions;
  readonly #described: Awaited<ReturnType<typeof describeRun>>;
  #isOff = false;

  private constructor(run: SampledRun, options: TextSampleOptions, described: Awaited<ReturnType<typeof describeRun>>) {
    this.#run = run;
    this.#options = options;
    this.#described = described;
  }

  /** Looks whether texts can be written, so that a mistake is told before the first step.
   * @throws {GenerateError} when not. @throws {DataError} about the tokenizer. */
  static async open(run: SampledRun, options: TextSampleOptions): Promise<TextSamples> {
    const described = await describeRun(run), { length } = promptTokens(described, options.prompt);
    if (length === 0) {
      throw new GenerateError(
        "metrics.sample_prompt is empty, and the tokenizer has no token that begins a document",
        "a text to go on from",
        "set metrics.sample_prompt",
      );
    }
    checkPrompt(length, described.contextLength ?? Infinity);
    return new TextSamples(run, options, described);
  }

  /** Is there to be a text behind this step? */
  isDue(step: number): boolean {
    const { freq, lastStep } = this.#options;
    return !this.#isOff && (step === lastStep || step % freq === 0);
  }

  /** Writes a text. What goes wrong is told, and ends no run. */
  async write(step: number): Promise<void> {
    const { group } = this.#run, { print, warn } = this.#options;
    const isFirst = (group?.info.rank ?? 0) === 0;
    // Of the parameters all ranks have a part.
    const weights = isFirst ? await weightsOfRun(this.#run) : await drained(this.#run.parameters());
    const making = weights ? this.#text(weights).catch((error: Error) => error) : Promise.resolve(undefined);
    const failing = making.then((made) => made instanceof Error);
    const [hasFailed] = group ? await group.meet(failing) : [await failing], made = await making;
    if (made instanceof Error) warn(`Cannot write a text of the run: ${made.message}; none follows`);
    else if (made !== undefined) print(`sample step: ${String(step).padStart(2)}  ${JSON.stringify(made)}`);
    this.#isOff = hasFailed;
  }

  async #text(weights: Awaited<ReturnType<typeof weightsOfRun>>): Promise<string> {
    const { prompt, tokens: maxNewTokens, seed } = this.#options, { threads } = this.#run.device;
    let text = prompt;
    const pieces = generateFrom({ ...this.#described, weights }, { prompt, maxNewTokens, seed, threads });
    for await (const piece of pieces) text += piece.text;
    return text;
  }
}

/** Goes through all of something. */
async function drained(values: AsyncIterable<unknown>): Promise<undefined> {
  for await (const _ of values);
}
