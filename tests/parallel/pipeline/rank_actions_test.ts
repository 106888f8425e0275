import { assertEquals } from "@std/assert";
import type { Schedule } from "../../../parallel/pipeline/actions.ts";
import {
  type ExchangeAction,
  type RankActions,
  rankActions,
  type SectionAction,
} from "../../../parallel/pipeline/rank_actions.ts";
import { namedSchedule, SCHEDULES } from "../../../parallel/pipeline/schedules.ts";
import { simulate } from "../../../parallel/pipeline/timetable.ts";
import { below, randomFrom, randomSchedule } from "./random_schedules.ts";

const isSection = (action: SectionAction | ExchangeAction): action is SectionAction => "section" in action;

/** Runs ranks side by side: memory is slots and places with a text in each, which says what somebody wrote there last. Whoever reads
 * finds what it expects there, or the test fails. Ranks meet for exchanges; the order of ranks is random. */
function run(schedule: Schedule, ranks: readonly RankActions[], random: () => number): void {
  const last = schedule.rankOf.length - 1, at = ranks.map(() => 0), sums = new Map<string, string[]>();
  const slots = ranks.map((rank) => new Array<string>(rank.slots)),
    places = ranks.map((rank) => new Array<string>(rank.places));
  const next = (rank: number) => ranks[rank].actions[at[rank]];
  for (let idle = 0; idle < 50 * ranks.length; idle++) {
    const rank = below(ranks.length, random), action = next(rank);
    if (action === undefined) continue;
    if (!isSection(action)) {
      const peer = next(action.peer);
      if (peer === undefined || isSection(peer) || peer.peer !== rank) continue;
      assertEquals(peer.transfers.map(({ message }) => message), action.transfers.map(({ message }) => message));
      for (const [i, mine] of action.transfers.entries()) {
        const theirs = peer.transfers[i], [from, to] = mine.way === "send" ? [mine, theirs] : [theirs, mine];
        const [sender, receiver] = mine.way === "send" ? [rank, action.peer] : [action.peer, rank];
        assertEquals([from.way, to.way], ["send", "receive"]);
        const { what, from: stage, microbatch } = from.message;
        assertEquals(places[sender][from.place], `${what} of ${stage}, ${microbatch}`);
        places[receiver][to.place] = places[sender][from.place];
      }
      [at[rank], at[action.peer], idle] = [at[rank] + 1, at[action.peer] + 1, 0];
      continue;
    }
    const { section, stage, microbatch, slot, first, last: isLast } = action, [own, kept] = [places[rank], slots[rank]];
    const reads = (place: number | undefined, what: string, there: boolean) => {
      assertEquals(place === undefined, !there, `${section} of stage ${stage} has a place for ${what}: ${place}`);
      if (there) assertEquals(own[place!], `${what}, ${microbatch}`);
    };
    reads(action.activationIn, `activation of ${stage - 1}`, stage > 0);
    reads(action.gradientIn, `gradient of ${stage + 1}`, section !== "forward" && stage < last);
    const made = `activations of ${stage}, ${microbatch}`;
    if (section === "forward") kept[slot] = made;
    if (section === "backward_weight") assertEquals(kept[slot], `${made}, and their gradients`);
    else assertEquals(kept[slot], made);
    if (section === "backward_input") kept[slot] += ", and their gradients";
    if (action.activationOut !== undefined) own[action.activationOut] = `activation of ${stage}, ${microbatch}`;
    if (action.gradientOut !== undefined) own[action.gradientOut] = `gradient of ${stage}, ${microbatch}`;
    assertEquals(action.activationOut !== undefined, section === "forward" && stage < last);
    assertEquals(action.gradientOut !== undefined, /^backward(_input)?$/.test(section) && stage > 0);
    const sum = `${stage} ${section === "forward" ? "losses" : "gradients"}`, before = sums.get(sum) ?? [];
    if (section === "backward_input") assertEquals([first, isLast], [false, false]);
    else {
      sums.set(sum, [...before, String(microbatch)]);
      assertEquals([first, isLast], [before.length === 0, before.length === schedule.microbatches - 1]);
    }
    [at[rank], idle] = [at[rank] + 1, 0];
  }
  assertEquals(at, ranks.map(({ actions }) => actions.length), "ranks came to no end");
  assertEquals([...sums.values()].every((all) => all.length === schedule.microbatches), true);
}

Deno.test("with the slots and places that they are given, ranks find what they read, whoever is faster", () => {
  const random = randomFrom(31), schedules = Array.from({ length: 150 }, () => randomSchedule(random));
  for (const { name, stagesPerRank: needs } of SCHEDULES) {
    for (const ranks of [1, 2, 4]) {
      schedules.push(namedSchedule(name, { ranks, stagesPerRank: needs === "one" ? 1 : 2, microbatches: 3 * ranks }));
    }
  }
  for (const schedule of schedules) run(schedule, rankActions(schedule), random);
});

Deno.test("a rank has as many slots as activations are in flight on it, and uses all of them", () => {
  const random = randomFrom(32), schedules = Array.from({ length: 100 }, () => randomSchedule(random));
  schedules.push(namedSchedule("InterleavedZeroBubble", { ranks: 4, stagesPerRank: 2, microbatches: 16 }));
  for (const schedule of schedules) {
    const ranks = rankActions(schedule);
    assertEquals(ranks.map(({ slots }) => slots), simulate(schedule).slots);
    for (const { actions, slots, places } of ranks) {
      const sections = actions.filter(isSection), transfers = actions.flatMap((a) => isSection(a) ? [] : a.transfers);
      assertEquals(new Set(sections.map(({ slot }) => slot)).size, slots);
      const used = sections.flatMap((
        { activationIn: a, activationOut: b, gradientIn: c, gradientOut: d },
      ) => [a, b, c, d]);
      const all = new Set([...used, ...transfers.map(({ place }) => place)].filter((place) => place !== undefined));
      assertEquals(all.size, places);
    }
  }
});

Deno.test("1F1B on two ranks, action by action", () => {
  const [low, high] = rankActions(namedSchedule("1F1B", { ranks: 2, stagesPerRank: 1, microbatches: 2 }));
  const text = (action: SectionAction | ExchangeAction) => {
    if (!isSection(action)) {
      return `rank ${action.peer}: ${action.transfers.map(({ way, place }) => `${way} ${place}`).join(", ")}`;
    }
    const { section, microbatch, slot, activationIn, activationOut, gradientIn, gradientOut } = action;
    const [reads, makes] = [[activationIn, gradientIn], [activationOut, gradientOut]].map((all) =>
      all.filter((n) => n !== undefined)
    );
    return `${section} ${microbatch} in ${slot}, ${reads} to ${makes}${action.first ? ", first" : ""}${
      action.last ? ", last" : ""
    }`;
  };
  assertEquals(low.actions.map(text), [
    "forward 0 in 0,  to 0, first",
    "rank 1: send 0",
    "forward 1 in 1,  to 0, last",
    "rank 1: send 0",
    "rank 1: receive 0",
    "backward 0 in 0, 0 to , first",
    "rank 1: receive 0",
    "backward 1 in 1, 0 to , last",
  ]);
  assertEquals(high.actions.map(text), [
    "rank 0: receive 0",
    "forward 0 in 0, 0 to , first",
    "rank 0: receive 1",
    "backward 0 in 0, 0 to 2, first",
    "rank 0: send 2",
    "forward 1 in 0, 1 to , last",
    "backward 1 in 0, 1 to 0, last",
    "rank 0: send 0",
  ]);
});

Deno.test("what a stage hands to another of its rank lies in one place from the one to the other, and is no exchange", () => {
  const [rank] = rankActions(namedSchedule("ZBVZeroBubble", { ranks: 1, stagesPerRank: 2, microbatches: 1 }));
  assertEquals(rank.actions.every(isSection), true);
  const [first, second, input] = rank.actions.filter(isSection);
  assertEquals([first.stage, second.stage, input.section], [0, 1, "backward_input"]);
  assertEquals([second.activationIn, input.activationIn], [first.activationOut, first.activationOut]);
});
