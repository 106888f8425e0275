import { assertEquals, assertThrows } from "@std/assert";
import { cellText, type Schedule, ScheduleError } from "../../../parallel/pipeline/actions.ts";
import { namedSchedule } from "../../../parallel/pipeline/schedules.ts";
import { simulate } from "../../../parallel/pipeline/timetable.ts";
import { verifySchedule } from "../../../parallel/pipeline/verify_schedule.ts";
import { readSchedule } from "../../../parallel/pipeline/schedule_csv.ts";
import { randomFrom, randomSchedule } from "./random_schedules.ts";

/** Rows of cells, separated by blanks; `-` is a blank one. */
function from(rows: readonly string[], { rankOf = rows.map((_, rank) => rank), microbatches = 1 } = {}): Schedule {
  const text = rows.map((row) => row.split(" ").map((cell) => cell.replace("-", "")).join(",")).join("\n");
  return readSchedule(text, { name: "own", rankOf, microbatches }).schedule;
}

function fails(schedule: Schedule, [rank, column]: [number, number | undefined], message: string, slots?: number) {
  const error = assertThrows(() => verifySchedule(schedule, { slots }), ScheduleError, message);
  assertEquals([error.place.rank, error.place.column], [rank, column], error.message);
  if (column === undefined) return;
  assertEquals(error.message.includes(`column ${column}`), true, error.message);
  assertEquals(error.message.includes(cellText(schedule.rows[rank][column])), true, error.message);
}

Deno.test("an action that comes twice is told with both its columns", () => {
  fails(from(["0F0 - 0F0 0B0"]), [0, 2], 'rank 0, column 2: "0F0" was done in column 0; expected each action once');
});

Deno.test("a whole backward beside one of its halves is refused", () => {
  fails(from(["0F0 0I0 0B0"]), [0, 2], '"0B0" repeats what 0I0 does in column 1; expected a B, or an I and a W');
  fails(from(["0F0 0B0 0I0 0W0"]), [0, 2], '"0I0" repeats what 0B0 does in column 1');
});

Deno.test("backward before forward, and weights before input, come too early", () => {
  fails(from(["0B0 0F0"]), [0, 0], '"0B0" comes too early; expected 0F0 before it in the row');
  fails(from(["0F0 0W0 0I0"]), [0, 1], '"0W0" comes too early; expected 0I0 before it in the row');
});

Deno.test("an action that is missing is named, with what it belongs behind", () => {
  const microbatches = 2;
  fails(from(["0F0 0B0"], { microbatches }), [0, undefined], "rank 0 never does 0F1; expected it in the row");
  fails(from(["0F0 0F1 0B1"], { microbatches }), [0, 0], 'never does 0B0; expected it behind column 0, "0F0"');
  fails(from(["0F0 0I0"]), [0, 1], 'never does 0W0; expected it behind column 1, "0I0"');
});

Deno.test("a stage of another rank, a stage that there is not, and a microbatch too many are refused", () => {
  fails(from(["0F0 0B0 1F0", "1F0 1B0"]), [0, 2], '"1F0" is of stage 1, which is on rank 1; expected one of 0');
  fails(from(["0F0 0B0 2F0", "1F0 1B0"]), [0, 2], "is of stage 2, which does not exist; expected one of 0");
  fails(from(["0F0 0B0 0F1"]), [0, 2], "is of microbatch 1; expected one of 0 to 0");
  fails({ ...from(["0F0 0B0"]), rankOf: [0, 1] }, [1, undefined], "none for rank 1, which holds stage 1");
});

Deno.test("a pair is a forward and a whole backward", () => {
  const options = { microbatches: 2, rankOf: [0] };
  const pair = (cell: string) => from([`0F0 ${cell} 0B1`], options);
  verifySchedule(pair("(0F1;0B0)OVERLAP_F_B"));
  fails(pair("(0B0;0F1)OVERLAP_F_B"), [0, 1], '"(0B0;0F1)OVERLAP_F_B" is no pair');
  fails(pair("(0F1;0I0)OVERLAP_F_B"), [0, 1], "expected a forward and a whole backward, in this order");
});

Deno.test("ranks that wait for each other are told, and what each waits for", () => {
  const schedule = from(["0F0 0B0 0F1 0B1", "1F1 1F0 1B0 1B1"], { microbatches: 2 });
  fails(
    schedule,
    [0, 1],
    '"own" comes to no end: rank 0, column 1: "0B0" waits for the backward of microbatch 0 on stage 1 (rank 1); rank 1, ' +
      'column 0: "1F1" waits for the forward of microbatch 1 on stage 0 (rank 0)',
  );
});

Deno.test("more activations than there are slots are refused where they are too many", () => {
  const schedule = namedSchedule("1F1B", { ranks: 4, stagesPerRank: 1, microbatches: 8 });
  verifySchedule(schedule, { slots: [4, 3, 2, 1] });
  fails(schedule, [0, 3], '"0F3" is the activation number 4 that the rank keeps at once; expected at most 3', 3);
  const error = assertThrows(() => verifySchedule(schedule, { slots: [4, 3, 1, 1] }), ScheduleError);
  assertEquals(error.place, { rank: 2, column: 1 });
  // The slot is free only behind the gradients of weights.
  fails(from(["0F0 0I0 0F1 0W0 0I1 0W1"], { microbatches: 2 }), [0, 2], "number 2", 1);
});

Deno.test("random schedules that can run are accepted, with just the slots that they use", () => {
  const random = randomFrom(3);
  for (let i = 0; i < 300; i++) {
    const schedule = randomSchedule(random), { slots } = simulate(schedule);
    verifySchedule(schedule, { slots });
    const rank = slots.indexOf(Math.max(...slots));
    const fewer = slots.map((n, r) => r === rank ? n - 1 : n);
    assertEquals(assertThrows(() => verifySchedule(schedule, { slots: fewer }), ScheduleError).place.rank, rank);
  }
});
