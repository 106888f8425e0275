/** The bench as a picture: a panel for each size, in it a group of bars for each dtype, tokens per second. Each panel has
 * its own scale. A bar is the median; the thin line on it reaches to the fastest step. Lengths are pixels.
 * @module */
import { label, sheet, TEXT } from "../tools/svg.ts";
import { type Case, summarise } from "./report.ts";

const panel = { width: 320, height: 236, perRow: 2, top: 44, bottom: 190 };
const [head, legendHeight, groupGap] = [44, 30, 26];
const colors = ["#1f6feb", "#d1570b", "#8a63d2", "#57606a", "#2da44e", "#bf8700"];
const quiet = "#57606a";

/** Draws cases. The first contestant of each is named with how often it is faster than the others. */
export function speedSvg(cases: readonly Case[]): string {
  const sizes = [...new Set(cases.map(({ size }) => size))];
  const names = [...new Set(cases.flatMap(({ contestants }) => contestants.map(({ name }) => name)))];
  const columns = Math.min(panel.perRow, sizes.length), rows = Math.ceil(sizes.length / panel.perRow);
  const width = Math.max(columns * panel.width, 480) + 24, height = head + legendHeight + rows * panel.height;
  const color = (name: string): string => colors[names.indexOf(name) % colors.length];
  const title = "Training speed, tokens per second";
  const parts = [label(16, 28, title, 'font-size="17" font-weight="600"')];
  const legend = `N x: ${names[0]} is N times as fast`;
  parts.push(label(width - 16, 28, legend, `text-anchor="end" font-size="12" fill="${quiet}"`));
  let x = 16;
  for (const name of names) {
    parts.push(`<rect x="${x}" y="${head}" width="12" height="12" fill="${color(name)}"/>`);
    parts.push(label(x + 18, head + 10.5, name));
    x += 18 + 7.5 * name.length + 22;
  }
  for (const [index, size] of sizes.entries()) {
    const left = 16 + index % panel.perRow * panel.width;
    const top = head + legendHeight + Math.floor(index / panel.perRow) * panel.height;
    const groups = cases.filter((each) => each.size === size).map((each) => ({ ...each, bars: summarise(each) }));
    const most = Math.max(...groups.flatMap(({ bars }) => bars.map(({ median, best }) => Math.max(median, best ?? 0))));
    const count = groups.reduce((n, { bars }) => n + bars.length, 0);
    const slot = Math.min(52, (panel.width - 56 - groupGap * (groups.length - 1)) / count);
    const base = top + panel.bottom, scale = (panel.bottom - panel.top) / most;
    parts.push(label(left, top + 18, size, 'font-weight="600"'));
    let at = left;
    for (const { dtype, bars } of groups) {
      const start = at;
      for (const { name, median, best, ratio } of bars) {
        const middle = at + slot / 2, y = base - median * scale, high = base - (best ?? median) * scale;
        parts.push(
          `<rect x="${(at + 3).toFixed(1)}" y="${y.toFixed(1)}" width="${(slot - 6).toFixed(1)}" ` +
            `height="${(base - y).toFixed(1)}" fill="${color(name)}"/>`,
        );
        parts.push(`<path d="M${middle.toFixed(1)} ${y.toFixed(1)}V${high.toFixed(1)}" stroke="${color(name)}"/>`);
        parts.push(label(middle, high - 5, median.toFixed(0), 'text-anchor="middle" font-size="12"'));
        if (name !== bars[0].name) {
          parts.push(
            label(middle, base + 15, `${ratio.toFixed(2)} x`, `text-anchor="middle" font-size="11" fill="${quiet}"`),
          );
        }
        at += slot;
      }
      parts.push(`<path d="M${start} ${base}H${at.toFixed(1)}" stroke="${TEXT}"/>`);
      parts.push(label((start + at) / 2, base + 33, dtype, 'text-anchor="middle"'));
      at += groupGap;
    }
  }
  return sheet(title, [width, height], parts);
}
