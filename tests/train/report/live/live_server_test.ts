import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { LiveServer } from "../../../../train/report/live/live_server.ts";
import { temporaryFolder } from "../../../data/fixture.ts";

type Message = Record<string, unknown>;

/** What a page hears. */
class Page implements AsyncDisposable {
  readonly #reader: ReadableStreamDefaultReader<string>;
  #rest = "";
  #messages: Message[] = [];

  constructor(response: Response) {
    this.#reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** The next message that is of use here. */
  async next(isMeant: (message: Message) => boolean): Promise<Message> {
    for (;;) {
      for (let message; (message = this.#messages.shift());) if (isMeant(message)) return message;
      const { done, value } = await this.#reader.read();
      assert(!done, "the stream has ended");
      const parts = (this.#rest + value).split("\n\n");
      this.#rest = parts.pop()!;
      this.#messages = parts.map((part) => JSON.parse(part.slice("data: ".length)));
    }
  }

  /** Waits for the end. */
  async end(): Promise<void> {
    while (!(await this.#reader.read()).done);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader.cancel();
  }
}

const begin = { run: { started: "2026-01-01T00:00:00Z", config: {} } };
const train = (step: number) => ({ step, "loss_metrics/global_avg_loss": step });
const write = (path: string, ...lines: unknown[]) =>
  Deno.writeTextFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""), { append: true });
const firstRow = ({ rows }: Message) => (rows as number[][] | undefined)?.[0][0];

async function status(address: string): Promise<number> {
  const response = await fetch(address);
  await response.body?.cancel();
  return response.status;
}

Deno.test("the page is one piece that loads nothing, and nobody gets it who does not know its word", async () => {
  await using folder = await temporaryFolder();
  await using server = LiveServer.open({ paths: [folder.path] });
  const { origin, pathname } = new URL(server.address),
    response = await fetch(server.address),
    text = await response.text();
  assertMatch(server.address, /^http:\/\/127\.0\.0\.1:\d+\/[0-9a-f]{32}\/$/);
  assertEquals([...text.matchAll(/(src|href)="([^"]*)"/g)].map((m) => m[2]), ["data:,"]);
  assertStringIncludes(response.headers.get("content-security-policy")!, "default-src 'none'");
  for (const path of ["/", "/events", pathname.slice(0, -2), `${pathname.slice(0, -2)}/events`, `${pathname}other`]) {
    assertEquals(await status(origin + path), 404, path);
  }
});

Deno.test("a page hears all that a run has told, and what it tells then, within a tenth of a second", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`;
  write(path, begin, train(1), train(2));
  await using server = LiveServer.open({ paths: [folder.path], own: path });
  await using page = new Page(await fetch(`${server.address}events`));
  const about = await page.next((m) => m.name !== undefined);
  assertEquals([about.run, about.own], [path, true]);
  assertEquals(await page.next((m) => m.begin !== undefined), { run: path, begin: begin.run });
  assertEquals(((await page.next((m) => m.rows !== undefined)).rows as number[][]).map(([step]) => step), [1, 2]);
  write(path, train(3));
  const told = performance.now();
  server.write();
  await page.next((m) => firstRow(m) === 3);
  const late = performance.now() - told;
  assert(late < 100, `${late} ms`);
});

Deno.test("a page that comes hears how long runs have been quiet before it hears anything new", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`;
  write(path, begin, train(1));
  Deno.utimeSync(path, new Date(), new Date(Date.now() - 3_600_000));
  await using server = LiveServer.open({ paths: [folder.path], own: path });
  await using page = new Page(await fetch(`${server.address}events`));
  await page.next((m) => firstRow(m) === 1);
  write(path, train(2));
  server.write();
  const { quiet } = await page.next((m) => m.quiet !== undefined || firstRow(m) === 2);
  const seconds = (quiet as Record<string, number>)[path];
  assert(seconds >= 3600 && seconds < 3660, `${seconds} s`);
});

Deno.test("runs below a folder are found, also those that begin later, and a page that comes back hears all again", async () => {
  await using folder = await temporaryFolder();
  const [first, later] = ["a", "b/c"].map((name) => `${folder.path}/${name}`);
  Deno.mkdirSync(first);
  write(`${first}/metrics.jsonl`, begin, train(1));
  write(`${folder.path}/chats.jsonl`, { text: "no run" });
  await using server = LiveServer.open({ paths: [folder.path] });
  await using page = new Page(await fetch(`${server.address}events`));
  assertEquals((await page.next((m) => m.name !== undefined)).name, "a");
  Deno.mkdirSync(later, { recursive: true });
  write(`${later}/metrics.jsonl`, begin, train(5));
  write(`${later}/metrics.1.jsonl`, begin);
  const names = [await page.next((m) => m.name !== undefined), await page.next((m) => m.name !== undefined)];
  assertEquals(names.map(({ name }) => name).sort(), ["b/c", "b/c 1"]);
  assertEquals(
    typeof ((await page.next((m) => m.quiet !== undefined)).quiet as Message)[`${first}/metrics.jsonl`],
    "number",
  );
  await using again = new Page(await fetch(`${server.address}events`));
  assertEquals(await again.next((m) => firstRow(m) === 5), {
    run: `${later}/metrics.jsonl`,
    rows: [[5, 5, ...Array(11).fill(null)]],
  });
});

Deno.test("the end of a run is still told, and then the page is let go", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`;
  write(path, begin, train(1));
  const server = LiveServer.open({ paths: [folder.path], own: path });
  await using page = new Page(await fetch(`${server.address}events`));
  await page.next((m) => firstRow(m) === 1);
  write(path, { end: { step: 1 } });
  const closing = server[Symbol.asyncDispose]();
  assertEquals((await page.next((m) => m.end !== undefined)).end, { step: 1 });
  await page.end();
  await closing;
});

Deno.test("a port that another program has is refused", async () => {
  await using server = LiveServer.open({ paths: [] });
  const port = Number(new URL(server.address).port);
  assertThrows(() => LiveServer.open({ paths: [], port }), Deno.errors.AddrInUse);
});
