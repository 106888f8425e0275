/** A browser to look at pages with: Chromium, over its debugging protocol.
 * @module */

/** A page that is open. */
export class Page implements AsyncDisposable {
  readonly #socket: WebSocket;
  readonly #process: Deno.ChildProcess;
  readonly #folder: string;
  readonly #calls = new Map<number, PromiseWithResolvers<Record<string, unknown>>>();
  #next = 1;
  /** What the page has complained of. */
  readonly complaints: string[] = [];

  private constructor(socket: WebSocket, process: Deno.ChildProcess, folder: string) {
    [this.#socket, this.#process, this.#folder] = [socket, process, folder];
    socket.addEventListener("message", ({ data }) => this.#receive(JSON.parse(data)));
  }

  /** Starts a browser with one empty page. @param program such as `chromium`. */
  static async open(program: string): Promise<Page> {
    const folder = await Deno.makeTempDir();
    const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"];
    const process = new Deno.Command(program, {
      args: [...flags, "--remote-debugging-port=0", `--user-data-dir=${folder}`, "about:blank"],
      stdout: "null",
      stderr: "null",
    }).spawn();
    const port = await until(async () =>
      // while the file is being written, it is empty
      /^(\d+)\n/.exec(await Deno.readTextFile(`${folder}/DevToolsActivePort`))?.[1]
    );
    const target = await until(async () => {
      const targets = await (await fetch(`http://127.0.0.1:${port}/json/list`)).json() as Target[];
      return targets.find(({ type }) => type === "page")!.webSocketDebuggerUrl;
    });
    const socket = new WebSocket(target), page = new Page(socket, process, folder);
    await new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve);
      socket.addEventListener("error", reject);
    });
    for (const domain of ["Runtime", "Page", "Log"]) await page.call(`${domain}.enable`);
    return page;
  }

  #receive({ id, result, error, method, params }: Message): void {
    if (method === "Runtime.exceptionThrown") this.complaints.push(JSON.stringify(params.exceptionDetails));
    if (method === "Log.entryAdded" && params.entry?.level === "error") {
      this.complaints.push(JSON.stringify(params.entry));
    }
    if (id === undefined) return;
    const call = this.#calls.get(id)!;
    this.#calls.delete(id);
    if (error) call.reject(new Error(error.message));
    else call.resolve(result!);
  }

  /** A call of the protocol. */
  call(method: string, params: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    const id = this.#next++, call = Promise.withResolvers<Record<string, unknown>>();
    this.#calls.set(id, call);
    this.#socket.send(JSON.stringify({ id, method, params }));
    return call.promise;
  }

  /** Goes to an address. */
  async go(url: string): Promise<void> {
    await this.call("Page.navigate", { url });
    await this.until("document.readyState === 'complete'");
  }

  /** What an expression is in the page; promises are waited for. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.call("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    }) as { result: { value: T }; exceptionDetails?: unknown };
    if (exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return result.value;
  }

  /** Waits until an expression is true in the page. */
  async until(expression: string, seconds = 120): Promise<void> {
    await until(async () => await this.evaluate(expression) || undefined, seconds);
  }

  /** Sets the size of the window, and whether it is dark. */
  async resize(width: number, height: number, { dark = false, phone = false } = {}): Promise<void> {
    const metrics = { width, height, deviceScaleFactor: phone ? 2 : 1, mobile: phone };
    await this.call("Emulation.setDeviceMetricsOverride", metrics);
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }];
    await this.call("Emulation.setEmulatedMedia", { features });
  }

  /** Writes a picture of the page, as PNG. @param whole all of it, not only what the window shows. */
  async screenshot(path: string, whole = false): Promise<void> {
    const { data } = await this.call("Page.captureScreenshot", { captureBeyondViewport: whole }) as { data: string };
    await Deno.writeFile(path, Uint8Array.fromBase64(data));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    this.#process.kill();
    await this.#process.status;
    await until(() => Deno.remove(this.#folder, { recursive: true }).then(() => true)); // its helpers write until they end
  }
}

interface Target {
  readonly type: string;
  readonly webSocketDebuggerUrl: string;
}

interface Message {
  readonly id?: number;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
  readonly method?: string;
  readonly params: { readonly exceptionDetails?: unknown; readonly entry?: { readonly level: string } };
}

/** Asks again and again, until something comes back. */
async function until<T>(ask: () => Promise<T | undefined>, seconds = 60): Promise<T> {
  for (let left = seconds * 20;; left--) {
    try {
      const found = await ask();
      if (found !== undefined) return found;
      if (left <= 0) throw new Error("nothing came");
    } catch (error) {
      if (left <= 0) throw new Error(`Waited ${seconds} s in vain: ${ask}`, { cause: error });
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
