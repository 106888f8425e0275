import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  actionsOf,
  actionText,
  type Cell,
  cellText,
  type Schedule,
  ScheduleError,
} from "../../../parallel/pipeline/actions.ts";
import {
  exchangeRows,
  isExchange,
  isMessageEnd,
  type MessageEnd,
  messageEndText,
  type MessageSchedule,
  placeMessages,
  verifyMessages,
} from "../../../parallel/pipeline/messages.ts";
import { readSchedule } from "../../../parallel/pipeline/schedule_csv.ts";
import { namedSchedule, SCHEDULES } from "../../../parallel/pipeline/schedules.ts";
import { simulate } from "../../../parallel/pipeline/timetable.ts";
import { below, randomFrom, randomSchedule } from "./random_schedules.ts";

const text = (cell: Cell | MessageEnd) => isMessageEnd(cell) ? messageEndText(cell) : cellText(cell);

/** Rows of cells, separated by blanks. */
function from(...rows: string[]): MessageSchedule {
  const options = { name: "own", rankOf: rows.map((_, rank) => rank), microbatches: 1 };
  const read = readSchedule(rows.join("\n").replaceAll(" ", ","), options);
  return read.messages ?? read.schedule;
}

function fails(schedule: MessageSchedule, [rank, column]: [number, number], message: string) {
  const error = assertThrows(() => verifyMessages(schedule), ScheduleError, message);
  assertEquals([error.place.rank, error.place.column], [rank, column], error.message);
}

Deno.test("messages are sent as soon as they are made, and received before they are read", () => {
  const { rows } = placeMessages(namedSchedule("1F1B", { ranks: 2, stagesPerRank: 1, microbatches: 2 }));
  assertEquals(rows.map((row) => row.map(text).join(" ")), [
    "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1",
    "1RECV_F0 1F0 1RECV_F1 1B0 1SEND_B0 1F1 1B1 1SEND_B1",
  ]);
});

Deno.test("of messages that are made at one time, a rank exchanges those first that are read first", () => {
  const schedule = namedSchedule("Interleaved1F1B", { ranks: 4, stagesPerRank: 2, microbatches: 8 });
  const spans = simulate(schedule).spans.flat(), begins = new Map<string, number>(), ends = new Map<string, number>();
  for (const { action, start, end } of spans) {
    begins.set(actionText(action), start);
    ends.set(actionText(action), end);
  }
  let sameTime = 0;
  for (const row of placeMessages(schedule).rows) {
    const messages = row.filter((cell) => isMessageEnd(cell)).map(({ stage, kind, microbatch }) => {
      const up = kind.endsWith("F") ? 1 : -1,
        [made, read] = kind.startsWith("SEND") ? [stage, stage + up] : [stage - up, stage];
      return {
        made: ends.get(`${made}${kind.at(-1)}${microbatch}`)!,
        read: begins.get(`${read}${kind.at(-1)}${microbatch}`)!,
      };
    });
    for (const [i, next] of messages.slice(1).entries()) {
      if (next.made !== messages[i].made) continue;
      sameTime++;
      assert(messages[i].read <= next.read, JSON.stringify([messages[i], next]));
    }
  }
  assert(sameTime > 20, `${sameTime}`);
});

Deno.test("a rank that comes to several exchanges at once has that first which its next action waits for", () => {
  let several = 0;
  for (const { name, stagesPerRank: needs } of SCHEDULES) {
    const schedule = namedSchedule(name, { ranks: 4, stagesPerRank: needs === "one" ? 1 : 2, microbatches: 8 });
    const ends = new Map(simulate(schedule).spans.flat().map(({ action, end }) => [actionText(action), end]));
    for (const [rank, row] of exchangeRows(placeMessages(schedule)).entries()) {
      // What is received between two actions, by when it is made, and how many actions later it is read.
      const received = (at: number) => {
        const step = row[at];
        if (!isExchange(step)) return [];
        return step.messages.filter(({ to }) => schedule.rankOf[to] === rank).map(({ what, from, to, microbatch }) => {
          const kinds = what === "activation" ? "F" : "BI";
          const named = (stage: number) => [...kinds].map((kind) => `${stage}${kind}${microbatch}`);
          const made = named(from).map((text) => ends.get(text)).find((end) => end !== undefined)!;
          const reads = (other: typeof step | (typeof row)[number]) =>
            !isExchange(other) && named(to).includes(actionText(other));
          return { made, read: row.findIndex(reads) };
        });
      };
      for (let at = 0; at < row.length; at++) {
        if (!isExchange(row[at]) || at > 0 && isExchange(row[at - 1])) continue;
        const batch: { made: number; read: number }[] = [];
        for (let i = at; i < row.length && isExchange(row[i]); i++) batch.push(...received(i));
        for (const [i, next] of batch.slice(1).entries()) {
          if (next.made !== batch[i].made) continue;
          several++;
          assert(batch[i].read <= next.read, `${name}, rank ${rank}: ${JSON.stringify(batch)}`);
        }
      }
    }
  }
  assert(several > 20, `${several}`);
});

Deno.test("what two ranks send each other at one point is one exchange, the same on both", () => {
  const schedule = from(
    "0F0 0SEND_F0 0RECV_B0 0B0",
    "1RECV_F0 1F0 1SEND_F0 1RECV_B0 1B0 1SEND_B0",
    "2RECV_F0 2F0 2B0 2SEND_B0",
  );
  const rows = exchangeRows(schedule).map((row) =>
    row.map((step) =>
      isExchange(step)
        ? `${step.ranks}: ${step.messages.map(({ what, from }) => `${what} of ${from}`)}`
        : actionText(step)
    )
  );
  assertEquals(rows, [
    ["0F0", "0,1: activation of 0", "0,1: gradient of 1", "0B0"],
    ["0,1: activation of 0", "1F0", "1,2: activation of 1", "1,2: gradient of 2", "1B0", "0,1: gradient of 1"],
    ["1,2: activation of 1", "2F0", "2B0", "1,2: gradient of 2"],
  ]);
  const both = namedSchedule("Interleaved1F1B", { ranks: 2, stagesPerRank: 2, microbatches: 4 });
  const batches = exchangeRows(placeMessages(both)).map((row) => row.filter(isExchange));
  assertEquals(batches[0], batches[1]);
  assertEquals(batches[0].some(({ messages }) => messages.length > 1), true);
});

Deno.test("the ends of a batch may come in any order", () => {
  const both = [
    "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1",
    "1RECV_F0 1F0 1B0 1RECV_F1 1SEND_B0 1F1 1B1 1SEND_B1",
  ];
  const options = { name: "own", rankOf: [0, 1], microbatches: 2 };
  for (const first of [both[0], both[0].replace("0SEND_F1 0RECV_B0", "0RECV_B0 0SEND_F1")]) {
    for (const second of [both[1], both[1].replace("1RECV_F1 1SEND_B0", "1SEND_B0 1RECV_F1")]) {
      verifyMessages(readSchedule(`${first}\n${second}`.replaceAll(" ", ","), options).messages!);
    }
  }
});

Deno.test("an end that is missing, twice, too many, too late or of another rank is refused", () => {
  const [low, high] = ["0F0 0SEND_F0 0RECV_B0 0B0", "1RECV_F0 1F0 1B0 1SEND_B0"];
  verifyMessages(from(low, high));
  fails(from("0F0 0RECV_B0 0B0", high), [0, 0], '"0F0" has no 0SEND_F0; expected it behind column 0');
  fails(from(low, "1F0 1RECV_F0 1B0 1SEND_B0"), [1, 0], '"1F0" has 1RECV_F0 in column 1; expected it before column 0');
  fails(from(low, "1RECV_F0 1F0 1SEND_B0 1B0"), [1, 3], '"1B0" has 1SEND_B0 in column 2; expected it behind column 3');
  fails(from("0F0 0SEND_F0 0SEND_F0 0RECV_B0 0B0", high), [0, 2], '"0SEND_F0" was done in column 1');
  fails(from(`${low} 1SEND_B0`, high), [0, 4], '"1SEND_B0" is of stage 1; expected a stage of this rank');
  fails(from(`${low} 0SEND_B0`, high), [0, 4], "goes to or from stage -1, which there is not; leave the cell out");
  fails(from(`${low} 0SEND_F1`, high), [0, 4], '"0SEND_F1" belongs to no action of the row');
});

Deno.test("ranks that come to their exchanges in orders that do not fit are told where they wait", () => {
  // Each waits for the other to receive what it sends first.
  const low = "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1";
  const high = "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1";
  const options = { name: "own", rankOf: [0, 1], microbatches: 2 };
  const of = (...rows: string[]) => readSchedule(rows.join("\n").replaceAll(" ", ","), options).messages!;
  verifyMessages(of(low, high));
  fails(
    of(
      low.replace("0F1 0SEND_F1 0RECV_B0", "0RECV_B0 0F1 0SEND_F1"),
      high.replace("1B0 1SEND_B0 1RECV_F1", "1RECV_F1 1B0 1SEND_B0"),
    ),
    [0, 2],
    'rank 0, column 2: "0RECV_B0" is never exchanged: rank 1 waits at column 2, "1RECV_F1"',
  );
});

Deno.test("what is computed is verified too", () => {
  fails(from("0F0 0SEND_F0 0RECV_B0 0B0 0B0", "1RECV_F0 1F0 1B0 1SEND_B0"), [0, 4], '"0B0" was done in column 3');
});

/** Do ranks come to an end if each does one cell, or one batch of ends, after the other, and both ends of a message at once? */
function comesToAnEnd(rows: readonly (readonly (Cell | MessageEnd)[])[]): boolean {
  const batches = rows.map((row) => {
    const all: string[][] = [];
    let open = false;
    for (const cell of row.filter((cell) => cell !== null)) {
      if (isMessageEnd(cell) && open) all.at(-1)!.push(text(cell));
      else all.push([text(cell)]);
      open = isMessageEnd(cell);
    }
    return all;
  });
  const otherEnd = (end: string) => {
    const [, stage, kind, way, microbatch] = /(\d+)(SEND|RECV)(_[FB])(\d+)/.exec(end)!;
    const other = Number(stage) + ((kind === "SEND") === (way === "_F") ? 1 : -1);
    return `${other}${kind === "SEND" ? "RECV" : "SEND"}${way}${microbatch}`;
  };
  const reached = new Set<string>(), at = rows.map(() => 0);
  for (let moved = true; moved;) {
    moved = false;
    for (const [rank, all] of batches.entries()) {
      const batch = all[at[rank]];
      if (batch === undefined) continue;
      const before = reached.size;
      for (const end of batch) reached.add(end);
      moved ||= reached.size > before;
      if (!batch.every((cell) => !/_/.test(cell) || reached.has(otherEnd(cell)))) continue;
      at[rank]++;
      moved = true;
    }
  }
  return batches.every((all, rank) => at[rank] === all.length);
}

Deno.test("messages of every named schedule and of random ones can be exchanged as they are placed", () => {
  const random = randomFrom(21), schedules: Schedule[] = Array.from({ length: 200 }, () => randomSchedule(random));
  for (const { name, stagesPerRank: needs } of SCHEDULES) {
    for (const ranks of [2, 4]) {
      schedules.push(namedSchedule(name, { ranks, stagesPerRank: needs === "one" ? 1 : 2, microbatches: 2 * ranks }));
    }
  }
  for (const schedule of schedules) {
    const times = schedule.rankOf.map(() => ({ forward: 1 + random(), input: 1 + random(), weight: 1 + random() }));
    for (const options of [{}, { times, link: { latency: random(), bytesPerSecond: 1 }, messageBytes: random() }]) {
      const placed = placeMessages(schedule, options);
      verifyMessages(placed);
      assertEquals(comesToAnEnd(placed.rows), true);
      const computed = placed.rows.map((row) => row.flatMap((cell) => isMessageEnd(cell) ? [] : actionsOf(cell)));
      assertEquals(computed, schedule.rows.map((row) => row.flatMap(actionsOf)));
    }
  }
});

Deno.test("messages in random places are accepted when ranks come to an end, and refused when they do not", () => {
  const random = randomFrom(22);
  let [accepted, stuck] = [0, 0];
  for (let i = 0; i < 1500; i++) {
    const placed = placeMessages(randomSchedule(random));
    for (let n = below(4, random); n >= 0; n--) {
      // One end moves to another place of its row.
      const row = placed.rows[below(placed.rows.length, random)] as (Cell | MessageEnd)[];
      const ends = row.flatMap((cell, at) => isMessageEnd(cell) ? [at] : []);
      if (ends.length === 0) continue;
      const [end] = row.splice(ends[below(ends.length, random)], 1);
      row.splice(below(row.length + 1, random), 0, end);
    }
    try {
      verifyMessages(placed);
      accepted++;
      assertEquals(comesToAnEnd(placed.rows), true);
    } catch (error) {
      if (!(error instanceof ScheduleError)) throw error;
      if (!error.message.includes("is never exchanged")) continue;
      stuck++;
      assertEquals(comesToAnEnd(placed.rows), false, error.message);
    }
  }
  assertEquals(accepted > 100 && stuck > 20, true, `${accepted} accepted, ${stuck} stuck`);
});
