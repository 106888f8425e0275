/** A launcher in a process of its own, as tests watch it: what it prints, and the processes that it starts.
 * @module */
import { assert } from "@std/assert";

/** Runs a script with all permissions. */
export class Launcher {
  readonly #process: Deno.ChildProcess;
  readonly #begun = performance.now();
  readonly #reading: Promise<unknown>;
  readonly #waiting = new Set<() => void>();
  /** What it has printed so far. */
  out = "";
  /** What it has printed as errors so far. */
  err = "";

  /** Starts it. Each of its ranks has to print `pid N`. */
  constructor(script: URL, args: readonly string[], env: Record<string, string> = {}) {
    this.#process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", script.pathname, ...args],
      env: { NO_COLOR: "1", ...env },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#reading = Promise.all([
      this.#read(this.#process.stdout, (text) => this.out += text),
      this.#read(this.#process.stderr, (text) => this.err += text),
    ]);
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>, add: (text: string) => void): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      add(text);
      this.#waiting.forEach((look) => look());
    }
  }

  /** Waits until its output matches. */
  async until(pattern: RegExp): Promise<void> {
    let give: () => void = () => {};
    const seen = new Promise<void>((resolve) => {
      give = () => pattern.test(this.out) && resolve();
      give();
    });
    this.#waiting.add(give);
    await Promise.race([seen, this.#reading]);
    this.#waiting.delete(give);
    assert(pattern.test(this.out), `it never printed ${pattern}\n${this.out}\n${this.err}`);
  }

  /** Process of a rank, once all of `count` have said it. */
  async pids(count: number): Promise<number[]> {
    await this.until(new RegExp(`(pid \\d+[^]*){${count}}`));
    const found = [...this.out.matchAll(/^\[rank(\d+)\] pid (\d+)$/gm)].map((
      [, rank, pid],
    ) => [Number(rank), Number(pid)]);
    return found.sort((a, b) => a[0] - b[0]).map(([, pid]) => pid);
  }

  /** Sends it a signal. */
  kill(signal: Deno.Signal): void {
    this.#process.kill(signal);
  }

  /** Waits for its end. Then none of its ranks may be left, nor come to an end much later. */
  async ended(): Promise<{ readonly code: number; readonly seconds: number }> {
    const { code } = await this.#process.status;
    await this.#reading;
    const seconds = (performance.now() - this.#begun) / 1000;
    const pids = [...this.out.matchAll(/\bpid (\d+)$/gm)].map(([, pid]) => Number(pid));
    for (let waited = 0; pids.some(isAlive) && waited < 5000; waited += 50) await new Promise((r) => setTimeout(r, 50));
    const left = pids.filter(isAlive);
    left.forEach((pid) => Deno.kill(pid, "SIGKILL"));
    assert(left.length === 0, `processes ${left} were left`);
    return { code, seconds };
  }
}

/** What the system says of a process; empty where there is none. Deno itself reads `/proc` for those alone who may do all. */
export function statusOf(pid: number): string {
  const { stdout } = new Deno.Command("cat", { args: [`/proc/${pid}/status`], stderr: "null" }).outputSync();
  return new TextDecoder().decode(stdout);
}

function isAlive(pid: number): boolean {
  return /^State:\s+[^ZX\s]/m.test(statusOf(pid));
}
