/** What pictures share: a white sheet with a title, and text that is text. Lengths are pixels from the top left corner.
 * @module */

/** Colour of text that is not said otherwise. */
export const TEXT = "#24292f";

/** A picture of parts, in their order. */
export function sheet(title: string, [width, height]: readonly [number, number], parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}"
  font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="14" fill="${TEXT}" role="img">
  <title>${escaped(title)}</title>
  <rect width="${width}" height="${height}" rx="8" fill="white"/>
  ${parts.join("\n  ")}
</svg>
`;
}

/** Text with its first baseline at x, y. */
export function label(x: number, y: number, content: string, style = ""): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${style}>${escaped(content)}</text>`;
}

/** Content that is no markup. */
export function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Round numbers that divide a range into at most `most` parts; the first and last lie within it. */
export function ticks(low: number, high: number, most: number): number[] {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= rough * (1 - 1e-9))!;
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
