/** Completion of command lines by the shell: `deno run -A mod.ts completion bash|zsh|fish` prints what the shell is to read. Keys and
 * their values come from the schema.
 * @module */
import { SWITCHES, VALUED_FLAGS } from "../train/config/arguments.ts";
import { vocabulary } from "../train/config/vocabulary.ts";
import { tellUsage } from "./tool.ts";

/** Shells that it is there for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** A flag of `train`. */
interface Flag {
  readonly name: string;
  readonly description: string;
  /** Words that may follow it, where these are few. */
  readonly values: readonly string[];
  /** Does something follow it? */
  readonly isValued: boolean;
}

/** All flags of `train`, in the order of its help. */
export function trainFlags(): Flag[] {
  const keys = [...vocabulary().keys.values()].flatMap(({ name, kind, expected, description }): Flag[] => {
    if (kind !== "boolean") {
      const values = [...expected.matchAll(/"([\w.]+)"/g)].map(([, word]) => word);
      return [{ name, description, values, isValued: true }];
    }
    const off = name.replace(/\.([^.]+)$/, ".no_$1");
    return [name, off].map((name) => ({ name, description, values: [], isValued: false }));
  });
  const own = (names: readonly string[], isValued: boolean) =>
    names.map((name) => ({ name: name.replaceAll("_", "-"), description: "", values: [], isValued }));
  return [...own(SWITCHES, false), ...own(["config", ...VALUED_FLAGS], true), ...keys];
}

/** Commands whose flags are those of `train`. */
const OF_TRAIN = ["train", "plan"];

/** What bash reads, and zsh by its emulation: after a key its values, else flags, or commands where there is none yet. What is neither is
 * left to the shell, which names files. */
function bash(commands: readonly string[]): string {
  const flags = trainFlags(), some = flags.filter(({ values }) => values.length > 0);
  const cases = some.map(({ name, values }) => `      --${name}) words="${values.join(" ")}" ;;`);
  const valued = flags.filter(({ isValued, values }) => isValued && values.length === 0).map(({ name }) => `--${name}`);
  return `# libtitan's commands and keys, for bash and zsh. Made by: deno run -A mod.ts completion
_titan() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} command= words= i
  case \${COMP_WORDS[0]##*/} in
    run_train.sh) command=train ;;
    titan) ((COMP_CWORD > 1)) && command=\${COMP_WORDS[1]} ;;
    *) # npx -y deno task NAME, deno task NAME, or npx titan NAME
      for ((i = 1; i < COMP_CWORD; i++)); do
        [[ \${COMP_WORDS[i]} == task || \${COMP_WORDS[i]} == titan ]] || continue
        ((i < COMP_CWORD - 1)) && command=\${COMP_WORDS[i+1]}
        break
      done
      ((i == COMP_CWORD)) && return ;;
  esac
  COMPREPLY=()
  if [[ -z $command ]]; then
    words="${commands.join(" ")}"
  elif [[ $command == ${OF_TRAIN.join(" || $command == ")} ]]; then
    case $before in
${cases.join("\n")}
      ${valued.join("|")}) return ;;
      *) [[ $current == -* ]] && words="${flags.map(({ name }) => `--${name}`).join(" ")}" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _titan titan run_train.sh ./run_train.sh
_titan_known() {
  if [[ -n $ZSH_VERSION ]]; then [[ -n \${_comps[$1]} ]]; else complete -p "$1" >/dev/null 2>&1; fi
}
for program in deno npx; do
  _titan_known "$program" || complete -o default -F _titan "$program"
done
unset program
unset -f _titan_known
`;
}

function fish(commands: readonly string[]): string {
  const quoted = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const none = `not __fish_seen_subcommand_from ${commands.join(" ")}`;
  const lines = trainFlags().map(({ name, description, values, isValued }) => {
    const what = description === "" ? "" : ` -d ${quoted(description)}`;
    const after = values.length > 0 ? ` -xa ${quoted(values.join(" "))}` : isValued ? " -r" : "";
    return `complete -c titan -n '__fish_seen_subcommand_from ${OF_TRAIN.join(" ")}' -l ${name}${what}${after}`;
  });
  return `# libtitan's commands and keys, for fish. Made by: deno run -A mod.ts completion fish
complete -c titan -f -n ${quoted(none)} -a ${quoted(commands.join(" "))}
${lines.join("\n")}
for program in deno npx
  complete -c $program -n '__fish_seen_subcommand_from task titan' \\
    -a "(complete -C (string replace -r '^.*?\\b(task|titan)\\b' titan -- (commandline -cp)))"
end
`;
}

const USAGE = `Usage: deno run -A mod.ts completion ${SHELLS.join("|")}

Prints what a shell reads to complete commands, keys and their values. It completes ./run_train.sh, what follows the word task or titan of
deno and npx, and titan where that is a program or an alias.

  bash    source <(npx -y deno run -A mod.ts completion bash)
  zsh     autoload -U bashcompinit && bashcompinit && source <(npx -y deno run -A mod.ts completion zsh)
  fish    npx -y deno run -A mod.ts completion fish | source`;

/** Prints a completion; returns the exit code. @param commands of the command line. */
export function completion([shell, ...rest]: readonly string[], commands: readonly string[]): number {
  if (shell === "--help" || shell === undefined) {
    return tellUsage(USAGE, shell === undefined ? [] : [shell], console.log);
  }
  if (rest.length > 0 || !(SHELLS as readonly string[]).includes(shell)) {
    console.error(
      `error: There is no completion for ${[shell, ...rest].join(" ")}\n  expected: ${
        SHELLS.join(", ")
      }\n  fix: name one of them`,
    );
    return 1;
  }
  console.log((shell === "fish" ? fish : bash)(commands).trimEnd());
  return 0;
}
