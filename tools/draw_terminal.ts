/** Draws a session in a terminal as a moving picture: `deno run --allow-read --allow-write tools/draw_terminal.ts docs/terminal/tour.txt docs/terminal/tour.svg`.
 * A line that begins with `$ ` is typed, `pause 2` lets two seconds pass, all others are printed. Who wants no motion sees the end.
 * @module */
import { escaped } from "./svg.ts";

/** Pixels: a character, a line, the margin. */
const [CHARACTER, LINE, MARGIN] = [7.85, 19, 16];
/** Seconds: to type a character, to think before it, between printed lines. */
const [TYPE, THINK, PRINT] = [0.035, 0.6, 0.12];
const COLORS = { back: "#10161d", text: "#d5dde5", prompt: "#6cc28a", typed: "#ffffff" };

/** A line of the session. */
interface Shown {
  readonly text: string;
  readonly isTyped: boolean;
  /** Seconds from the start. */
  readonly at: number;
}

/** Lines of a session with their times. */
export function timed(session: string): readonly Shown[] {
  const shown: Shown[] = [];
  let now = 0.3;
  for (const line of session.trimEnd().split("\n")) {
    const [, pause] = /^pause (\d+(?:\.\d+)?)$/.exec(line) ?? [];
    if (pause !== undefined) now += Number(pause);
    else if (line.startsWith("$ ")) {
      shown.push({ text: line.slice(2), isTyped: true, at: now += THINK });
      now += TYPE * line.length + THINK;
    } else shown.push({ text: line, isTyped: false, at: now += PRINT });
  }
  return shown;
}

/** The picture. @param title for who cannot see it. */
export function terminalPicture(session: string, title: string): string {
  const lines = timed(session),
    columns = Math.max(...lines.map(({ text, isTyped }) => text.length + (isTyped ? 2 : 0)));
  const width = Math.ceil(columns * CHARACTER + 2 * MARGIN), height = lines.length * LINE + 2 * MARGIN;
  const parts = lines.map(({ text, isTyped, at }, i) => {
    const y = MARGIN + (i + 1) * LINE - 5, delay = `style="animation-delay:${at.toFixed(2)}s"`;
    if (!isTyped) return `<text class="show" x="${MARGIN}" y="${y}" ${delay}>${escaped(text)}</text>`;
    const words = [...text].map((character, n) =>
      `<tspan class="show" style="animation-delay:${(at + TYPE * n).toFixed(2)}s">${escaped(character)}</tspan>`
    );
    const prompt = `<tspan class="show" fill="${COLORS.prompt}" ${delay}>$ </tspan>`;
    return `<text x="${MARGIN}" y="${y}" fill="${COLORS.typed}">${prompt}${words.join("")}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}"
  font-family="'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="13" fill="${COLORS.text}" role="img" xml:space="preserve">
  <title>${escaped(title)}</title>
  <style>
    .show { fill-opacity: 0; animation: show 0.01s linear forwards; }
    @keyframes show { to { fill-opacity: 1; } }
    @media (prefers-reduced-motion: reduce) { .show { fill-opacity: 1; animation: none; } }
    text { white-space: pre; }
  </style>
  <rect width="${width}" height="${height}" rx="8" fill="${COLORS.back}"/>
  ${parts.join("\n  ")}
</svg>
`;
}

if (import.meta.main) {
  const [from, to] = Deno.args;
  if (to === undefined) {
    console.error(
      "error: Two files are needed\n  expected: draw_terminal.ts SESSION.txt PICTURE.svg\n  fix: name both",
    );
    Deno.exit(1);
  }
  await Deno.writeTextFile(to, terminalPicture(await Deno.readTextFile(from), "A session in a terminal"));
}
