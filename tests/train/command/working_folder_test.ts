import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { enterWorkingFolder } from "../../../train/command/working_folder.ts";
import { temporaryFolder } from "../../data/fixture.ts";

const root = fromFileUrl(new URL("../../..", import.meta.url));
const CONFIG = `[job]
dump_folder = "out"
[model]
dim = 16
n_layers = 1
n_heads = 2
[training]
local_batch_size = 2
seq_len = 16
steps = 1
[validation]
enable = false
`;

/** Runs a program in a folder outside of the checkout that has `my.toml`, and returns the files that are there then. */
async function filesAfter(command: string, args: string[], env: Record<string, string> = {}): Promise<string[]> {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/my.toml`, CONFIG);
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args,
    cwd: folder.path,
    env: { NO_COLOR: "1", INIT_CWD: folder.path, ...env },
  }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assertEquals(code, 0, text);
  assertMatch(text, /^step: +1 /m);
  return (await Array.fromAsync(Deno.readDir(folder.path))).map(({ name }) => name).sort();
}

Deno.test("paths of the task train, in its arguments and in the config, begin where it was called", async () => {
  const args = ["task", "--quiet", "--config", `${root}/deno.json`, "train", "--config", "my.toml"];
  assertEquals(await filesAfter(Deno.execPath(), args), ["my.toml", "out"]);
});

Deno.test("those of torchtitan's script begin where it was called, its own config with the script", async () => {
  const script = `${root}/run_train.sh`;
  const elsewhere = { INIT_CWD: "/" }; // as a task around it has set it
  assertEquals(await filesAfter(script, [], { CONFIG_FILE: "my.toml", ...elsewhere }), ["my.toml", "out"]);
  const { stdout } = await new Deno.Command(script, { args: ["--dry-run"], cwd: "/", env: { NO_COLOR: "1" } }).output();
  assertStringIncludes(new TextDecoder().decode(stdout), "Memory");
});

Deno.test("a process stays in a folder that is not that of the tasks, and where nothing says where it was called", async () => {
  await using folder = await temporaryFolder();
  const here = Deno.cwd(), home = new URL(`file://${here}`), elsewhere = new URL(`file://${folder.path}`);
  const entered = (home: URL, called?: string) => {
    try {
      enterWorkingFolder(home, new Map(called === undefined ? [] : [["INIT_CWD", called]]));
      return Deno.cwd();
    } finally {
      Deno.chdir(here);
    }
  };
  const target = await Deno.realPath(folder.path);
  assertEquals([entered(home), entered(elsewhere, "/"), entered(new URL("https://jsr.io/"), "/")], [here, here, here]);
  assertEquals([entered(home, here), entered(home, folder.path)], [here, target]);
});
