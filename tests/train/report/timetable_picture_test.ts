import { assertEquals, assertStringIncludes } from "@std/assert";
import { namedSchedule } from "../../../parallel/pipeline/schedules.ts";
import { simulate } from "../../../parallel/pipeline/timetable.ts";
import { timetablePicture } from "../../../train/report/timetable_picture.ts";

const boxes = (picture: string) =>
  [...picture.matchAll(/<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)" height="22" fill="(#\w+)" opacity="([\d.]+)"/g)]
    .map(([, x, y, width, fill, opacity]) => ({ x: Number(x), y: Number(y), width: Number(width), fill, opacity }));

Deno.test("each action is a box where it happens, as long as it takes, with its microbatch in it", () => {
  const picture = timetablePicture(simulate(namedSchedule("1F1B", { ranks: 2, stagesPerRank: 1, microbatches: 2 })));
  // The step takes 9 units on 980 pixels: rank 1 begins after one, its first backward after two and takes two.
  const second = boxes(picture).filter(({ y }) => y === 26);
  assertEquals(second.map(({ x }) => x), [1, 2, 4, 5].map((unit) => Number((60 + unit * 980 / 9).toFixed(1))));
  assertEquals(second.map(({ width }) => width), [1, 2, 1, 2].map((units) => Number((units * 980 / 9).toFixed(1))));
  assertEquals([...picture.matchAll(/<text class="in"[^>]*>(\d)</g)].map(([, m]) => m).join(""), "01010011");
  assertEquals(new Set(boxes(picture).map(({ fill }) => fill)).size, 2);
  assertStringIncludes(picture, ">pp 1</text>"); // whatever ranks are there
  assertStringIncludes(picture, "33.3 % of the time ranks are idle");
});

Deno.test("stages of one rank differ, and only kinds that there are have a key", () => {
  const picture = timetablePicture(
    simulate(namedSchedule("ZBVZeroBubble", { ranks: 2, stagesPerRank: 2, microbatches: 4 })),
  );
  assertEquals(new Set(boxes(picture).map(({ opacity }) => opacity)), new Set(["1.00", "0.60"]));
  assertEquals(picture.match(/class="key"/g)?.length, 3);
  assertStringIncludes(picture, "what is paler a later stage of the rank");
});

Deno.test("actions that are too short to be seen are drawn as one with those like them", () => {
  const picture = timetablePicture(
    simulate(namedSchedule("GPipe", { ranks: 2, stagesPerRank: 1, microbatches: 2000 })),
  );
  // On rank 0 all forwards, then all backwards; on rank 1 these two as well.
  assertEquals(boxes(picture).length, 4);
});
