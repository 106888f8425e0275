/**
 * Requests to the hub that outlive a bad network: what may pass is tried again, later and later, at most as long as the
 * server asks for; a server that does not answer, or stops in the middle, is left.
 * @module
 */
import { DataError } from "../error.ts";
import type { HubSettings } from "./settings.ts";

/** How patient to be. All times are milliseconds. */
export interface Patience {
  /** Times that one thing is tried without getting on. */
  readonly attempts: number;
  /** Time for an answer to begin. */
  readonly answer: number;
  /** Time without a byte in the middle of one. */
  readonly silence: number;
  /** Wait before the second try; it doubles from try to try. */
  readonly firstWait: number;
  /** The longest wait, also where the server asks for a longer one: then the error says so at once. */
  readonly longestWait: number;
}

/** Patience with a hub on the internet: with seven waits, about two minutes. */
export const PATIENCE: Patience = {
  attempts: 8,
  answer: 15_000,
  silence: 30_000,
  firstWait: 1000,
  longestWait: 310_000, // the hub's limits are per five minutes
};

/** What {@linkcode Requests} are made of. */
export interface RequestOptions {
  readonly patience?: Patience;
  /** Is told of each wait. */
  readonly say?: (line: string) => void;
  /** Ends whatever is under way. */
  readonly signal?: AbortSignal;
}

/** What to ask for. */
export interface Ask {
  readonly method?: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  /** The kinds of answer that are none to follow: an address elsewhere is given back as it is. */
  readonly stay?: boolean;
}

/** Something that may pass: the same may work when tried again. */
export class Passing extends Error {
  /** Tells it from other errors. */
  override readonly name = "Passing";
  /** How long the server wants to be left alone, in milliseconds. */
  readonly wait: number | undefined;

  /** @param what went wrong, as a sentence without a full stop. */
  constructor(what: string, { wait, cause }: { readonly wait?: number; readonly cause?: unknown } = {}) {
    super(what, { cause });
    this.wait = wait;
  }
}

const MAX_REDIRECTS = 10;

/** Requests with one token and one patience. */
export class Requests {
  readonly settings: HubSettings;
  readonly patience: Patience;
  readonly #options: RequestOptions;

  /** Nothing is asked yet. */
  constructor(settings: HubSettings, options: RequestOptions = {}) {
    this.settings = settings;
    this.patience = options.patience ?? PATIENCE;
    this.#options = options;
  }

  /** The same, but all that is under way ends with the signal. */
  until(signal: AbortSignal): Requests {
    return new Requests(this.settings, { ...this.#options, signal });
  }

  /** The answer to one question, of a status below 400. The caller reads or cancels its body.
   * @param what is asked for, for people.
   * @throws {DataError} when it cannot be had. */
  async ask(what: string, url: string, ask: Ask = {}): Promise<Response> {
    return await this.retrying(what, () => this.once(what, url, ask));
  }

  /** Does something until it ends without an error that may pass.
   * @param attempt does it; `progress` is called by it whenever it gets on, and makes patience new.
   * @throws {DataError} when patience is at its end. */
  async retrying<T>(what: string, attempt: (progress: () => void) => Promise<T>): Promise<T> {
    const { attempts, firstWait, longestWait } = this.patience;
    for (let tries = 1;; tries++) {
      try {
        return await attempt(() => tries = 0);
      } catch (error) {
        this.#options.signal?.throwIfAborted();
        if (!(error instanceof Passing)) throw error;
        // Halves at random, so that the ranks of a job do not come back all at once.
        const wait = Math.max(
          error.wait ?? 0,
          Math.min(firstWait * 2 ** Math.max(0, tries - 1), 60_000) *
            (0.5 + Math.random() / 2),
        );
        if (tries >= attempts || wait > longestWait) throw gaveUp(what, error, tries, wait > longestWait);
        this.#options.say?.(`${what}: ${error.message}; trying again in ${(wait / 1000).toFixed(1)} s`);
        await this.#sleep(wait);
      }
    }
  }

  /** One try of {@linkcode ask}.
   * @throws {Passing} where another may do. */
  async once(what: string, url: string, { method = "GET", headers = {}, stay = false }: Ask = {}): Promise<Response> {
    if (this.settings.offline) throw offline(what);
    for (let redirects = 0, at = url; redirects <= MAX_REDIRECTS; redirects++) {
      const response = await this.#send(what, at, method, headers);
      const to = response.status >= 300 && response.status < 400 ? response.headers.get("location") : null;
      // A renamed repository is told by an address on the hub itself; the address of the bytes is elsewhere.
      const next = to === null ? undefined : new URL(to, at);
      if (next === undefined || stay && response.headers.has("x-linked-etag")) {
        if (response.status < 400) return response;
        throw await refusal(what, response, this.settings);
      }
      await response.body?.cancel();
      at = next.href;
    }
    throw new Passing(`more than ${MAX_REDIRECTS} redirects`);
  }

  /** The bytes of an answer as they come.
   * @throws {Passing} when it breaks off or falls silent. */
  async *bytes(response: Response): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
    if (response.body === null) return;
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { done, value } = await this.#within(this.patience.silence, "no byte came", reader.read());
        if (done) return;
        yield value;
      }
    } catch (error) {
      if (error instanceof Passing) throw error;
      this.#options.signal?.throwIfAborted();
      throw new Passing(`the connection broke (${innermost(error)})`, { cause: error });
    } finally {
      await reader.cancel().catch(() => {}); // an answer that is broken or read is nothing to cancel
    }
  }

  async #send(what: string, url: string, method: string, headers: Readonly<Record<string, string>>): Promise<Response> {
    const { endpoint, token } = this.settings;
    const abort = new AbortController();
    const known = new URL(url).origin === new URL(endpoint).origin;
    const answer = fetch(url, {
      method,
      headers: {
        "accept-encoding": "identity", // or lengths and ranges are those of something else
        ...headers,
        ...(known && token !== undefined ? { authorization: `Bearer ${token}` } : {}),
      },
      redirect: "manual",
      signal: abort.signal,
    });
    try {
      return await this.#within(this.patience.answer, "no answer came", answer);
    } catch (error) {
      abort.abort();
      answer.then((late) => late.body?.cancel(), () => {});
      this.#options.signal?.throwIfAborted();
      if (error instanceof Passing) throw error;
      if (error instanceof Deno.errors.NotCapable) throw notAllowed(what, error);
      throw new Passing(`no connection (${innermost(error)})`, { cause: error });
    }
  }

  /** Waits for something, but no longer than `time`, and not beyond the signal. */
  async #within<T>(time: number, what: string, promise: Promise<T>): Promise<T> {
    promise.catch(() => {}); // it may fail when it is no longer waited for
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Passing(`${what} for ${time / 1000} s`)), time);
    const { signal } = this.#options, stop = () => late.reject(signal!.reason);
    signal?.addEventListener("abort", stop);
    try {
      signal?.throwIfAborted();
      return await Promise.race([promise, late.promise]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }

  async #sleep(time: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, time);
    try {
      await this.#within(2 * time + 1000, "no time went by", promise);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The wait that an answer asks for, in milliseconds: seconds or a date, or what is left of the hub's window. */
export function waitOf(headers: Headers, now: number = Date.now()): number | undefined {
  const after = headers.get("retry-after"),
    limit = /;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)/.exec(headers.get("ratelimit") ?? "");
  if (after !== null && /^\s*\d+\s*$/.test(after)) return Number(after) * 1000;
  if (after !== null && !Number.isNaN(Date.parse(after))) return Math.max(0, Date.parse(after) - now);
  return limit === null ? undefined : Number(limit[1]) * 1000;
}

/** What an answer from 400 on means. */
async function refusal(what: string, response: Response, { endpoint, token }: HubSettings): Promise<Error> {
  await response.body?.cancel();
  const { status, headers } = response;
  const why = headers.get("x-error-message") ?? response.statusText;
  const answered = `the hub answered ${status}${why ? ` (${why})` : ""}`;
  if (status === 408 || status === 429 || status >= 500) return new Passing(answered, { wait: waitOf(headers) });
  const isPrivate = status === 401 || status === 403;
  return new DataError({
    code: isPrivate ? "no_access" : "no_such_file",
    what: `Cannot get ${what}: ${answered}`,
    expected: isPrivate ? `a repository of ${endpoint} that this user may read` : `a name that ${endpoint} knows`,
    fix: !isPrivate
      ? "correct the repository's name, the revision and the path"
      : token === undefined
      ? "log in with `hf auth login`, or set HF_TOKEN; a gated repository wants its terms accepted on its page first"
      : "see that the token (HF_TOKEN) may read it, and that its terms are accepted on its page",
  });
}

function gaveUp(what: string, error: Passing, tries: number, tooLong: boolean): DataError {
  return new DataError({
    code: "unreachable",
    what: `Cannot get ${what}: ${error.message}` +
      (tooLong
        ? `, and wants to be left alone for ${Math.round(error.wait! / 1000)} s`
        : `, at the last of ${tries} tries`),
    expected: "an answer over the network",
    fix: "try again later (what has come is kept), or give the path of a local copy",
  }, { cause: error });
}

function offline(what: string): DataError {
  return new DataError({
    code: "unreachable",
    what: `Cannot get ${what}: HF_HUB_OFFLINE is set, and it is not in the cache`,
    expected: "a file of the cache",
    fix: "take HF_HUB_OFFLINE away, or download it before: deno task download",
  });
}

function notAllowed(what: string, cause: Error): DataError {
  return new DataError({
    code: "unreachable",
    what: `Cannot get ${what}: ${cause.message}`,
    expected: "a process that may use the network",
    fix: "run it with --allow-net",
  }, { cause });
}

/** The message at the bottom of an error, where the system's own words are. */
function innermost(error: unknown): string {
  let at = error as Error;
  while (at.cause instanceof Error) at = at.cause;
  return at.message.replace(/^error sending request for url \(.*?\): /, "");
}
