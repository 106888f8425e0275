// The page: fields on the left, what the worker answers on the right. `choices` and `WORKER` come from the bundle (tools/planner.ts).
import { addressOf, argumentsOf, choiceOf, groups } from "./choices.ts";

const at = (id) => document.getElementById(id);
const workerUrl = URL.createObjectURL(new Blob([at("worker").textContent], { type: "text/javascript" }));

/** @type {Map<string, HTMLInputElement | HTMLSelectElement>} */
const inputs = new Map();

function fill() {
  for (const { name, fields } of groups) {
    const set = document.createElement("fieldset");
    set.append(Object.assign(document.createElement("legend"), { textContent: name }));
    for (const { flag, label, options, kind } of fields) {
      const line = document.createElement("label"), input = document.createElement(options ? "select" : "input");
      for (const option of options ?? []) input.append(new Option(option));
      if (!options) Object.assign(input, { type: kind, spellcheck: false, autocomplete: "off" });
      input.title = `--${flag}`;
      input.dataset.flag = flag;
      input.addEventListener(options ? "change" : "input", changed);
      inputs.set(flag, input);
      line.append(Object.assign(document.createElement("span"), { textContent: label }), input);
      set.append(line);
    }
    at("fields").append(set);
  }
}

const chosen = () => Object.fromEntries([...inputs].map(([flag, { value }]) => [flag, value]));

function show(choice) {
  for (const [flag, input] of inputs) input.value = choice[flag];
}

let waiting, worker, clock;
let isIdle = false;

function changed() {
  clearTimeout(waiting);
  waiting = setTimeout(plan, 250);
}

/** Plans what is chosen; a plan under way is given up. A worker that has planned before is faster, as its engine knows the code. */
function plan() {
  const choice = chosen(), address = addressOf(choice);
  history.replaceState(null, "", address === "" ? location.pathname + location.search : `#${address}`);
  if (!isIdle) {
    worker?.terminate();
    worker = new Worker(workerUrl);
  }
  isIdle = false;
  const begun = performance.now();
  let stage = "starting";
  const tick = () => at("stage").textContent = `${stage} ... ${((performance.now() - begun) / 1000).toFixed(1)} s`;
  clearInterval(clock);
  clock = setInterval(tick, 100);
  document.body.dataset.state = "busy";
  at("refused").textContent = at("fixes").textContent = "";
  const end = (state) => {
    clearInterval(clock);
    document.body.dataset.state = state;
  };
  worker.onerror = ({ message }) => {
    at("refused").textContent = message;
    end("refused");
  };
  worker.onmessage = ({ data }) => {
    if (data.kind === "stage") {
      stage = data.text;
      tick();
    } else if (data.kind === "toml") {
      at("toml").value = data.toml;
      at("command").value = ["npx -y deno task train --dry-run --config plan.toml", ...data.flags].join(" ");
    } else if (data.kind === "plan") {
      at("title").textContent = data.title;
      at("plan").innerHTML = data.html;
      document.body.dataset.seconds = data.seconds.toFixed(3);
      at("stage").textContent = `compiled in ${data.seconds.toFixed(2)} s, in this browser`;
      if (data.fits) end("planned");
    } else if (data.kind === "fixes") {
      const heading = data.lines.length > 0 ? "What to change" : "Nothing that was tried needs less.";
      at("fixes").textContent = [heading, ...data.lines].join("\n");
      at("stage").textContent = `looked for ${data.seconds.toFixed(1)} s for what would fit`;
      end("planned");
    } else if (data.kind === "refused") {
      at("refused").textContent = data.text;
      at("stage").textContent = "";
      end("refused");
    } else if (data.kind === "done") isIdle = true;
  };
  worker.postMessage(argumentsOf(choice));
}

at("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([at("toml").value], { type: "application/toml" }));
  link.download = "plan.toml";
  link.click();
});
at("link").addEventListener("click", async () => {
  await navigator.clipboard.writeText(location.href);
  at("link").textContent = "Copied";
});
addEventListener("hashchange", () => {
  show(choiceOf(location.hash));
  plan();
});

fill();
show(choiceOf(location.hash));
plan();
