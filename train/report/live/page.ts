/** The page itself, in one piece: nothing is loaded from elsewhere. Its scripts are modules of the folder `page/`. @module */
import chart from "./page/chart.js" with { type: "text" };
import main from "./page/main.js" with { type: "text" };
import runs from "./page/runs.js" with { type: "text" };
import style from "./page/style.css" with { type: "text" };

/** The text of the page. @param facts what its scripts are told. */
export function pageText(facts: Readonly<Record<string, unknown>>): string {
  const module = (text: string) => `data:text/javascript;charset=utf-8,${encodeURIComponent(text)}`;
  const imports = { "./chart.js": module(chart), "./runs.js": module(runs) };
  const json = (value: unknown) => JSON.stringify(value).replaceAll("<", "\\u003c");
  return `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>libtitan</title><link rel="icon" href="data:,"><style>${style}</style>
<script type="importmap">${json({ imports })}</script></head>
<body><main id="page"></main>
<script id="facts" type="application/json">${json(facts)}</script>
<script type="module">${main.replaceAll("</script", "<\\/script")}</script></body></html>
`;
}
