/** Runs that are killed at any moment. KILLS says how often each, for a longer look. */
import { assert, assertEquals } from "@std/assert";
import { library } from "../../../ffi/library.ts";
import { findCheckpoints } from "../../../train/checkpoint/open.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { Random } from "../../graph/random_graphs.ts";
import { start, testRanks } from "../../native/mpirun.ts";
import type { Leg } from "./mesh_rank.ts";

library(); // opened once by a process, and never closed

const script = new URL("mesh_rank.ts", import.meta.url), kills = Number(Deno.env.get("KILLS") ?? 5);

/** The steps that the first rank has printed. */
function lossesIn(text: string): { step: number; loss: number }[] {
  return [...text.matchAll(/^\{"rank":0,"step".*\}$/gm)].map(([line]) => JSON.parse(line));
}

/** Starts a run again and again, and kills one or all of its ranks a random time after it has printed a loss: a save is under way then,
 * or one after it is. */
async function killedAgainAndAgain(leg: Omit<Leg, "until" | "interval" | "tell">, size: number, seed: number) {
  const steps = 10 * kills, random = new Random(seed);
  await using folder = await temporaryFolder();
  const words = Array.from({ length: 3000 }, () => random.pick(["the", "quick", "brown", "fox", "jumps"]));
  for (const name of ["a", "b", "c", "d"]) await Deno.writeTextFile(`${folder.path}/${name}.txt`, words.join(" "));
  const args = [JSON.stringify({ ...leg, until: steps, tell: true }), folder.path, `${steps}`],
    checkpoints = `${folder.path}/checkpoint`;
  const whole = lossesIn(await new Response(start({ size, script, args }).stdout).text()).map(({ loss }) => loss);
  await Deno.remove(checkpoints, { recursive: true });
  const killed: Leg = { ...leg, until: steps, interval: 1, tell: true };
  let latest = 0, deaths = 0, made = 0;
  while (latest < steps - 1 && made < steps) {
    const process = start({ size, script, args: [JSON.stringify(killed), folder.path, `${steps}`] }),
      pids: number[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined, text = "", isKilled = false;
    const kill = () => {
      isKilled = true;
      for (const pid of random.oneIn(2) ? pids : [random.pick(pids)]) Deno.kill(pid, "SIGKILL");
    };
    for await (const chunk of process.stdout.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      pids.splice(0, pids.length, ...[...text.matchAll(/"pid":(\d+)/g)].map(([, pid]) => Number(pid)));
      if (deaths < kills && text.includes('"loss"')) timer ??= setTimeout(kill, random.real(0, 60));
    }
    clearTimeout(timer);
    const { code } = await process.status;
    assertEquals(code !== 0, isKilled, text);
    if (isKilled) deaths++;
    for (const { step, loss } of lossesIn(text)) {
      assertEquals(loss, whole[step - 1], `step ${step}`);
      made = Math.max(made, step);
    }
    const { complete, broken } = findCheckpoints(checkpoints);
    assertEquals(broken, []);
    const newest = complete[0]?.manifest.step ?? 0;
    // Beside training, the step that was saved is the one before that which was made, or two before.
    assert(
      newest >= latest && newest >= made - (leg.async ? 2 : 1),
      `made ${made} steps, ${newest} of which are saved, and ${latest} before`,
    );
    latest = newest;
  }
  assertEquals(deaths, kills);
}

const kinds = [["waits for its checkpoints", false], ["is saved beside training", true]] as const;
for (const [i, [what, async]] of kinds.entries()) {
  Deno.test(`a run that ${what}, and is killed again and again, has the losses of one that is not`, () =>
    killedAgainAndAgain({ mesh: {}, async }, 1, 3 + i));
  testRanks(
    `two ranks of a run that ${what}, and are killed again and again, have the losses of one that is not`,
    () => killedAgainAndAgain({ mesh: { dp_shard: 2 }, async }, 2, 5 + i),
  );
}
