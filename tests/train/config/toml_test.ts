import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError } from "../../../train/config/problem.ts";
import { tomlEntries } from "../../../train/config/toml.ts";

const places = (text: string) => Object.fromEntries(tomlEntries(text, "f").map(({ name, place }) => [name, place]));

Deno.test("each key remembers its line, however its table is written", () => {
  const text = '# first\n[training]\nsteps = 1\n"seq_len" = 2\n\n[ model ] # size\n  dim=3\n';
  assertEquals(places(text), { "training.steps": "f:3", "training.seq_len": "f:4", "model.dim": "f:7" });
  assertEquals(places("training.steps = 1\n[optimizer]\nlr = 2"), { "training.steps": "f:1", "optimizer.lr": "f:3" });
});

Deno.test("a key of an inline table has the line of the table", () => {
  assertEquals(places("\ntraining = { steps = 1 }"), { "training.steps": "f:2" });
});

Deno.test("text that looks like TOML within strings, comments and lists does not mislead", () => {
  const text = [
    '[job] # """',
    'description = """',
    "[model]",
    "dim = 3",
    '"""',
    "[parallelism]",
    "module_fqns_per_model_part = [",
    '  ["layers.0", "dim = 4"],',
    '  ["layers.1"]',
    "]",
    "tensor_parallel_degree = 1",
    "[model]",
    'name = "a # b"',
    "dim = 5",
  ];
  const found = places(text.join("\n"));
  assertEquals(found["parallelism.tensor_parallel_degree"], "f:11");
  assertEquals([found["job.description"], found["model.name"], found["model.dim"]], ["f:2", "f:13", "f:14"]);
});

Deno.test("text that is not TOML is shown with its line and column", () => {
  const error = assertThrows(() => tomlEntries("[training]\n  steps = = 3\nseq_len = 4", "my.toml"), ConfigError);
  assertEquals(
    error.message.replace(/TOML: .*/, "TOML: ..."), // the reason is the parser's wording
    [
      "my.toml:2:11 is not TOML: ...",
      "     1 | [training]",
      "     2 |   steps = = 3",
      "                   ^",
      "     3 | seq_len = 4",
      '  expected: lines such as [section], key = 1, key = "text", key = true',
      "  fix: correct line 2   (toml_syntax)",
    ].join("\n"),
  );
});

Deno.test("a key that is written twice is an error of the file", () => {
  const error = assertThrows(() => tomlEntries("[job]\na = 1\na = 2", "my.toml"), ConfigError);
  assertEquals(error.message.split(" ")[0].replace(/:\d+$/, ""), "my.toml:3");
});
