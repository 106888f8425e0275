import { assert, assertEquals, assertRejects } from "@std/assert";
import { DataError } from "../../../data/error.ts";
import { repository } from "../../../data/hub/hub.ts";
import { waitOf } from "../../../data/hub/requests.ts";
import { type Fault, HubServer } from "../hub_server.ts";
import { clientOf, HASTE } from "./fixture.ts";

const MODEL = repository("model", "org/model");

/** A server whose first answers are faults. */
function server(...faults: Fault[]): HubServer {
  const server = new HubServer();
  server.add("org/model", { "a.txt": "a" });
  server.fault = () => faults.shift();
  return server;
}

const busy = (headers = {}): Fault => ({ kind: "status", status: 503, headers });

Deno.test("what may pass is tried again: too many requests, a busy server, silence, a closed connection", async () => {
  for (const fault of [{ kind: "status", status: 429 }, busy(), { kind: "stall" }, { kind: "close" }] as Fault[]) {
    await using hub = server(fault);
    const said: string[] = [];
    assertEquals((await clientOf(hub, { say: (line) => said.push(line) }).file(MODEL, "main", "a.txt")).size, 1);
    assertEquals([hub.asked.length, said.length], [2, 1], JSON.stringify(fault));
    assert(/^a.txt of org\/model: .*; trying again in \d\.\d s$/.test(said[0]), said[0]);
  }
});

Deno.test("a server that asks for time gets it", async () => {
  await using hub = server(busy({ "retry-after": "1" }));
  const begun = performance.now();
  await clientOf(hub).file(MODEL, "main", "a.txt");
  assert(performance.now() - begun >= 1000);
});

Deno.test("a server that asks for more time than there is patience is told of at once", async () => {
  await using hub = server(busy({ "retry-after": "3600" }));
  const error = await assertRejects(() => clientOf(hub).file(MODEL, "main", "a.txt"), DataError);
  assert(error.message.includes("503") && error.message.includes("left alone for 3600 s"), error.message);
});

Deno.test("patience ends, and the error tells what was asked for and the last cause", async () => {
  await using hub = server(...Array.from({ length: 9 }, () => busy()));
  const error = await assertRejects(() => clientOf(hub).file(MODEL, "main", "a.txt"), DataError);
  assertEquals([error.code, hub.asked.length], ["unreachable", HASTE.attempts]);
  assert(
    error.message.startsWith(
      "Cannot get a.txt of org/model: the hub answered 503 (Service Unavailable), at the last of 5 tries",
    ),
    error.message,
  );
});

Deno.test("what will not pass is asked for once", async () => {
  await using hub = server();
  await assertRejects(() => clientOf(hub).file(MODEL, "main", "b.txt"), DataError);
  assertEquals(hub.asked.length, 1);
});

Deno.test("a hub that nobody runs is told with the system's words", async () => {
  const gone = server();
  await gone[Symbol.asyncDispose]();
  const error = await assertRejects(() => clientOf(gone).file(MODEL, "main", "a.txt"), DataError);
  assert(/no connection \(.*refused/.test(error.message), error.message);
});

Deno.test("the wait is read from seconds, a date, or the hub's own header", () => {
  const of = (headers: Record<string, string>) => waitOf(new Headers(headers), Date.parse("2026-01-01T00:00:00Z"));
  assertEquals(of({ "retry-after": "7" }), 7000);
  assertEquals(of({ "retry-after": "Thu, 01 Jan 2026 00:00:09 GMT" }), 9000);
  assertEquals(of({ "ratelimit": '"api";r=0;t=55' }), 55_000);
  assertEquals(of({ "ratelimit": '"api";r=3;t=55' }), undefined);
  assertEquals(of({}), undefined);
});

Deno.test("what is aborted ends at once, also while it waits", async () => {
  await using hub = server(busy({ "retry-after": "2" }));
  const abort = new AbortController();
  const asked = clientOf(hub, { signal: abort.signal }).file(MODEL, "main", "a.txt");
  setTimeout(() => abort.abort(new Error("enough")), 50);
  await assertRejects(() => asked, Error, "enough");
});
