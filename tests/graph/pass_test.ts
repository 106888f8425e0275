import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { f64 } from "../../graph/builder.ts";
import type { Graph, Level } from "../../graph/ir.ts";
import { inOrder, type Pass, runPass } from "../../graph/pass.ts";
import { trace } from "../../graph/trace.ts";

const pass = (name: string, takes: Level[], more: Partial<Pass> = {}): Pass => ({
  name,
  takes,
  behind: [],
  run: (graph) => ({ ...graph, level: more.gives ?? graph.level }),
  ...more,
});
const whole = pass("whole", ["global"], { behind: ["first"] }), parts = pass("parts", ["global"], { gives: "ranks" });
const first = pass("first", ["global", "ranks"]), last = pass("last", ["ranks"], { gives: "rank" });

Deno.test("passes that take what those before them give are in order", () => {
  const list = [first, whole, parts, last];
  assertStrictEquals(inOrder(list), list);
  assertEquals(inOrder([whole]).length, 1, "what it comes behind need not be there");
});

Deno.test("a wrong order is refused when the list is made, with the pass and what it expects", () => {
  const refused = (list: Pass[], says: string) => assertThrows(() => inOrder(list), Error, says);
  refused([last], `Cannot run pass "last" at place 1 of last: the graph is of level global there, expected ranks`);
  refused([parts, whole], `"whole" at place 2 of parts, whole: the graph is of level ranks there, expected global`);
  refused([last, parts], `fix: move it behind "parts"`);
  refused([whole, first], `Cannot run pass "whole" at place 1 of whole, first: expected behind "first"`);
  refused([first, first], "it is in the list twice");
});

Deno.test("what a pass makes is checked, and so is its level", () => {
  const graph = trace((x) => x.exp(), f64(2));
  assertEquals(runPass(parts, graph).level, "ranks");
  assertThrows(() => runPass(last, graph), Error, `"last" on graph "function" of level global: expected ranks`);
  assertThrows(
    () => runPass(pass("lies", ["global"], { gives: "ranks", run: (g) => g }), graph),
    Error,
    "expected ranks",
  );
  const broken = (g: Graph): Graph => ({ ...g, nodes: [] });
  assertThrows(
    () => runPass(pass("breaks", ["global"], { run: broken }), graph),
    Error,
    `Pass "breaks" made a graph that it may not make. Invalid graph "function": a value is made once`,
  );
});
