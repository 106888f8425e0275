import { assertEquals } from "@std/assert";
import {
  actionText,
  type Cell,
  cellText,
  placeStages,
  stagesByRank,
  walk,
} from "../../../parallel/pipeline/actions.ts";
import { randomFrom, randomSchedule } from "./random_schedules.ts";

Deno.test("in a loop stage s is on rank s mod P, in a V every other pass goes back", () => {
  assertEquals(placeStages(8, { ranks: 4, style: "loop" }), [0, 1, 2, 3, 0, 1, 2, 3]);
  assertEquals(placeStages(8, { ranks: 4, style: "v" }), [0, 1, 2, 3, 3, 2, 1, 0]);
  assertEquals(placeStages(6, { ranks: 2, style: "v" }), [0, 1, 1, 0, 0, 1]);
  assertEquals(stagesByRank({ rankOf: placeStages(8, { ranks: 4, style: "v" }), rows: [[], [], [], []] })[1], [1, 6]);
});

Deno.test("cells are written as PyTorch writes them", () => {
  const forward = { stage: 0, kind: "F", microbatch: 7 } as const,
    backward = { ...forward, stage: 7, kind: "B" } as const;
  const cells: Cell[] = [forward, [forward, backward], null];
  assertEquals(cells.map(cellText), ["0F7", "(0F7;7B7)OVERLAP_F_B", ""]);
});

Deno.test("a walk meets each action once, behind what it waits for, and in the order of its row", () => {
  const random = randomFrom(1);
  for (let i = 0; i < 200; i++) {
    const schedule = randomSchedule(random), seen: string[] = [], stages = schedule.rankOf.length;
    const columns = schedule.rows.map(() => 0);
    const stuck = walk(schedule, ({ rank, column, action }) => {
      const { stage, kind, microbatch } = action;
      const before = kind === "F"
        ? [`${stage - 1}F${microbatch}`]
        : ["B", "I"].map((k) => `${stage + 1}${k}${microbatch}`);
      const free = kind === "W" || (kind === "F" ? stage === 0 : stage === stages - 1);
      assertEquals(free || before.some((text) => seen.includes(text)), true, `${actionText(action)} came too early`);
      assertEquals(columns[rank] <= column, true);
      columns[rank] = column;
      seen.push(actionText(action));
    });
    assertEquals(stuck, []);
    const all = schedule.rows.flat().flatMap((cell) => cellText(cell).match(/\d+[FBIW]\d+/g) ?? []);
    assertEquals(seen.toSorted(), all.toSorted());
  }
});

Deno.test("a walk says where ranks are stuck", () => {
  const [f, b] = (["F", "B"] as const).map((kind) => (stage: number, microbatch: number) => ({
    stage,
    kind,
    microbatch,
  }));
  const rows = [[f(0, 0), b(0, 0)], [b(1, 0), f(1, 0)]];
  const stuck = walk({ name: "", microbatches: 1, rankOf: [0, 1, 2], rows: [...rows, []] }, () => {});
  assertEquals(stuck.map(({ rank, column }) => [rank, column]), [[0, 1], [1, 0]]);
});
