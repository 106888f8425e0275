/** A page on which one watches runs: a server of this machine alone, whose address has a word that others do not know. It sends what files of
 * metrics hold, and what is added to them, as it comes. @module */
import { basename, dirname, relative, resolve } from "@std/path";
import { pageText } from "./page.ts";
import { COLUMNS, RunLog, type RunUpdate, VALIDATION_COLUMNS } from "./run_log.ts";

/** What {@linkcode LiveServer.open} takes. */
export interface LiveOptions {
  /** Files of metrics, and folders in which there are some. */
  readonly paths: readonly string[];
  /** File of the run that this process makes: it is shown first, and has gone where the page hears nothing more. */
  readonly own?: string;
  /** Of the address; 0: one that is free. */
  readonly port?: number;
  /** The word in the address; default: one that nobody guesses. */
  readonly token?: string;
}

/** Milliseconds from a report to the page: what comes within them goes together. */
const GATHER_MS = 20;

/** Milliseconds between looks at files that others write, and for new files; beside a run of this process, which tells of its own file, and
 * whose steps have the processors. */
const LOOK_MS = 500, LOOK_BESIDE_MS = 2000;

/** Bytes that wait for a page which does not read; then it is let go, and asks again. */
const MOST_WAITING = 64 << 20;

/** Folders below those that are named. */
const DEPTH = 4;

/** Folders of a run that hold no metrics, and many files. */
const PASSED_OVER = /^(step-\d+|.*traces.*|tb|node_modules|\..*)$/;

/** The server of the page. */
export class LiveServer implements AsyncDisposable {
  /** Where the page is. */
  readonly address: string;
  readonly #options: LiveOptions;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #logs = new Map<string, RunLog>();
  readonly #readers = new Set<ReadableStreamDefaultController<Uint8Array>>();
  /** Of this server: a page that comes back to another one begins anew. */
  readonly #name = crypto.randomUUID();
  #looking: ReturnType<typeof setInterval> | undefined;
  #gathering: ReturnType<typeof setTimeout> | undefined;

  private constructor(options: LiveOptions) {
    this.#options = options;
    const token = options.token ?? crypto.randomUUID().replaceAll("-", "");
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: options.port ?? 0, onListen: () => {} },
      (request) => this.#answer(new URL(request.url).pathname, `/${token}/`),
    );
    this.address = `http://127.0.0.1:${this.#server.addr.port}/${token}/`;
  }

  /** Begins to serve; files are read when somebody looks. Needs `--allow-net=127.0.0.1` and `--allow-read`.
   * @throws {Deno.errors.AddrInUse} when the port is taken. */
  static open(options: LiveOptions): LiveServer {
    return new LiveServer(options);
  }

  /** Something was written to the own run's file. */
  write(): void {
    if (this.#readers.size > 0) this.#gathering ??= setTimeout(() => this.#send(false), GATHER_MS);
  }

  /** Sends what is left, and ends. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#send(false);
    clearInterval(this.#looking);
    this.#readers.forEach((reader) => reader.close());
    this.#readers.clear();
    await this.#server.shutdown();
  }

  #answer(path: string, at: string): Response {
    const headers = {
      "cache-control": "no-store",
      "referrer-policy": "no-referrer",
      "x-content-type-options": "nosniff",
    };
    if (path === at) {
      return new Response(pageText({ columns: COLUMNS, validationColumns: VALIDATION_COLUMNS }), {
        headers: { ...headers, "content-type": "text/html; charset=utf-8", "content-security-policy": POLICY },
      });
    }
    if (path === `${at}events`) {
      return new Response(this.#events(), { headers: { ...headers, "content-type": "text/event-stream" } });
    }
    return new Response("There is no such page: the address that the run has printed has a word in it.\n", {
      status: 404,
    });
  }

  /** All there is, and then what is new. */
  #events(): ReadableStream<Uint8Array> {
    let mine: ReadableStreamDefaultController<Uint8Array>;
    return new ReadableStream({
      start: (controller) => {
        mine = controller;
        this.#send(true); // so that all readers know as much
        controller.enqueue(message({ server: this.#name }));
        for (const log of this.#logs.values()) this.#all(log).forEach((data) => controller.enqueue(data));
        controller.enqueue(message({ quiet: this.#quiet() }));
        this.#readers.add(controller);
        const every = this.#options.own === undefined ? LOOK_MS : LOOK_BESIDE_MS;
        this.#looking ??= setInterval(() => this.#readers.size > 0 && this.#send(true), every);
      },
      cancel: () => void this.#readers.delete(mine),
    }, { highWaterMark: MOST_WAITING, size: (chunk) => chunk.length });
  }

  /** Everything of a run. */
  #all(log: RunLog): Uint8Array[] {
    const { path } = log,
      about = { run: path, name: nameOf(path, this.#options.paths[0]), own: path === this.#options.own };
    return [message(about), ...log.updates.map((update) => message({ run: path, ...update }))];
  }

  /** Sends what is new. @param look for new files too, and at those of others. */
  #send(look: boolean): void {
    clearTimeout(this.#gathering);
    this.#gathering = undefined;
    const fresh = look ? this.#find() : [];
    for (const log of this.#logs.values()) {
      if (!look && log.path !== this.#options.own) continue;
      const added = log.read(), isNew = fresh.includes(log);
      if (isNew || added === "anew") this.#tell(this.#all(log));
      else if (added.length > 0) this.#tell(added.map((update: RunUpdate) => message({ run: log.path, ...update })));
    }
    if (look) this.#tell([message({ quiet: this.#quiet() })]);
  }

  #tell(messages: readonly Uint8Array[]): void {
    for (const reader of this.#readers) {
      if ((reader.desiredSize ?? 0) <= 0) {
        reader.close();
        this.#readers.delete(reader);
      } else messages.forEach((data) => reader.enqueue(data));
    }
  }

  /** Seconds since each file was written to. */
  #quiet(): Record<string, number> {
    return Object.fromEntries(
      [...this.#logs.keys()].flatMap((path) => {
        try {
          return [[path, Math.round((Date.now() - Deno.statSync(path).mtime!.getTime()) / 1000)]];
        } catch {
          return []; // put aside or deleted
        }
      }),
    );
  }

  /** Files that were not there at the last look. */
  #find(): RunLog[] {
    const found = this.#options.paths.flatMap((path) => isFolder(path) ? metricsIn(path, DEPTH) : [path]);
    const fresh = found.filter((path) => !this.#logs.has(path)).map((path) => new RunLog(path));
    fresh.forEach((log) => this.#logs.set(log.path, log));
    return fresh;
  }
}

/** The page loads nothing, and talks to its server alone. */
const POLICY =
  "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** What people call a run: its folder, seen from the one that was named, and a number where others came behind it. */
function nameOf(path: string, root: string): string {
  const folder = relative(isFolder(root) ? root : dirname(root), dirname(path)) || basename(dirname(resolve(path)));
  const file = basename(path, ".jsonl");
  return file === "metrics" ? folder : `${folder} ${file.replace(/^metrics\./, "")}`;
}

function message(data: unknown): Uint8Array {
  return new TextEncoder().encode(`data: ${JSON.stringify(data)}\n\n`);
}

/** The files of metrics in a folder and in those below, sorted. */
function metricsIn(folder: string, depth: number): string[] {
  const paths: string[] = [];
  for (const { name, isFile, isDirectory } of entriesOf(folder)) {
    const path = `${folder.replace(/\/+$/, "")}/${name}`;
    if (isFile && name.endsWith(".jsonl") && beginsRun(path)) paths.push(path);
    else if (isDirectory && depth > 0 && !PASSED_OVER.test(name)) paths.push(...metricsIn(path, depth - 1));
  }
  return paths.sort();
}

function entriesOf(folder: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(folder)];
  } catch {
    return []; // it is gone, or is not ours to read
  }
}

/** Does a file begin as one of metrics does? */
function beginsRun(path: string): boolean {
  const begin = '{"run":', bytes = new Uint8Array(begin.length);
  using file = Deno.openSync(path);
  return file.readSync(bytes) === bytes.length && new TextDecoder().decode(bytes) === begin;
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}
