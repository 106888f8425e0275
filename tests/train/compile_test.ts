import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { print } from "../../graph/print.ts";
import { verify } from "../../graph/verify.ts";
import { compileGraphs, passes } from "../../train/compile.ts";
import { traceInitialize } from "../../train/optimizer.ts";
import { traceEvaluate } from "../../train/step.ts";
import { tinyLlama } from "../model/tiny.ts";

const model = tinyLlama(), shape = { batch: 2, seqLen: 16, dtype: "f32" } as const;
const graphs = [traceInitialize(model, "f32"), traceEvaluate(model, shape)];

Deno.test("every graph goes through every pass in order, and each result can be watched", () => {
  const seen: string[] = [], texts = graphs.map(print);
  const { graphs: compiled, plan, program } = compileGraphs(graphs, {
    threads: 3,
    watch: (pass, graph) => {
      verify(graph);
      seen.push(`${graph.name} ${pass}`);
    },
  });
  const names = ["input", ...passes.map((p) => p.name)];
  assertEquals(names, ["input", "simplify", "tile", "fuse", "materialize"]);
  assertEquals(seen, ["initialize", "evaluate"].flatMap((graph) => names.map((pass) => `${graph} ${pass}`)));
  assertEquals(compiled.map((g) => g.name), ["initialize", "evaluate"]);
  assertEquals(plan.threads, 3);
  assertEquals(plan.sections.map((s) => s.graph), [...compiled]);
  assertEquals(program.sections.map((s) => s.name), ["initialize", "evaluate"]);
  assertEquals(graphs.map(print), texts, "the graphs that were given are as they were");
});

Deno.test("the same graphs make the same program", () => {
  const bytes = () => compileGraphs(graphs, { threads: 2 }).program.bytes;
  assertEquals(bytes(), bytes());
});

Deno.test("TITAN_PRINT prints what a pass makes, or what all make", async () => {
  const module = (path: string) => JSON.stringify(new URL(`../../${path}`, import.meta.url));
  const source = `import { compileGraphs } from ${module("train/compile.ts")};
    import { trace } from ${module("graph/trace.ts")};
    const graph = trace((x) => x.add(0).exp().neg(), { dtype: "f32", shape: [4] });
    compileGraphs([graph], { threads: 1 });`;
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, source);
    const printed = async (wanted: string, ...flags: string[]): Promise<string> => {
      const config = new URL("../../deno.json", import.meta.url).pathname;
      const args = ["run", "--quiet", "--no-check", "--no-prompt", "--config", config, ...flags, file];
      const { stderr } = await new Deno.Command(Deno.execPath(), { args, env: { TITAN_PRINT: wanted } }).output();
      return new TextDecoder().decode(stderr);
    };
    const fused = await printed("fuse", "--allow-env=TITAN_PRINT");
    assert(fused.startsWith("# after fuse\ngraph function\n"), fused);
    assertStringIncludes(fused, "map(%");
    assertEquals([...fused.matchAll(/^# after/gm)].length, 1);
    assertEquals([...(await printed("all", "--allow-env=TITAN_PRINT")).matchAll(/^# after (\w+)/gm)].map((m) => m[1]), [
      "input",
      ...passes.map((p) => p.name),
    ]);
    assertEquals(await printed("all"), "", "without leave to read it, it is not set");
  } finally {
    await Deno.remove(file);
  }
});
