/** Runs that are killed at any moment. KILLS says how often, for a longer look. */
import { assert, assertEquals } from "@std/assert";
import { library } from "../../../ffi/library.ts";
import { findCheckpoints } from "../../../train/checkpoint/manifest.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { Random } from "../../graph/random_graphs.ts";
import { type Leg, runLeg } from "./mesh_rank.ts";

library(); // opened once by a process, and never closed

const script = new URL("mesh_rank.ts", import.meta.url).pathname;

Deno.test("a run that is killed again and again at random moments has the losses of one that is not", async () => {
  const kills = Number(Deno.env.get("KILLS") ?? 6), steps = 10 * kills, random = new Random(3);
  await using folder = await temporaryFolder();
  const words = Array.from({ length: 3000 }, () => random.pick(["the", "quick", "brown", "fox", "jumps"]));
  for (const name of ["a", "b", "c", "d"]) await Deno.writeTextFile(`${folder.path}/${name}.txt`, words.join(" "));
  const whole = await runLeg({ mesh: {}, until: steps }, folder.path, steps), checkpoints = `${folder.path}/checkpoint`;
  await Deno.remove(checkpoints, { recursive: true });
  const leg: Leg = { mesh: {}, until: steps, interval: 1 };
  let latest = 0, killed = 0, made = 0;
  while (latest < steps - 1 && made < steps) {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", script, JSON.stringify(leg), folder.path, `${steps}`],
      env: { TITAN_LIB: library().path },
      stdout: "piped",
    }).spawn();
    let timer: ReturnType<typeof setTimeout> | undefined, text = "";
    for await (const chunk of process.stdout.pipeThrough(new TextDecoderStream())) {
      text += chunk; // with its first step a save is under way, or one after it is
      if (killed < kills) timer ??= setTimeout(() => process.kill("SIGKILL"), random.real(0, 60));
    }
    clearTimeout(timer);
    const { signal } = await process.status;
    if (signal === "SIGKILL") killed++;
    else assertEquals((await process.status).code, 0);
    for (const [line] of text.matchAll(/^\{"step".*\}$/gm)) {
      const { step, loss } = JSON.parse(line);
      assertEquals(loss, whole[step - 1], `step ${step}`);
      made = Math.max(made, step);
    }
    const { complete, broken } = findCheckpoints(checkpoints);
    assertEquals(broken, []);
    const newest = complete[0]?.manifest.step ?? 0;
    assert(
      newest >= latest && newest >= made - 1,
      `made ${made} steps, ${newest} of which are saved, and ${latest} before`,
    );
    latest = newest;
  }
  assertEquals(killed, kills);
});
