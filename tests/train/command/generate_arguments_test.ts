import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { GenerateError } from "../../../train/generate/error.ts";
import { readGenerateArguments, usage } from "../../../train/command/generate_arguments.ts";

Deno.test("every option is read, with a space or an equals sign, with - or _", () => {
  const args = "--from a --prompt b=c --max-new-tokens 7 --temperature=0 --top_k 3 --top-p 0.5 --min-p 0.1 " +
    "--repetition-penalty 1.2 --seed -4 --samples 2 --stop x --stop=--y --tokenizer t --context-length 9 --dtype bf16 --device cuda --threads 1 " +
    "--nproc 4 --mesh tp=4 --json";
  assertEquals(readGenerateArguments(args.split(" ")), {
    ...{ from: "a", prompt: "b=c", chat: false, system: undefined, maxNewTokens: 7, samples: 2, stop: ["x", "--y"] },
    sampling: { temperature: 0, topK: 3, topP: 0.5, minP: 0.1, repetitionPenalty: 1.2, seed: -4 },
    ...{
      tokenizer: "t",
      contextLength: 9,
      dtype: "bf16",
      device: "cuda",
      threads: 1,
      nproc: 4,
      mesh: { pp: 1, tp: 4 },
    },
    ...{ json: true, help: false },
  });
  const { from, sampling, maxNewTokens } = readGenerateArguments(["--prompt", ""]);
  assertEquals([from, sampling.temperature, maxNewTokens], ["outputs/checkpoint", 0.8, 100]);
  assertEquals(readGenerateArguments(["--chat", "--system", "s"]).system, "s");
  const meshes = ["pp=2", "tp=2,pp=3", " pp = 4 , tp = 1"].map((m) =>
    readGenerateArguments(["--prompt=a", "--mesh", m]).mesh
  );
  assertEquals(meshes, [{ pp: 2, tp: 1 }, { pp: 3, tp: 2 }, { pp: 4, tp: 1 }]);
});

Deno.test("what cannot be understood is refused, with what would be", () => {
  const refused = (args: string, ...parts: string[]) => {
    const { message } = assertThrows(() => readGenerateArguments(args.split(" ")), GenerateError);
    for (const part of parts) assertStringIncludes(message, part);
  };
  refused("--from a", "There is no prompt", "add --prompt TEXT, or --chat");
  refused("hello", '"hello" belongs to no option');
  refused("--propmt a", "--propmt is not known", "write --prompt");
  refused("--prompt", "--prompt has no value", "--prompt TEXT");
  refused("--prompt a --chat=yes", "--chat takes no value");
  refused("--prompt a --top-p x", '--top-p is "x"', "a number");
  refused("--prompt a --top-p 2", "--top-p is 2", "a number above 0, up to 1");
  refused("--prompt a --repetition-penalty 0", "--repetition-penalty is 0");
  refused("--prompt a --samples 0", "--samples is 0");
  refused("--prompt a --max-new-tokens 1.5", "--max-new-tokens is 1.5");
  refused("--prompt a --dtype f16", "--dtype is f16");
  refused("--prompt a --device gpu", "--device is gpu");
  for (const mesh of ["dp_shard=2", "pp=2,dp_shard=2", "pp=0", "pp", "tp=2,tp=2", "tp=2,"]) {
    refused(`--prompt a --mesh ${mesh}`, `--mesh is ${mesh}`, "tp=N, pp=N or both");
  }
  refused("--prompt a --system b", "--system is for conversations");
  refused("--chat --samples 2", "1 in a conversation");
  refused("--prompt a --toString b", "--toString is not known");
});

Deno.test("help names every option that is read", () => {
  const text = usage();
  for (
    const name of ["from", "prompt", "chat", "top-k", "repetition-penalty", "stop", "context-length", "dtype", "help"]
  ) {
    assertStringIncludes(text, `  --${name}`);
  }
  assertEquals(readGenerateArguments(["--help"]).help, true);
});
