/** The timetable of a pipeline as a picture for the plan's page: a line for each place along
 * `pp`, a box for each action, as long as it takes.
 * @module */
import { type Kind, stagesByRank } from "../../parallel/pipeline/actions.ts";
import type { Span, Timetable } from "../../parallel/pipeline/timetable.ts";

/** Color of each kind, and what it is. */
const KINDS: Readonly<Record<Kind, readonly [color: string, words: string]>> = {
  F: ["#4f8fbf", "forward"],
  B: ["#6a9a58", "backward"],
  I: ["#d98a3d", "backward for the input"],
  W: ["#b5a642", "backward for weights"],
};

/** Pixels: the whole, what is left of the lines, a line, a box in it. */
const [WIDTH, LEFT, LINE, BOX] = [1040, 60, 26, 22];
/** A box as wide as this has room for the number of a microbatch; one narrower than the other is drawn with those like it. */
const [READABLE, VISIBLE] = [15, 2];

/** The picture, as SVG with text beneath. The number in a box is the microbatch; of a rank's stages the later are drawn paler.
 * @param options `until`: the time at its right edge, by default the end of the timetable. */
export function timetablePicture(
  timetable: Timetable,
  { until = timetable.makespan }: { until?: number } = {},
): string {
  const { schedule, spans, bubble } = timetable, perUnit = (WIDTH - LEFT) / until;
  const own = stagesByRank(schedule), height = spans.length * LINE;
  const lines = spans.map((row, rank) => {
    const y = rank * LINE, label = `<text x="0" y="${y + 16}">pp ${rank}</text>`;
    const boxes = drawn(row, VISIBLE / perUnit).map(({ action: { kind, stage, microbatch }, start, end }) => {
      const x = LEFT + start * perUnit, width = (end - start) * perUnit, pass = own[rank].indexOf(stage);
      const opacity = 1 - 0.4 * pass / Math.max(1, own[rank].length - 1);
      const box =
        `<rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${BOX}" fill="${KINDS[kind][0]}" ` +
        `opacity="${opacity.toFixed(2)}" stroke="#fff"/>`;
      if (width < READABLE) return box;
      return `${box}<text class="in" x="${(x + width / 2).toFixed(1)}" y="${y + 15}">${microbatch}</text>`;
    });
    return [label, ...boxes].join("");
  });
  const kinds = new Set(spans.flat().map(({ action }) => action.kind));
  const key = (Object.keys(KINDS) as Kind[]).filter((kind) => kinds.has(kind)).map((kind) =>
    `<span class="key" style="background:${KINDS[kind][0]}"></span>${KINDS[kind][1]}`
  );
  const idle = `${(100 * bubble).toFixed(1)} % of the time ranks are idle`;
  return `<svg viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="timetable of the pipeline">
<style>text { font: 13px sans-serif; fill: #5b6875; } .in { font-size: 11px; fill: #fff; text-anchor: middle; }</style>
${lines.join("\n")}
</svg>
<p class="note">${key.join(", ")}; ${idle}. A number is a microbatch${
    own.some((stages) => stages.length > 1) ? ", and what is paler a later stage of the rank" : ""
  }.</p>`;
}

/** What is drawn of a row: actions too short to be seen are one with those like them that follow at once. */
function drawn(row: readonly Span[], visible: number): Span[] {
  const boxes: Span[] = [];
  for (const span of row) {
    const last = boxes.at(-1), { action: { kind, stage }, start, end } = span;
    const joins = last && end - start < visible && last.end === start && last.action.kind === kind &&
      last.action.stage === stage;
    if (joins) boxes[boxes.length - 1] = { ...last, end };
    else boxes.push(span);
  }
  return boxes;
}
