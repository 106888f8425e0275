/**
 * Repositories of the hub: which files they have at a commit, what a file is, and its bytes from any place on. Whoever
 * reads bytes gets those of one content: an answer about another is refused.
 * @module
 */
import { DataError } from "../error.ts";
import { Passing, type Requests } from "./requests.ts";

/** A repository. */
export interface Repository {
  readonly kind: "model" | "dataset";
  /** `ORG/NAME`. */
  readonly name: string;
}

/** A file at a commit. */
export interface HubFile {
  readonly repository: Repository;
  readonly commit: string;
  /** From the repository's root. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Its content: SHA-256 of a large file, git's SHA-1 of a small one. The cache names it so. */
  readonly etag: string;
}

/** A commit, in full. */
export const COMMIT: RegExp = /^[0-9a-f]{40}$/;

/** A repository as people name it.
 * @throws {DataError} when it cannot be a name. */
export function repository(kind: Repository["kind"], name: string): Repository {
  if (/^[\w.-]+(\/[\w.-]+)?$/.test(name) && !/(^|\/)\.+($|\/)|\.\.|--/.test(name)) return { kind, name };
  throw new DataError({
    code: "bad_option",
    what: `${JSON.stringify(name)} is no name of a repository`,
    expected: "ORG/NAME, of letters, digits, -, _ and .",
    fix: "write it as on its page, such as allenai/c4",
  });
}

/** The hub, as one user sees it. */
export class Hub {
  readonly requests: Requests;

  /** Nothing is asked yet. */
  constructor(requests: Requests) {
    this.requests = requests;
  }

  /** The commit that a branch, a tag or the beginning of a commit means now.
   * @throws {DataError} when there is none. */
  async commit(repository: Repository, revision: string): Promise<string> {
    if (COMMIT.test(revision)) return revision;
    const what = `revision ${revision} of ${repository.name}`;
    const url = `${this.#api(repository)}/revision/${encodeURIComponent(revision)}`;
    const { sha } = await this.#json<{ sha?: unknown }>(what, url);
    if (typeof sha === "string" && COMMIT.test(sha)) return sha;
    throw odd(what, `its commit is ${JSON.stringify(sha)}`);
  }

  /** All files at a commit, in the order of the hub.
   * @param folder below which they are; "": all of the repository.
   * @throws {DataError} when they cannot be listed, or one lies outside of the repository. */
  async files(repository: Repository, commit: string, folder = ""): Promise<HubFile[]> {
    const what = `the files of ${[repository.name, folder].join("/").replace(/\/$/, "")}`, files: HubFile[] = [];
    const below = folder === "" ? "" : `/${encoded(folder)}`;
    let url: string | undefined = `${this.#api(repository)}/tree/${commit}${below}?recursive=1`;
    while (url !== undefined) {
      const { page, next }: Page = await this.requests.retrying(what, async () => {
        const response = await this.requests.once(what, url!);
        return { page: await this.#parse(what, response), next: nextPage(response, url!) };
      });
      if (!Array.isArray(page)) throw odd(what, "its list is none");
      for (const entry of page as Entry[]) {
        if (entry.type !== "file") continue;
        const { path, size, oid, lfs } = entry;
        files.push(checked({ repository, commit, path, size: lfs?.size ?? size, etag: lfs?.oid ?? oid }, what));
      }
      url = next;
    }
    return files;
  }

  /** The same, but all that is under way ends with the signal. */
  until(signal: AbortSignal): Hub {
    return new Hub(this.requests.until(signal));
  }

  /** What a file is at a revision.
   * @throws {DataError} when there is no such file. */
  async file(repository: Repository, revision: string, path: string): Promise<HubFile> {
    const what = `${path} of ${repository.name}`;
    const response = await this.requests.ask(what, this.#resolve(repository, revision, path), {
      method: "HEAD",
      stay: true,
    });
    await response.body?.cancel();
    const { headers } = response;
    const commit = headers.get("x-repo-commit") ?? (COMMIT.test(revision) ? revision : "");
    const etag = etagOf(headers) ?? "";
    const size = Number(headers.get("x-linked-size") ?? headers.get("content-length") ?? NaN);
    return checked({ repository, commit, path, size, etag }, what);
  }

  /** The bytes of a file from byte `from` on. Where the connection breaks, it goes on at that byte.
   * @throws {DataError} when they cannot be had, or are those of another content. */
  async *bytes(file: HubFile, from = 0): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
    const { requests } = this, { repository, commit, path, size } = file;
    const what = `${path} of ${repository.name}`, url = this.#resolve(repository, commit, path);
    let at = from;
    /** What came of the answer that is being read; kept across calls of the attempt below, which gives chunk after chunk. */
    let answer: AsyncGenerator<Uint8Array<ArrayBuffer>, void> | undefined;
    try {
      while (at < size) {
        const chunk = await requests.retrying(what, async (progress) => {
          try {
            answer ??= await this.#range(what, url, file, at);
            const { done, value } = await answer.next();
            if (done) throw new Passing(`the answer ended at byte ${at} of ${size}`);
            progress();
            return value;
          } catch (error) {
            await answer?.return();
            answer = undefined;
            throw error;
          }
        });
        if (at + chunk.length > size) throw changed(what, `it has more than ${size} bytes`);
        at += chunk.length;
        yield chunk;
      }
    } finally {
      await answer?.return();
    }
  }

  async #range(
    what: string,
    url: string,
    file: HubFile,
    at: number,
  ): Promise<AsyncGenerator<Uint8Array<ArrayBuffer>, void>> {
    const { requests } = this, { size, etag } = file;
    // The first answer, which is the hub's own, tells what the file is; the place of the bytes need not know.
    const first = await requests.once(what, url, {
      stay: true,
      ...(at > 0 ? { headers: { range: `bytes=${at}-` } } : {}),
    });
    const now = etagOf(first.headers);
    if (now !== undefined && now !== etag) {
      await first.body?.cancel();
      throw changed(what, `its ETag is ${now} now, and was ${etag}`);
    }
    let response = first;
    if (first.status >= 300) {
      await first.body?.cancel();
      const to = new URL(first.headers.get("location")!, url).href;
      response = await requests.once(what, to, at > 0 ? { headers: { range: `bytes=${at}-` } } : {});
    }
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
    const begin = response.status === 206 ? Number(range?.[1] ?? NaN) : 0;
    const whole = response.status === 206
      ? Number(range?.[2] ?? NaN)
      : Number(response.headers.get("content-length") ?? size);
    if (whole !== size) {
      await response.body?.cancel();
      if (response.status === 206 && range === null) throw new Passing("it answered with no range");
      throw changed(what, `it has ${whole} bytes now, and had ${size}`);
    }
    if (begin !== at && begin !== 0) {
      await response.body?.cancel();
      throw new Passing(`it answered from byte ${begin} on, and not from ${at}`);
    }
    return skip(requests.bytes(response), at - begin);
  }

  async #json<T>(what: string, url: string): Promise<T> {
    return await this.requests.retrying(
      what,
      async () => await this.#parse(what, await this.requests.once(what, url)) as T,
    );
  }

  async #parse(what: string, response: Response): Promise<unknown> {
    const parts = await Array.fromAsync(this.requests.bytes(response));
    const text = await new Blob(parts).text();
    try {
      return JSON.parse(text);
    } catch (error) {
      const said = Number(response.headers.get("content-length") ?? NaN);
      if (parts.reduce((n, { length }) => n + length, 0) < said) throw new Passing("the answer is cut off");
      throw odd(what, (error as Error).message);
    }
  }

  #api({ kind, name }: Repository): string {
    return `${this.requests.settings.endpoint}/api/${kind}s/${name}`;
  }

  #resolve({ kind, name }: Repository, revision: string, path: string): string {
    const at = kind === "model" ? name : `${kind}s/${name}`;
    return `${this.requests.settings.endpoint}/${at}/resolve/${encodeURIComponent(revision)}/${encoded(path)}`;
  }
}

/** An entry of the hub's list. */
interface Entry {
  readonly type: string;
  readonly path: string;
  readonly size: number;
  readonly oid: string;
  readonly lfs?: { readonly oid: string; readonly size: number };
}

interface Page {
  readonly page: unknown;
  readonly next: string | undefined;
}

async function* skip(chunks: AsyncGenerator<Uint8Array<ArrayBuffer>, void>, bytes: number) {
  for await (const chunk of chunks) {
    if (bytes < chunk.length) yield bytes === 0 ? chunk : chunk.subarray(bytes);
    bytes = Math.max(0, bytes - chunk.length);
  }
}

function encoded(path: string): string {
  return path.split("/").map(encodeURIComponent).join("/");
}

/** What the hub says is the content: of a file that is kept elsewhere, that of the file and not of the pointer to it. */
function etagOf(headers: Headers): string | undefined {
  const etag = headers.get("x-linked-etag") ?? headers.get("etag");
  return etag?.replace(/^W\//, "").replaceAll('"', "");
}

/** The next page of a list, from the header `Link`. */
function nextPage({ headers }: Response, url: string): string | undefined {
  const next = /<([^>]+)>\s*;\s*rel="next"/.exec(headers.get("link") ?? "")?.[1];
  return next === undefined ? undefined : new URL(next, url).href;
}

/** Refuses what must not become a path on this machine. */
function checked(file: HubFile, what: string): HubFile {
  const { path, commit, etag, size } = file;
  const parts = typeof path === "string" ? path.split("/") : [""];
  if (parts.some((part) => part === "" || part === "." || part === "..") || /[\\\0]/.test(path)) {
    throw odd(what, `it names a path that leaves its folder, ${JSON.stringify(path)}`);
  }
  if (!COMMIT.test(commit)) throw odd(what, `its commit is ${JSON.stringify(commit)}`);
  if (!/^[\w-]+$/.test(etag)) throw odd(what, `${path} has the ETag ${JSON.stringify(etag)}`);
  if (!(Number.isSafeInteger(size) && size >= 0)) throw odd(what, `${path} has ${size} bytes`);
  return file;
}

/** The error of a content that is not the one that was asked for. */
export function changed(what: string, why: string): DataError {
  return new DataError({
    code: "changed_content",
    what: `${what} is another file than the one that was begun: ${why}`,
    expected: "the same content at the same commit",
    fix: "try again; where it stays so, the server or a proxy on the way to it is at fault",
  });
}

function odd(what: string, why: string): DataError {
  return new DataError({
    code: "unreachable",
    what: `Cannot understand what the hub says of ${what}: ${why}`,
    expected: "an answer as huggingface.co gives it",
    fix: "correct HF_ENDPOINT, if it is set",
  });
}
