/** Texts that a run writes between its steps, so that one sees what it has learned.
 * @module */
import { GenerateError } from "../generate/error.ts";
import type { Decoder } from "../generate/decoder.ts";
import { promptTokens } from "../generate/generate.ts";
import { samplingOf } from "../generate/sampler.ts";
import { describeRun, type RunUnderWay } from "../generate/source.ts";
import { checkPrompt, TextGenerator } from "../generate/text_generator.ts";

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
  /** Receives each text, as it is. */
  readonly keep?: (step: number, text: string) => void;
  /** Receives what goes wrong; no text follows then. */
  readonly warn: (text: string) => void;
}

/** A run as it is needed here; `Trainer` is one that was opened with `generate`. */
export interface SampledRun extends Pick<RunUnderWay, "options"> {
  readonly decoder: Decoder;
}

type Described = Awaited<ReturnType<typeof describeRun>>;

/** The texts of a run. All ranks call the same. */
export class TextSamples {
  readonly #run: SampledRun;
  readonly #options: TextSampleOptions;
  readonly #described: Described;
  readonly #prompt: readonly number[];
  #isOff = false;

  private constructor(run: SampledRun, options: TextSampleOptions, described: Described, prompt: readonly number[]) {
    this.#run = run;
    this.#options = options;
    this.#described = described;
    this.#prompt = prompt;
  }

  /** Looks whether texts can be written, so that a mistake is told before the first step.
   * @throws {GenerateError} when not. @throws {DataError} about the tokenizer. */
  static async open(run: SampledRun, options: TextSampleOptions): Promise<TextSamples> {
    const described = await describeRun(run), tokens = promptTokens(described, options.prompt), { length } = tokens;
    if (length === 0) {
      throw new GenerateError(
        "metrics.sample_prompt is empty, and the tokenizer has no token that begins a document",
        "a text to go on from",
        "set metrics.sample_prompt",
      );
    }
    checkPrompt(length, Math.min(described.contextLength ?? Infinity, run.decoder.maxLength));
    return new TextSamples(run, options, described, tokens);
  }

  /** Is there to be a text behind this step? */
  isDue(step: number): boolean {
    const { freq, lastStep } = this.#options;
    return !this.#isOff && (step === lastStep || step % freq === 0);
  }

  /** Writes a text. What goes wrong is told, and ends no run. */
  async write(step: number): Promise<void> {
    const { print, keep, warn } = this.#options;
    try {
      const text = await this.#text();
      print(`sample step: ${String(step).padStart(2)}  ${JSON.stringify(text)}`);
      keep?.(step, text);
    } catch (error) {
      if (!(error instanceof GenerateError)) throw error;
      this.#isOff = true;
      warn(`Cannot write a text of the run: ${error.message}; none follows`);
    }
  }

  /** All ranks draw the same tokens. */
  async #text(): Promise<string> {
    const { prompt, tokens: maxNewTokens, seed } = this.#options, { decoder } = this.#run;
    decoder.truncate(0, 0);
    const generator = new TextGenerator(this.#described, decoder), sampling = samplingOf({ seed });
    let text = prompt;
    for await (const piece of generator.continue(this.#prompt, { sampling, maxNewTokens, stop: [] })) {
      text += piece.text;
    }
    return text;
  }
}
