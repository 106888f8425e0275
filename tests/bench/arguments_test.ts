import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { filled, parseArguments, parsePeer, usage } from "../../bench/arguments.ts";

Deno.test("without options the bench compares ours and PyTorch at the debug size in f32, three rounds of five steps", () => {
  const { sizes, dtypes, rounds, steps, threads, peers, skip, json, svg, readme, from } = parseArguments([]);
  assertEquals([sizes, dtypes, rounds, steps, readme], [["debug"], ["f32"], 3, 5, false]);
  assertEquals([threads, json, svg, from], [undefined, undefined, undefined, undefined]);
  assertEquals([peers.length, skip.size], [0, 0]);
});

Deno.test("on a GPU the bench compares debug, small, 1B and 8B with fewer blocks in bf16, unless it is told otherwise", () => {
  const { device, sizes, dtypes } = parseArguments(["--device", "cuda"]);
  assertEquals([device, sizes, dtypes], ["cuda", ["debug", "small", "1B", "8B-cut"], ["bf16"]]);
  const told = parseArguments(["--device=cuda", "--size=debug", "--dtype=f32"]);
  assertEquals([told.sizes, told.dtypes, parseArguments([]).device], [["debug"], ["f32"], "cpu"]);
});

Deno.test("sizes and dtypes are lists, of which each is run once", () => {
  const { sizes, dtypes } = parseArguments(["--size", "debug2k, debug,debug2k", "--dtype=f32,bf16"]);
  assertEquals([sizes, dtypes], [["debug2k", "debug"], ["f32", "bf16"]]);
});

Deno.test("peers keep their order and options their values", () => {
  const { peers, threads, skip, json } = parseArguments(
    ["--peer", "b=./b", "--peer=a=./a x", "--threads", "2", "--skip", "ours", "--json", "out.json"],
  );
  assertEquals(peers, [{ name: "b", command: "./b" }, { name: "a", command: "./a x" }]);
  assertEquals([threads, [...skip], json], [2, ["ours"], "out.json"]);
});

Deno.test("a peer is a name and a command that may itself contain an equals sign", () => {
  assertEquals(parsePeer("mine=X=1 ./train --a=b"), { name: "mine", command: "X=1 ./train --a=b" });
  for (const text of ["mine", "=./train", "mine=", " =x"]) assertThrows(() => parsePeer(text), Error, "name=COMMAND");
});

Deno.test("a peer's command is told size, dtype and steps where it asks for them", () => {
  const values = { size: "mid", dtype: "bf16", steps: 5 };
  assertEquals(
    filled("./train --size {size} --{dtype} -n {steps} {size} ${HOME} {x}", values),
    "./train --size mid --bf16 -n 5 mid ${HOME} {x}",
  );
});

Deno.test("options that cannot be honoured are refused before anything runs", () => {
  const refused: [string[], string][] = [
    [["--roundz", "3"], "--roundz"],
    [["debug"], "debug"],
    [["--rounds", "0"], '--rounds "0"'],
    [["--steps", "1.5"], '--steps "1.5"'],
    [["--threads", "-1"], "--threads"],
    [["--size", "debug,huge"], 'named "huge"'],
    [["--dtype", "f32,fp8"], '"fp8"'],
    [["--device", "h100"], '--device "h100"'],
    [["--skip", "torch"], 'skip "torch"'],
    [["--peer", "x=1", "--peer", "x=2"], 'named "x"'],
    [["--peer", "pytorch=1"], 'named "pytorch"'],
    [["--skip", "ours", "--skip", "pytorch", "--skip", "pytorch-compiled"], "Nobody is left"],
  ];
  for (const [args, message] of refused) assertThrows(() => parseArguments(args), Error, message);
});

Deno.test("the usage text names every option", () => {
  const names = [
    "device",
    "size",
    "dtype",
    "rounds",
    "steps",
    "threads",
    "peer",
    "skip",
    "python",
    "json",
    "svg",
    "readme",
    "from",
  ];
  for (const name of [...names, "help"]) assertStringIncludes(usage, `\n  --${name} `);
});
