import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { parseArguments, usage } from "../../bench/arguments.ts";

Deno.test("without options the bench compares ours and PyTorch at the debug size, three rounds of five steps", () => {
  const { size, rounds, steps, threads, peers, skip, dtype, compile, json } = parseArguments([]);
  assertEquals([size, rounds, steps, threads, dtype, compile, json], [
    "debug",
    3,
    5,
    undefined,
    "f32",
    false,
    undefined,
  ]);
  assertEquals([peers.length, skip.size], [0, 0]);
});

Deno.test("peers keep their order and options their values", () => {
  const { peers, threads, skip, json } = parseArguments(
    ["--peer", "b=./b", "--peer=a=./a x", "--threads", "2", "--skip", "ours", "--json", "out.json"],
  );
  assertEquals(peers, [{ name: "b", command: "./b" }, { name: "a", command: "./a x" }]);
  assertEquals([threads, [...skip], json], [2, ["ours"], "out.json"]);
});

Deno.test("options that cannot be honoured are refused before anything runs", () => {
  const refused: [string[], string][] = [
    [["--roundz", "3"], "--roundz"],
    [["debug"], "debug"],
    [["--rounds", "0"], '--rounds "0"'],
    [["--steps", "1.5"], '--steps "1.5"'],
    [["--threads", "-1"], "--threads"],
    [["--size", "huge"], 'named "huge"'],
    [["--dtype", "fp8"], "f32 or bf16"],
    [["--skip", "torch"], 'skip "torch"'],
    [["--peer", "x=1", "--peer", "x=2"], 'named "x"'],
    [["--peer", "pytorch=1"], 'named "pytorch"'],
    [["--skip", "ours", "--skip", "pytorch"], "Nobody is left"],
  ];
  for (const [args, message] of refused) assertThrows(() => parseArguments(args), Error, message);
});

Deno.test("the usage text names every option", () => {
  for (
    const name of ["size", "rounds", "steps", "threads", "dtype", "compile", "peer", "skip", "python", "json", "help"]
  ) {
    assertStringIncludes(usage, `--${name}`);
  }
});
