/** Errors to plant in how a step is cut into stages: `planted_errors.ts` sees that a test notices each.
 * @module */

/** What is wrong; in which file; what stands there once and only once; what is put in its place. */
export const stageErrors: readonly (readonly [what: string, file: string, before: string, after: string])[] = [
  [
    "what is behind all blocks is on the first stage that it can be on",
    "assign_stages",
    "Math.max(from ?? 0, asked ?? otherwise)",
    "from ?? 0",
  ],
  ["tokens that are read are anywhere", "assign_stages", "{ data: true, ", "{ data: false, "],
  [
    "what a stage before the last one gives the host stays there",
    "cut_stages",
    "use(value, count - 1);",
    "{}",
  ],
  [
    "the rank of the last stage is taken for its place",
    "transfer_graphs",
    "sender = ranks.indexOf(from);",
    "sender = from;",
  ],
  ["a sum is begun twice", "cut_stages", "begin = !begun.has(name);", "begin = true;"],
  [
    "two stages of a rank begin one sum",
    "cut_stages",
    "sums.filter((s) => taken.has(s.name))",
    "sums.filter(() => false)",
  ],
  [
    "the gradient of the input waits for those of weights",
    "cut_turn",
    'const gives = stateUse(node) === "replaces" && isActivation(node, kinds);',
    "const gives = true;",
  ],
  [
    "what needs no gradient from behind waits for backward",
    "cut_turn",
    'node.phase === "backward" && node.block === undefined && before',
    "false && before",
  ],
  [
    "the norm counts a table that two stages share twice",
    "hold_states",
    "current(v) && counted.get(v) !== false",
    "current(v)",
  ],
  [
    "the gradients of a table that two stages share are not added",
    "hold_states",
    'state.kind === "gradient" && own.length > 1 ? sum(value, own) : value',
    "value",
  ],
  [
    "the update sees the sum of one stage of the rank",
    "hold_states",
    "parts.filter((part) => part.kind === state.kind && part.of === state.of)",
    "parts.filter(() => false)",
  ],
  ["a slot is given away while it is in use", "rank_actions", "until[number] = end", "until[number] = begin"],
  ["a copy goes into the slot that it comes from", "transfer_graphs", "slot = received[0].of!", "slot = sent[0].of!"],
  [
    "who receives takes the place of who sends",
    "transfer_graphs",
    'member: way === "send" ? from : to',
    "member: from",
  ],
];
