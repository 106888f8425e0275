/**
 * A server on this machine that plays the hub: its lists in pages, its addresses that lead to large files elsewhere, its
 * headers; and whatever can go wrong between it and a client. It speaks HTTP on bare connections, as no server that keeps to
 * the rules could break them.
 * @module
 */
import { createHash } from "node:crypto";

/** What goes wrong with one answer. */
export type Fault =
  /** Another status than the right one. */
  | { readonly kind: "status"; readonly status: number; readonly headers?: Readonly<Record<string, string>> }
  /** No answer at all: the connection closes at once. */
  | { readonly kind: "close" }
  /** No byte after so many of the body, or no answer: until the client leaves. */
  | { readonly kind: "stall"; readonly after?: number }
  /** The connection ends after so many bytes of the body. */
  | { readonly kind: "cut"; readonly after: number }
  /** The length that is announced is this much too large. */
  | { readonly kind: "length"; readonly by: number }
  /** The whole file where a part was asked for. */
  | { readonly kind: "whole" }
  /** Another content, under its own ETag. */
  | { readonly kind: "changed" }
  /** A byte of the body is another, and nothing says so. */
  | { readonly kind: "flipped"; readonly at: number };

/** A request as it came. */
export interface Asked {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers: Headers;
  /** Is it the place of large files? */
  readonly elsewhere: boolean;
}

/** A file of a repository. */
interface Stored {
  readonly bytes: Uint8Array;
  readonly large: boolean;
}

/** A repository with one commit. */
interface Repository {
  readonly commit: string;
  readonly files: ReadonlyMap<string, Stored>;
  /** A client must show this. */
  readonly token?: string;
}

/** What {@linkcode HubServer.add} takes. */
export interface RepositoryOptions {
  /** Is a file kept elsewhere? Default: from 1000 bytes on. */
  readonly large?: (path: string, bytes: Uint8Array) => boolean;
  readonly token?: string;
  /** Default: one that follows from the files. */
  readonly commit?: string;
}

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
}

const encoder = new TextEncoder();

/** The hub on this machine. */
export class HubServer implements AsyncDisposable {
  /** All that was asked, in order. */
  readonly asked: Asked[] = [];
  /** Decides what goes wrong; default: nothing. */
  fault: (asked: Asked) => Fault | undefined = () => undefined;
  /** Entries of a page of a list. */
  page = 1000;
  readonly #hub = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #elsewhere = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #repositories = new Map<string, Repository>();
  readonly #renamed = new Map<string, string>();
  readonly #connections = new Set<Deno.TcpConn>();
  readonly #serving: Promise<unknown>;

  /** Begins to serve. */
  constructor() {
    this.#serving = Promise.all([this.#serve(this.#hub, false), this.#serve(this.#elsewhere, true)]);
  }

  /** The value for HF_ENDPOINT. */
  get endpoint(): string {
    return `http://127.0.0.1:${(this.#hub.addr as Deno.NetAddr).port}`;
  }

  /** Adds a repository, or a new commit of it, which is given.
   * @param name `datasets/ORG/NAME`, or `ORG/NAME` of a model. */
  add(
    name: string,
    files: Readonly<Record<string, Uint8Array | string>>,
    { large = (_, bytes) => bytes.length >= 1000, token, commit: given }: RepositoryOptions = {},
  ): string {
    const stored = new Map(
      Object.entries(files).sort().map(([path, content]) => {
        const bytes = typeof content === "string" ? encoder.encode(content) : new Uint8Array(content);
        return [path, { bytes, large: large(path, bytes) }];
      }),
    );
    const commit = given ??
      createHash("sha1").update(JSON.stringify([...stored].map(([path, file]) => [path, etagOf(file)])))
        .digest("hex");
    this.#repositories.set(name, { commit, files: stored, token });
    return commit;
  }

  /** Has a repository's old name lead to its new one. */
  rename(from: string, to: string): void {
    this.#renamed.set(from, to);
  }

  /** Bodies of files that were asked for from byte `from` on. */
  ranges(): number[] {
    return this.asked.filter(({ elsewhere, method }) => elsewhere && method === "GET")
      .map(({ headers }) => Number(/^bytes=(\d+)-/.exec(headers.get("range") ?? "")?.[1] ?? 0));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#hub.close();
    this.#elsewhere.close();
    for (const connection of this.#connections) close(connection);
    await this.#serving;
  }

  async #serve(listener: Deno.TcpListener, elsewhere: boolean): Promise<void> {
    const answers: Promise<void>[] = [];
    try {
      for await (const connection of listener) {
        this.#connections.add(connection);
        answers.push(
          this.#answer(connection, elsewhere).catch(() => {}).finally(() => {
            close(connection);
            this.#connections.delete(connection);
          }),
        );
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted)) throw error;
    }
    await Promise.all(answers);
  }

  async #answer(connection: Deno.TcpConn, elsewhere: boolean): Promise<void> {
    const asked = await readRequest(connection, elsewhere);
    if (asked === undefined) return;
    this.asked.push(asked);
    const fault = this.fault(asked);
    if (fault?.kind === "close") return;
    if (fault?.kind === "stall" && fault.after === undefined) return await untilClosed(connection);
    const { status, headers, body } = fault?.kind === "status"
      ? { status: fault.status, headers: { ...fault.headers }, body: encoder.encode("{}") }
      : this.#right(asked, fault);
    const length = Number(headers["content-length"] ?? body.length) + (fault?.kind === "length" ? fault.by : 0);
    const lines = Object.entries({ ...headers, "content-length": String(length), connection: "close" })
      .map(([name, value]) => `${name}: ${value}\r\n`);
    await write(connection, encoder.encode(`HTTP/1.1 ${status} ${TEXTS[status] ?? ""}\r\n${lines.join("")}\r\n`));
    if (asked.method === "HEAD") return;
    if (fault?.kind === "flipped" && fault.at < body.length) {
      const other = body.slice();
      other[fault.at] ^= 1;
      return await write(connection, other);
    }
    if (fault?.kind !== "cut" && fault?.kind !== "stall") return await write(connection, body);
    await write(connection, body.subarray(0, fault.after));
    if (fault.kind === "stall") await untilClosed(connection);
  }

  /** What the hub answers, or in place of a file another one. */
  #right({ method, path, headers, elsewhere }: Asked, fault: Fault | undefined): Answer {
    const url = new URL(path, this.endpoint), parts = url.pathname.slice(1).split("/").map(decodeURIComponent);
    const api = !elsewhere && parts[0] === "api", kind = parts[api ? 1 : 0];
    const isDataset = kind === "datasets";
    const at = api ? 2 : isDataset ? 1 : 0, name = (isDataset ? "datasets/" : "") + parts.slice(at, at + 2).join("/");
    const rest = parts.slice(at + 2);
    const renamed = this.#renamed.get(name);
    if (renamed !== undefined) {
      const to = path.replace(name.replace("datasets/", ""), renamed.replace("datasets/", ""));
      return { status: 307, headers: { location: to }, body: new Uint8Array(0) };
    }
    const repository = this.#repositories.get(name);
    if (repository === undefined) return refused(404, "RepoNotFound", "Repository not found");
    const { commit, files, token } = repository;
    if (token !== undefined && !elsewhere && headers.get("authorization") !== `Bearer ${token}`) {
      return refused(401, "GatedRepo", "Access is restricted");
    }
    const knows = (revision: string) => revision === "main" || revision === commit;
    if (api) {
      const [what, revision] = rest;
      if (what !== undefined && !knows(revision)) return refused(404, "RevisionNotFound", "Invalid rev id");
      if (what === "tree") return this.#tree(files, rest.slice(2).join("/"), url);
      return json({ id: name, sha: commit, siblings: [...files.keys()].map((rfilename) => ({ rfilename })) });
    }
    const [, revision, ...path_] = rest, filePath = path_.join("/"), file = files.get(filePath);
    if (!elsewhere && !knows(revision)) return refused(404, "RevisionNotFound", "Invalid rev id");
    if (file === undefined) return refused(404, "EntryNotFound", "Entry not found");
    const { bytes, large } = file;
    const shown = fault?.kind === "changed" ? { bytes: bytes.map((byte) => byte ^ 1), large } : file;
    if (large && !elsewhere) {
      const port = (this.#elsewhere.addr as Deno.NetAddr).port;
      const told = {
        etag: '"of-the-pointer"',
        "x-linked-etag": `"${etagOf(shown)}"`,
        "x-linked-size": `${bytes.length}`,
      };
      const location = `http://127.0.0.1:${port}${url.pathname}?signature=1`;
      return { status: 302, headers: { ...told, "x-repo-commit": commit, location }, body: encoder.encode("Found") };
    }
    const range = fault?.kind === "whole" ? null : /^bytes=(\d+)-(\d*)$/.exec(headers.get("range") ?? "");
    const from = Number(range?.[1] ?? 0), to = Math.min(bytes.length, range?.[2] ? Number(range[2]) + 1 : Infinity);
    const told: Record<string, string> = elsewhere ? {} : { etag: `"${etagOf(shown)}"`, "x-repo-commit": commit };
    if (range !== null) told["content-range"] = `bytes ${from}-${to - 1}/${bytes.length}`;
    if (method === "HEAD") told["content-length"] = String(to - from);
    const body = method === "HEAD" ? new Uint8Array(0) : shown.bytes.subarray(from, to);
    return { status: range === null ? 200 : 206, headers: { ...told, "accept-ranges": "bytes" }, body };
  }

  #tree(files: ReadonlyMap<string, Stored>, folder: string, url: URL): Answer {
    const first = Number(url.searchParams.get("cursor") ?? 0);
    const all = [...files].filter(([path]) => folder === "" || path.startsWith(`${folder}/`));
    if (all.length === 0) return refused(404, "EntryNotFound", "Entry not found");
    const entries = all.slice(first, first + this.page).map(([path, file]) => ({
      type: "file",
      oid: gitHash(file.bytes),
      size: file.bytes.length,
      path,
      ...(file.large ? { lfs: { oid: etagOf(file), size: file.bytes.length, pointerSize: 130 } } : {}),
    }));
    const next = new URL(url);
    next.searchParams.set("cursor", String(first + this.page));
    return json(entries, first + this.page < all.length ? { link: `<${next.href}>; rel="next"` } : {});
  }
}

const TEXTS: Readonly<Record<number, string>> = { 200: "OK", 206: "Partial Content", 302: "Found", 404: "Not Found" };

function json(value: unknown, headers: Record<string, string> = {}): Answer {
  const body = encoder.encode(JSON.stringify(value));
  return { status: 200, headers: { ...headers, "content-type": "application/json" }, body };
}

function refused(status: number, code: string, message: string): Answer {
  return { status, headers: { "x-error-code": code, "x-error-message": message }, body: encoder.encode("{}") };
}

function etagOf({ bytes, large }: Stored): string {
  return large ? createHash("sha256").update(bytes).digest("hex") : gitHash(bytes);
}

function gitHash(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

async function readRequest(connection: Deno.TcpConn, elsewhere: boolean): Promise<Asked | undefined> {
  const buffer = new Uint8Array(4096);
  let text = "";
  while (!text.includes("\r\n\r\n")) {
    const n = await connection.read(buffer);
    if (n === null) return undefined;
    text += new TextDecoder().decode(buffer.subarray(0, n));
  }
  const [first, ...lines] = text.split("\r\n\r\n")[0].split("\r\n");
  const [method, path] = first.split(" ");
  const headers = new Headers(lines.map((line): [string, string] => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon), line.slice(colon + 1).trim()];
  }));
  return { method, path, headers, elsewhere };
}

async function write(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

async function untilClosed(connection: Deno.TcpConn): Promise<void> {
  while (await connection.read(new Uint8Array(16)) !== null);
}

function close(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error; // it is closed already
  }
}
