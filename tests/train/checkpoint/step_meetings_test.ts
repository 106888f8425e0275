import { assertEquals } from "@std/assert";
import { StepMeetings } from "../../../train/checkpoint/step_meetings.ts";
import { meetings } from "./fixture.ts";

const soon = () => new Promise((resolve) => setTimeout(resolve, 1));

Deno.test("ranks meet at the end of the step at which the last of them is ready, and not before", async () => {
  const ranks = meetings(2).map((group) => new StepMeetings(group)),
    work = ranks.map(() => Promise.withResolvers<number>());
  const told: number[][] = [];
  ranks.forEach((rank, i) => rank.meet(work[i].promise).then((all) => told.push(all)));
  work[0].resolve(10);
  await soon();
  assertEquals(ranks.map((r) => r.isReady), [true, false]);
  work[1].resolve(11);
  await soon();
  assertEquals([ranks.map((r) => r.isReady), told], [[true, true], []]);
  await Promise.all(ranks.map((r) => r.hold()));
  assertEquals([told, ranks.map((r) => r.isReady)], [[[10, 11], [10, 11]], [false, false]]);
});

Deno.test("ranks that hurry meet as soon as all are ready, for what they wait for and for all that follows", async () => {
  const ranks = meetings(2).map((group) => new StepMeetings(group));
  const told = ranks.map(async (
    rank,
    i,
  ) => [await rank.meet(Promise.resolve(i)), await rank.meet(Promise.resolve(i + 2))]);
  await Promise.all(ranks.map((r) => r.hurry()));
  assertEquals(await Promise.all(told), [[[0, 1], [2, 3]], [[0, 1], [2, 3]]]);
});
