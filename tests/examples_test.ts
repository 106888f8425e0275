import { assert, assertEquals, assertMatch } from "@std/assert";
import { library } from "../ffi/library.ts";
import { output, testRanks } from "./native/mpirun.ts";

const script = new URL("../examples/own_model_tp.ts", import.meta.url);

testRanks("a model of one's own, with a plan of a few lines, trains on 2 x 2 ranks as it does on one", async () => {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", script.pathname],
    env: { TITAN_LIB: library().path },
  }).output();
  const alone = new TextDecoder().decode(stdout);
  assertMatch(alone, /^step 1: loss 7\.6\d\d\n(.*\n){3}step 40: loss [23]\.\d{3}\n$/);
  assertEquals(await output({ size: 4, script, args: ["2", "2"] }), alone);
  assertEquals(await output({ size: 2, script, args: ["1", "2"] }), alone);
});

for (
  const [name, printed] of [["own_text", /^step 1: loss 8\.\d{3}\n(.*\n){4}step 50: loss [1-7]\.\d{3}\n$/], [
    "gradient",
    /\d/,
  ]] as const
) {
  Deno.test(`the example ${name} runs with the permissions that its first lines name`, async () => {
    const root = new URL("..", import.meta.url), source = await Deno.readTextFile(new URL(`examples/${name}.ts`, root));
    const command = /^ \* npx -y deno (run .*\.ts)/m.exec(source)?.[1].split(" ");
    assert(command?.includes("--no-prompt"), source.slice(0, 300));
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: command, cwd: root }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    assertMatch(new TextDecoder().decode(stdout), printed);
  });
}
