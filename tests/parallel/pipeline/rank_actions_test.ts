import { assert, assertEquals } from "@std/assert";
import type { Schedule } from "../../../parallel/pipeline/actions.ts";
import {
  forwardActions,
  hasHalves,
  isTransfer,
  type RankAction,
  type RankActions,
  rankActions,
  type TransferAction,
} from "../../../parallel/pipeline/rank_actions.ts";
import { namedSchedule, SCHEDULES } from "../../../parallel/pipeline/schedules.ts";
import { simulate } from "../../../parallel/pipeline/timetable.ts";
import { below, randomFrom, randomSchedule } from "./random_schedules.ts";

/** What lies in a slot, by what it is called: whose it is. */
type Slot = Map<string, string>;

/** Runs ranks side by side: whoever reads finds in its slot what it expects, or the test fails. Both sides of a message come to it in the
 * same order; the order of ranks is random. */
function run(rankOf: readonly number[], ranks: readonly RankActions[], random: () => number): Map<string, string[]> {
  const last = rankOf.length - 1, at = ranks.map(() => 0), sums = new Map<string, string[]>();
  const slots = ranks.map((rank) => Array.from({ length: rank.slots }, (): Slot => new Map()));
  const next = (rank: number): RankAction | undefined => ranks[rank].actions[at[rank]];
  const move = (from: Slot, to: Slot, { message: { what, from: stage, microbatch } }: TransferAction) => {
    assertEquals(from.get(`${what} out`), `${what} of ${stage}, ${microbatch}`);
    to.set(`${what} in`, `${what} of ${stage}, ${microbatch}`);
  };
  for (let idle = 0; idle < 50 * ranks.length; idle++) {
    const rank = below(ranks.length, random), action = next(rank);
    if (action === undefined) continue;
    if (isTransfer(action) && action.way !== "pass") {
      const { way, message } = action, peer = rankOf[way === "send" ? message.to : message.from], other = next(peer);
      if (!other || !isTransfer(other) || other.way === way || other.way === "pass") continue;
      if (JSON.stringify(other.message) !== JSON.stringify(message)) continue;
      const [from, to] = way === "send" ? [rank, peer] : [peer, rank];
      const [sent, received] = way === "send" ? [action, other] : [other, action];
      move(slots[from][sent.slot], slots[to][received.slot], sent);
      [at[rank], at[peer], idle] = [at[rank] + 1, at[peer] + 1, 0];
      continue;
    }
    const slot = slots[rank][action.slot];
    if (isTransfer(action)) move(slots[rank][action.source!], slot, action);
    else {
      const { section, stage, microbatch, first, last: isLast } = action, own = `${stage}, ${microbatch}`;
      if (stage > 0) assertEquals(slot.get("activation in"), `activation of ${stage - 1}, ${microbatch}`);
      if (section === "forward") slot.set("kept", own).set("activation out", `activation of ${own}`);
      else {
        assertEquals(slot.get("kept"), own);
        if (stage < last) assertEquals(slot.get("gradient in"), `gradient of ${stage + 1}, ${microbatch}`);
        if (section === "backward_weight") assertEquals(slot.get("half"), own);
        else slot.set("gradient out", `gradient of ${own}`);
        if (section === "backward_input") slot.set("half", own);
      }
      const sum = `${section} of ${stage}`, before = sums.get(sum) ?? [];
      sums.set(sum, [...before, String(microbatch)]);
      assertEquals(first, before.length === 0, `${sum} begins its sums once`);
      if (isLast) sums.get(sum)!.push("end");
    }
    [at[rank], idle] = [at[rank] + 1, 0];
  }
  assertEquals(at, ranks.map(({ actions }) => actions.length), "ranks came to no end");
  return sums;
}

const named = (name: string, ranks: number, needs: string, microbatches: number): Schedule =>
  namedSchedule(name, { ranks, stagesPerRank: needs === "one" ? 1 : 2, microbatches });

Deno.test("with the slots that they are given, ranks find what they read, whoever is faster", () => {
  const random = randomFrom(31), schedules = Array.from({ length: 150 }, () => randomSchedule(random));
  for (const { name, stagesPerRank: needs } of SCHEDULES) {
    for (const ranks of [1, 2, 4]) schedules.push(named(name, ranks, needs, 3 * ranks));
  }
  for (const schedule of schedules) {
    const sums = run(schedule.rankOf, rankActions(schedule), random), { microbatches } = schedule;
    // Each section of each stage has had each microbatch once, and its last one was told so.
    for (const all of sums.values()) assertEquals([all.length, all.at(-1)], [microbatches + 1, "end"]);
    assertEquals(sums.size, schedule.rankOf.length * (hasHalves(schedule) ? 3 : 2));
  }
});

Deno.test("microbatches that only go forward find what they read as well", () => {
  const random = randomFrom(33);
  for (const rankOf of [[0], [0, 1], [0, 1, 2, 3], [0, 1, 1, 0], [0, 1, 0, 1], [0, 1, 2, 2, 1, 0]]) {
    const ranks = Array.from({ length: Math.max(...rankOf) + 1 }, (_, rank) => forwardActions(rankOf, rank, 3));
    const sums = run(rankOf, ranks, random);
    assertEquals([...sums], rankOf.map((_, stage) => [`forward of ${stage}`, ["0", "1", "2"]]));
  }
});

Deno.test("a rank has a slot for each activation in flight, and one for each microbatch that is there early", () => {
  const random = randomFrom(32), schedules = Array.from({ length: 100 }, () => randomSchedule(random));
  schedules.push(namedSchedule("InterleavedZeroBubble", { ranks: 4, stagesPerRank: 2, microbatches: 16 }));
  for (const schedule of schedules) {
    const inFlight = simulate(schedule).slots;
    rankActions(schedule).forEach(({ actions, slots }, rank) => {
      assertEquals(new Set(actions.map(({ slot }) => slot)).size, slots);
      assert(slots >= inFlight[rank]);
    });
  }
  const slots = (name: string, needs: string) => rankActions(named(name, 4, needs, 16)).map((r) => r.slots);
  assertEquals(slots("1F1B", "one"), [4, 4, 3, 2]);
  assertEquals(slots("GPipe", "one"), [16, 16, 16, 16]);
});

Deno.test("1F1B on two ranks, action by action", () => {
  const [low, high] = rankActions(namedSchedule("1F1B", { ranks: 2, stagesPerRank: 1, microbatches: 2 }));
  const text = (action: RankAction) => {
    if (isTransfer(action)) {
      return `${action.way} ${action.message.what} ${action.message.microbatch} in ${action.slot}`;
    }
    const { section, microbatch, slot, first, last } = action;
    return `${section} ${microbatch} in ${slot}${first ? ", first" : ""}${last ? ", last" : ""}`;
  };
  assertEquals(low.actions.map(text), [
    "forward 0 in 0, first",
    "send activation 0 in 0",
    "forward 1 in 1, last",
    "send activation 1 in 1",
    "receive gradient 0 in 0",
    "backward 0 in 0, first",
    "receive gradient 1 in 1",
    "backward 1 in 1, last",
  ]);
  assertEquals(high.actions.map(text), [
    "receive activation 0 in 0",
    "forward 0 in 0, first",
    "receive activation 1 in 1",
    "backward 0 in 0, first",
    "send gradient 0 in 0",
    "forward 1 in 1, last",
    "backward 1 in 1, last",
    "send gradient 1 in 1",
  ]);
});

Deno.test("what a stage hands to another of its rank goes from slot to slot, and is no message", () => {
  const [rank] = rankActions(namedSchedule("ZBVZeroBubble", { ranks: 1, stagesPerRank: 2, microbatches: 1 }));
  const [first, pass, second] = rank.actions;
  assert(!isTransfer(first) && isTransfer(pass) && !isTransfer(second));
  assertEquals([pass.way, pass.source, pass.slot], ["pass", first.slot, second.slot]);
  assert(rank.actions.every((a) => !isTransfer(a) || a.way === "pass"));
});
