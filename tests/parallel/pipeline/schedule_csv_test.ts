import { assertEquals, assertThrows } from "@std/assert";
import { cellText, placeStages, type Schedule, ScheduleError } from "../../../parallel/pipeline/actions.ts";
import { verifyMessages } from "../../../parallel/pipeline/messages.ts";
import { readSchedule, writeSchedule } from "../../../parallel/pipeline/schedule_csv.ts";
import { namedSchedule, SCHEDULES } from "../../../parallel/pipeline/schedules.ts";
import { verifySchedule } from "../../../parallel/pipeline/verify_schedule.ts";
import { below, canRun, randomFrom, randomSchedule } from "./random_schedules.ts";

const goldens: { full: Record<string, string[]>; comms: Record<string, string[]> } = JSON.parse(
  Deno.readTextFileSync(new URL("../../goldens/parallel/schedules.json", import.meta.url)),
);

const read = (text: string, { rankOf = [0, 1], microbatches = 1 } = {}) =>
  readSchedule(text, { name: "own.csv", rankOf, microbatches });
const cells = ({ schedule }: { schedule: Schedule }) => schedule.rows.map((row) => row.map(cellText));

Deno.test("what is written is read again: the same cells, blanks and pairs", () => {
  const random = randomFrom(5);
  for (let i = 0; i < 200; i++) {
    const schedule = randomSchedule(random);
    // Blanks at the end of a line are read as they stand.
    assertEquals(readSchedule(writeSchedule(schedule), schedule), { schedule });
  }
});

Deno.test("PyTorch's files with sends and receives are read, and can run", () => {
  assertEquals(Object.keys(goldens.comms).length >= 5, true);
  for (const [key, rows] of Object.entries(goldens.comms)) {
    const [name, ...numbers] = key.split(" "), [ranks, stagesPerRank, microbatches] = numbers.map(Number);
    const named = namedSchedule(name, { ranks, stagesPerRank, microbatches }),
      text = rows.join("\n").replaceAll(" ", ",");
    assertEquals(/UNSHARD/.test(text) && /SEND_F/.test(text) && /REDUCE_GRAD/.test(text), true);
    const { schedule, messages } = readSchedule(text, { ...named, name: key });
    assertEquals(schedule.rows.map((row) => row.filter((cell) => cell !== null)), named.rows, key);
    verifyMessages(messages!);
    const again = readSchedule(writeSchedule(messages!), { ...named, name: key });
    assertEquals(again, { schedule, messages });
  }
});

Deno.test("lines may end as on Windows, and cells may have quotes and blanks around them", () => {
  assertEquals(cells(read('0F0, "0B0"\r\n1F0,,1B0\r\n')), [["0F0", "0B0"], ["1F0", "", "1B0"]]);
});

Deno.test("in older files B is the gradient of the input and BW the whole backward", () => {
  const options = { rankOf: [0, 0], microbatches: 1 };
  assertEquals(cells(read("0F0,1F0,1BW0,0B0,0W0", options)), [["0F0", "1F0", "1B0", "0I0", "0W0"]]);
  assertEquals(cells(read("0F0,1F0,1B0,0B0,1W0,0W0", options)), [["0F0", "1F0", "1I0", "0I0", "1W0", "0W0"]]);
  const pair = "(0F1;1BW0)OVERLAP_F_B", own = pair.replace("BW", "B");
  assertEquals(cells(read(`0F0,1F0,${pair},1F1,1B1,1W1`, options)), [["0F0", "1F0", own, "1F1", "1I1", "1W1"]]);
  assertEquals(cells(read("0F0,1F0,1B0,0I0,0W0", options)), [["0F0", "1F0", "1B0", "0I0", "0W0"]]);
});

Deno.test("a cell is read as a whole: what only begins as an action is none", () => {
  const fails = (text: string, [rank, column]: [number, number], cell: string) => {
    const error = assertThrows(() => read(text), ScheduleError);
    assertEquals(error.message.includes(`rank ${rank}, column ${column}: "${cell}" is no action`), true, error.message);
    assertEquals(error.place, { rank, column });
  };
  fails("0F0,0B0\n1F0,1B0x", [1, 1], "1B0x");
  fails("0F0,0B\n1F0,1B0", [0, 1], "0B");
  fails("0F0,0f0\n1F0,1B0", [0, 1], "0f0");
  fails("0F0,2BW0,0I0\n1F0,1B0", [0, 1], "2BW0");
  fails("0F0,0UNSHARD1\n1F0,1B0", [0, 1], "0UNSHARD1");
  fails("0F0,(0F1;0B0;0B1)OVERLAP_F_B\n1F0", [0, 1], "(0F1;0B0;0B1)OVERLAP_F_B");
  fails("0F0,-1F0\n1F0", [0, 1], "-1F0");
  fails("0F0,00B0\n1F0", [0, 1], "00B0");
});

Deno.test("a file has a line for each rank", () => {
  assertThrows(() => read("0F0,0B0"), ScheduleError, '"own.csv" has 1 lines; expected 2');
  assertThrows(() => read("rank,step\n0F0,0B0\n1F0,1B0"), ScheduleError, "there is no header");
});

/** A file that is a little wrong, or at least another one. */
function mutated(text: string, random: () => number): string {
  const rows = text.trimEnd().split("\n").map((line) => line.split(","));
  const pick = () => {
    const row = rows[below(rows.length, random)];
    return { row, at: below(row.length, random) };
  };
  const change = (what: RegExp, to: (found: string) => string) => {
    const { row, at } = pick();
    row[at] = row[at].replace(what, to);
  };
  const one = pick(), other = pick(), any = "FBIW0123456789xSENDRCV_();".split("");
  const mutations = [
    () => [one.row[one.at], other.row[other.at]] = [other.row[other.at], one.row[one.at]],
    () => [one.row[one.at], one.row[other.at % one.row.length]] = [one.row[other.at % one.row.length], one.row[one.at]],
    () => one.row.splice(one.at, 1),
    () => other.row.splice(other.at, 0, one.row[one.at]),
    () => one.row[one.at] = "",
    () => change(/[FBIW]/, () => "FBIW"[below(4, random)]),
    () => change(/^\d+/, () => String(below(9, random))),
    () => change(/\d+$/, () => String(below(9, random))),
    () => change(/./, () => any[below(any.length, random)]),
    () => one.row[one.at] += any[below(any.length, random)],
  ];
  mutations[below(mutations.length, random)]();
  return rows.map((row) => row.join(",")).join("\n");
}

/** A cell as a message has it: of older files as it is written now. */
function asTold(cell: string, message: string): string {
  return message.includes("(older: B is read as I, BW as B)")
    ? cell.replace(/BW?/, (b) => b === "B" ? "I" : "B")
    : cell;
}

Deno.test("10,000 wrong files are refused with rank, column and cell, and those that a change left right can run", () => {
  const random = randomFrom(11);
  const pool = Array.from({ length: 60 }, (_, i) => {
    const kind = SCHEDULES[i % SCHEDULES.length], ranks = 2 + below(2, random);
    const pipeline = { ranks, stagesPerRank: kind.stagesPerRank === "one" ? 1 : 2, microbatches: 2 * ranks };
    const schedule = i % 2 === 0 ? randomSchedule(random) : namedSchedule(kind.name, pipeline);
    return { schedule, file: writeSchedule(schedule) };
  });
  let [accepted, refused] = [0, 0];
  while (refused < 10_000) {
    const { schedule, file } = pool[below(pool.length, random)], text = mutated(file, random);
    const error = errorOf(() => verifySchedule(readSchedule(text, schedule).schedule));
    if (canRun(text, schedule) !== (error === undefined)) throw new Error(`misjudged: ${error}\n${text}`);
    if (error === undefined) {
      accepted++;
      continue;
    }
    refused++;
    const { place: { rank, column }, message } = error;
    const cell = text.split("\n")[rank]?.split(",")[column ?? -1]?.trim();
    const named = column === undefined
      // Where the row has nothing that the message could point at.
      ? /rank \d+ never does \d+F\d+|has \d+ lines; expected/.test(message)
      : message.includes(`column ${column}`) && message.includes(`"${asTold(cell!, message)}"`);
    if (!named || column !== undefined && !message.includes(`rank ${rank}`)) throw new Error(`not named: ${message}`);
  }
  assertEquals(accepted > 500, true, `only ${accepted} could run`);
});

/** What is thrown, which must be of a schedule. */
function errorOf(act: () => void): ScheduleError | undefined {
  try {
    act();
  } catch (error) {
    if (error instanceof ScheduleError) return error;
    throw error;
  }
}

Deno.test("10,000 changed files with sends and receives are refused with the place, or can run without these", () => {
  const random = randomFrom(13), files = Object.entries(goldens.comms).filter(([key]) => !key.includes(" 4 2 "));
  let [accepted, refused] = [0, 0];
  for (let i = 0; i < 10_000; i++) {
    const [key, rows] = files[i % files.length], [name, ...numbers] = key.split(" ");
    const [ranks, stagesPerRank, microbatches] = numbers.map(Number);
    const { style } = SCHEDULES.find((kind) => kind.name === name)!;
    const options = { name: key, rankOf: placeStages(ranks * stagesPerRank, { ranks, style }), microbatches };
    const text = mutated(rows.join("\n").replaceAll(" ", ","), random);
    try {
      verifyMessages(readSchedule(text, options).messages!);
      accepted++;
      const computed = text.replace(/\d+(UNSHARD|RESHARD|REDUCE_GRAD|(SEND|RECV)_[FB]\d+)(?=,|$)/gm, "");
      assertEquals(canRun(computed, options), true, text);
    } catch (error) {
      if (!(error instanceof ScheduleError)) throw error;
      refused++;
      const { rank, column } = error.place;
      assertEquals(
        error.message.includes(`rank ${rank}`) && error.message.includes(`column ${column}`),
        true,
        error.message,
      );
    }
  }
  assertEquals(accepted > 500 && refused > 5_000, true, `${accepted} accepted, ${refused} refused`);
});
