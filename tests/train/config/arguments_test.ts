import { assertEquals, assertMatch } from "@std/assert";
import { readArguments } from "../../../train/config/arguments.ts";
import { vocabulary } from "../../../train/config/vocabulary.ts";

/** What the arguments set; they must be free of problems. */
function values(...args: string[]): Record<string, unknown> {
  const { entries, problems } = readArguments(args);
  assertEquals(problems, []);
  return Object.fromEntries(entries.map(({ name, value }) => [name, value]));
}

/** The first problem of the arguments, in one line. */
function problem(...args: string[]): string {
  const [{ code, what, expected, fix }] = readArguments(args).problems;
  return `${code}: ${what}; expected ${expected}; ${fix}`;
}

Deno.test("a value follows its key or an equals sign, and dashes in a key are underscores", () => {
  for (const args of [["--training.seq_len", "64"], ["--training.seq-len=64"], ["--training.seq_len=64"]]) {
    assertEquals(values(...args), { "training.seq_len": 64 });
  }
});

Deno.test("the config file has a short flag and a long one", () => {
  for (const flag of ["--config", "--job.config_file", "--job.config-file"]) {
    assertEquals(readArguments([flag, "a-b.toml"]).configFile, "a-b.toml");
    assertEquals(readArguments([`${flag}=a-b.toml`]).configFile, "a-b.toml");
  }
});

Deno.test("of a key or file that is given twice, the later counts", () => {
  assertEquals(values("--training.steps=1", "--training.steps=2"), { "training.steps": 2 });
  assertEquals(readArguments(["--config=a.toml", "--config=b.toml"]).configFile, "b.toml");
});

Deno.test("a switch is on alone, off with no_, and as true or false behind it say, also of keys that are missing", () => {
  assertEquals(values("--validation.enable", "--metrics.no-disable-color-printing"), {
    "validation.enable": true,
    "metrics.disable_color_printing": false,
  });
  for (const isOn of [true, false]) {
    const expected = { "validation.enable": isOn, "checkpoint.enable": isOn, "job.print_config": isOn };
    const [small, large] = isOn ? ["true", "True"] : ["false", "False"];
    assertEquals(
      values("--validation.enable", small, `--checkpoint.enable=${large}`, `--job.print_config=${small}`),
      expected,
    );
  }
});

Deno.test("a switch that is not set by default is one, too", () => {
  const name = "model.enable_weight_tying";
  assertEquals(values(`--${name}`), { [name]: true });
  assertEquals(values("--model.no_enable_weight_tying"), { [name]: false });
  assertEquals(values(`--${name}`, "false", "--training.steps=1"), { [name]: false, "training.steps": 1 });
  assertEquals(values(`--${name}`, "None"), { [name]: null });
  const { isNullable, expected } = vocabulary().keys.get(name)!;
  assertEquals([isNullable, expected], [true, "true or false or None"]);
});

Deno.test("what is neither true nor false does not go with a switch, and nothing with no_", () => {
  const how = "write --validation.enable for true, --validation.no_enable for false";
  assertEquals(
    problem("--validation.enable=0"),
    `bad_argument: command line: --validation.enable "0"; expected true or false; ${how}`,
  );
  assertEquals(
    problem("--validation.no_enable", "true"),
    `bad_argument: command line: --validation.no_enable takes no value, got "true"; expected the switch alone; ${how}`,
  );
  assertEquals(
    problem("--validation.enable", "yes"),
    `bad_argument: command line: --validation.enable "yes"; expected true or false; ${how}`,
  );
});

Deno.test("numbers, also negative and in scientific notation, strings, None and lists are read by the key's type", () => {
  assertEquals(values("--validation.steps", "-1", "--optimizer.lr=1e-3"), {
    "validation.steps": -1,
    "optimizer.lr": 0.001,
  });
  assertEquals(values("--job.description", "007", "--training.dataset_path", "a=b,c"), {
    "job.description": "007",
    "training.dataset_path": "a=b,c",
  });
  assertEquals(values("--lr_scheduler.total_steps", "None"), { "lr_scheduler.total_steps": null });
  assertEquals(values("--model.converters", "a,b"), { "model.converters": ["a", "b"] });
  for (const none of ["", "[]"]) assertEquals(values("--model.converters", none), { "model.converters": [] });
  assertEquals(values("--training.steps", "many"), { "training.steps": "many" });
});

Deno.test("keys of features that are missing are read like others", () => {
  assertEquals(values("--checkpoint.enable", "--parallelism.tensor_parallel_degree", "2"), {
    "checkpoint.enable": true,
    "parallelism.tensor_parallel_degree": 2,
  });
});

Deno.test("a key without its value is an error, not the next flag", () => {
  assertEquals(
    problem("--training.steps", "--validation.enable"),
    "bad_argument: command line: --training.steps lacks its value; expected a value after it; " +
      "write --training.steps VALUE",
  );
  for (const args of [["--config"], ["--config="], ["--config", "--help"]]) {
    const how = "bad_argument: command line: --config lacks its value; expected a value after it; write --config FILE";
    assertEquals(problem(...args), how);
  }
});

Deno.test("--help, --print-config and --dry-run are flags of their own", () => {
  const { help, dryRun, printConfig, entries } = readArguments(["--dry-run", "-h", "--print-config"]);
  assertEquals([help, dryRun, printConfig, entries], [true, true, true, []]);
  assertEquals([readArguments(["--print_config"]).printConfig, readArguments(["--dry-run"]).printConfig], [
    true,
    false,
  ]);
  assertEquals([readArguments(["--help"]).help, readArguments([]).help, readArguments([]).dryRun], [
    true,
    false,
    false,
  ]);
});

Deno.test("a mesh is the keys of its axes; ranks, and what is planned on them, have flags of their own", () => {
  const { entries, nproc, logRanks, plan, problems } = readArguments([
    ...["--dry-run", "--mesh", "dp_shard=-1,tp=8", "--nproc=64", "--plan-json", "a.json", "--plan_page", "a.html"],
    ...["--log-rank", "0,12"],
  ]);
  assertEquals(entries.map(({ name, value }) => [name, value]), [
    ["parallelism.data_parallel_shard_degree", -1],
    ["parallelism.tensor_parallel_degree", 8],
  ]);
  assertEquals([nproc, logRanks, plan, problems], [64, [0, 12], { json: "a.json", page: "a.html" }, []]);
  assertEquals(readArguments(["--nproc", "2", "--log_rank=all"]).logRanks, "all");
  const { hosts, host } = readArguments(["--hosts", "a:2,b", "--host=b"]);
  assertEquals([hosts, host], [[{ name: "a", ranks: 2 }, { name: "b", ranks: 1 }], "b"]);
});

Deno.test("an axis that there is not, a degree that is no number and a flag without its value are told how to be said", () => {
  const what = (...args: string[]) => readArguments(["--dry-run", ...args]).problems.map((p) => p.what);
  assertEquals(what("--mesh", "dp=2,tp=x,cp"), ["dp=2", "tp=x", "cp"].map((s) => `command line: --mesh has "${s}"`));
  assertEquals(what("--nproc", "0"), ['command line: --nproc "0"']);
  assertEquals(what("--hosts", "a:0"), ['command line: --hosts "a:0"']);
  assertEquals(what("--hosts", "a:2,b", "--nproc", "3"), ["command line: --hosts and --nproc"]);
  assertEquals(what("--host", "a"), ["command line: --host without --hosts"]);
  assertEquals(what("--log-rank", "0,first"), ['command line: --log-rank "0,first"']);
  assertEquals(what("--plan-json", "--help"), ["command line: --plan-json lacks its value"]);
});

Deno.test("a device's memory is bytes with their unit, and for a dry run alone", () => {
  for (const [text, bytes] of [["80GB", 8e10], ["1.5 GiB", 1.5 * 2 ** 30], ["512MiB", 2 ** 29], ["77B", 77]] as const) {
    const { plan, problems } = readArguments(["--dry-run", "--device-memory", text]);
    assertEquals([plan.deviceMemory, problems], [bytes, []]);
  }
  for (const text of ["80", "much", "-1GB", "80 G", "0GB"]) {
    const [{ what, expected }] = readArguments(["--dry-run", "--device-memory", text]).problems;
    assertEquals([what, expected], [
      `command line: --device-memory ${JSON.stringify(text)}`,
      "bytes such as 80GB or 512MiB",
    ]);
  }
  const [problem] = readArguments(["--device-memory=80GB"]).problems;
  assertEquals(problem.what, "command line: --device-memory without --dry-run");
});

Deno.test("a device is a kind, or a GPU that a dry run plans for, with its memory and bandwidth unless others are given", () => {
  const kindOf = (text: string) => readArguments(["--device", text]).entries.map(({ name, value }) => [name, value]);
  for (const kind of ["auto", "cpu", "cuda"]) assertEquals(kindOf(kind), [["device.kind", kind]]);
  const { entries, plan, problems } = readArguments(["--dry-run", "--device=H100", "--tokens", "1T"]);
  assertEquals([entries.map(({ value }) => value), problems], [["cuda"], []]);
  assertEquals([plan.gpu, plan.deviceMemory, plan.deviceBandwidth], ["h100", 80e9, 3.35e12]);
  const own = readArguments(["--dry-run", "--device=a100", "--device-memory=1GB", "--device-bandwidth=1TB/s"]).plan;
  assertEquals([own.deviceMemory, own.deviceBandwidth], [1e9, 1e12]);
  const whatOf = (...args: string[]) => readArguments(args).problems.map(({ what }) => what);
  assertEquals(whatOf("--device", "h100"), ["command line: --device without --dry-run"]);
  const [unknown] = readArguments(["--dry-run", "--device", "h1000"]).problems;
  assertEquals(unknown.what, 'command line: --device "h1000"');
  assertMatch(unknown.expected, /^auto, cpu, cuda, or with --dry-run one of .*\ba100, .*\bh100, /);
});

Deno.test("a disk's speed is bytes a second with their unit, and for a dry run alone", () => {
  for (const [text, speed] of [["2GB/s", 2e9], ["1.5 GiB/s", 1.5 * 2 ** 30]] as const) {
    const { plan, problems } = readArguments(["--dry-run", "--disk-speed", text]);
    assertEquals([plan.diskSpeed, problems], [speed, []]);
  }
  for (const text of ["2GB", "fast", "2/s", "0GB/s"]) {
    const [{ what, expected }] = readArguments(["--dry-run", "--disk-speed", text]).problems;
    assertEquals([what, expected], [
      `command line: --disk-speed ${JSON.stringify(text)}`,
      "bytes a second such as 2GB/s",
    ]);
  }
  const [problem] = readArguments(["--disk-speed=2GB/s"]).problems;
  assertEquals(problem.what, "command line: --disk-speed without --dry-run");
});

Deno.test("speeds of a device are numbers with their unit, bits a second where the b is small, and for a dry run alone", () => {
  const planOf = (...flags: string[]) => {
    const { plan, problems } = readArguments(["--dry-run", "--device-tflops=400", ...flags]);
    assertEquals(problems, []);
    return plan;
  };
  assertEquals(planOf("--device-bandwidth", "3TB/s", "--tokens", "1T"), {
    deviceFlops: 4e14,
    deviceBandwidth: 3e12,
    tokens: 1e12,
  });
  assertEquals([planOf("--tokens=300B").tokens, planOf("--tokens=5000").tokens], [3e11, 5000]);
  assertEquals(planOf("--link", "400Gb/s").links, { other: 5e10 });
  assertEquals(planOf("--link", "tp=450GB/s,400Gb/s").links, { tp: 4.5e11, other: 5e10 });
  const refused = [
    ["--link", "400"],
    ["--link", "tensor=1GB/s"],
    ["--link", "1GB/s,2GB/s"],
    ["--link", "tp=1GB/s,"],
    ["--device-bandwidth", "3TB"],
    ["--device-tflops", "fast"],
    ["--device-tflops", "0"],
    ["--tokens", "1 million"],
  ];
  for (const [flag, value] of refused) {
    const [{ what }] = readArguments(["--dry-run", flag, value]).problems;
    assertEquals(what, `command line: ${flag} ${JSON.stringify(value)}`);
  }
  const [alone] = readArguments(["--dry-run", "--link=1GB/s", "--tokens=1T"]).problems;
  assertEquals(alone.what, "command line: --link and --tokens without --device-tflops");
  const [run] = readArguments(["--device-tflops=400"]).problems;
  assertEquals(run.what, "command line: --device-tflops without --dry-run");
});

Deno.test("plans are written only by a dry run", () => {
  const [problem] = readArguments(["--nproc", "8", "--plan-page", "a.html"]).problems;
  assertEquals(problem.what, "command line: --plan-page without --dry-run");
});
