"""Makes tests/goldens/parallel/schedules.json: the order of actions of each pipeline schedule in PyTorch.

For every number of ranks, stages per rank and microbatches it holds, for each rank, the first 8 digits of the
SHA-256 of the rank's row (cells as PyTorch writes them, blanks left out, joined by blanks) and the units that the
rank is idle when F, I and W take one unit, B takes two, and messages take no time. `full` has some schedules in
full, `comms` some as PyTorch's runtime lowers them: with sends and receives, and with the gathers of FSDP.

How to run (made with PyTorch 2.13; the generators are private, so another version may need other names):

    python3 -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch numpy
    /tmp/goldens/bin/python tools/make_schedule_goldens.py
"""

import hashlib
import json
from pathlib import Path

from torch.distributed.pipelining import schedules as torch_schedules
from torch.distributed.pipelining._utils import generate_stage_to_rank_mapping

FILE = Path(__file__).parent.parent / "tests" / "goldens" / "parallel" / "schedules.json"

RANKS, MICROBATCHES = (2, 4, 8), range(1, 33)
SINGLE = ("GPipe", "1F1B")
LOOP = ("LoopedBFS", "Interleaved1F1B", "InterleavedZeroBubble")
V = ("ZBVZeroBubble", "DualPipeV")
FULL = [
    "GPipe 4 1 8",
    "1F1B 4 1 8",
    "LoopedBFS 2 2 4",
    "Interleaved1F1B 2 2 4",
    "InterleavedZeroBubble 2 2 4",
    "ZBVZeroBubble 2 2 4",
    "DualPipeV 2 2 6",
]
COMMS = [
    "1F1B 4 1 8",
    "Interleaved1F1B 2 2 4",
    "InterleavedZeroBubble 4 2 8",
    "ZBVZeroBubble 2 2 4",
    "DualPipeV 4 2 10",
]


class Recorder:
    """A stage that computes nothing, sends nothing, and remembers what it was told to do."""

    def __init__(self, rank):
        self.stage_index, self.row = rank, []

    def forward_one_chunk(self, microbatch, *_, **__):
        self.row.append(torch_schedules._Action(self.stage_index, torch_schedules.F, microbatch))

    def backward_one_chunk(self, microbatch, *_, **__):
        self.row.append(torch_schedules._Action(self.stage_index, torch_schedules.B, microbatch))

    def __getattr__(self, name):
        return lambda *_, **__: []


def recorded(schedule, rank, microbatches):
    """What a schedule of one stage per rank does when it runs. Its `_get_pipeline_order`, for pictures, is another
    order: for 1F1B the last rank begins with microbatch 1."""
    schedule._stage, schedule.scale_grads, schedule._has_backward = Recorder(rank), False, True
    schedule._check_inputs = lambda *_: ([()] * microbatches, [{}] * microbatches)
    schedule._initialize_stage = schedule._maybe_compute_loss = schedule._maybe_get_loss = lambda *_, **__: None
    schedule._update_losses = lambda *_: None
    schedule._step_microbatches()
    return schedule._stage.row


def rows_of(name, ranks, per_rank, microbatches):
    """The schedule's rows by its own code, without the processes that its constructor asks for; None if it refuses."""
    kind = torch_schedules.get_schedule_class(name)
    made = kind.__new__(kind)
    made.pp_group_size, made.n_local_stages, made._n_microbatches = ranks, per_rank, microbatches
    made._stages, made.num_stages, made._num_stages = range(per_rank), ranks * per_rank, ranks * per_rank
    made.number_of_rounds = max(1, microbatches // ranks)
    made.microbatches_per_round = microbatches // made.number_of_rounds
    refused = {
        "1F1B": microbatches < ranks,
        "DualPipeV": microbatches < ranks * per_rank,
        "Interleaved1F1B": microbatches % made.number_of_rounds != 0,
        "InterleavedZeroBubble": microbatches % made.number_of_rounds != 0,
    }
    if refused.get(name, False):
        return None
    if name in SINGLE:
        return [recorded(made, rank, microbatches) for rank in range(ranks)]
    return [[a for a in made._calculate_single_rank_operations(r) if a is not None] for r in range(ranks)]


def idle_units(rows, stages):
    """Units that each rank is idle. A pair is one action after the other, each as soon as what it reads is there."""
    flat = [[leaf for a in row for leaf in (a.sub_actions or (a,))] for row in rows]
    cost = {"F": 1, "I": 1, "W": 1, "B": 2}
    ends, at, free = {}, [0] * len(rows), [0] * len(rows)
    moved = True
    while moved:
        moved = False
        for rank, row in enumerate(flat):
            while at[rank] < len(row):
                stage, kind, microbatch = row[at[rank]][:3]
                if kind == "F":
                    needed = [("F", stage - 1)] if stage > 0 else []
                elif kind == "W":
                    needed = []
                else:
                    needed = [("G", stage + 1)] if stage < stages - 1 else []
                if any((what, s, microbatch) not in ends for what, s in needed):
                    break
                start = max([free[rank]] + [ends[what, s, microbatch] for what, s in needed])
                free[rank] = start + cost[kind.value]
                if kind != "W":
                    ends["F" if kind == "F" else "G", stage, microbatch] = free[rank]
                at[rank] += 1
                moved = True
    assert all(at[rank] == len(row) for rank, row in enumerate(flat)), "the schedule is stuck"
    return [max(free) - sum(cost[a.computation_type.value] for a in row) for row in flat]


def with_comms(rows, microbatches, stage_to_rank, stages):
    """The rows as PyTorch's runtime lowers them."""
    lowered = {
        r: torch_schedules._add_reduce_grad(torch_schedules._add_unshard_reshard(list(row)), microbatches)
        for r, row in enumerate(rows)
    }
    lowered = torch_schedules._add_send_recv(lowered, stage_to_rank=lambda s: stage_to_rank[s], num_stages=stages)
    return [" ".join(str(a) for a in lowered[r]) for r in range(len(rows))]


def main():
    cases, full, comms = {}, {}, {}
    for name in SINGLE + LOOP + V:
        for ranks in RANKS:
            for per_rank in (1,) if name in SINGLE else (2,) if name in V else (2, 3):
                stages = ranks * per_rank
                stage_to_rank = generate_stage_to_rank_mapping(ranks, stages, "v" if name in V else "loop")
                for microbatches in MICROBATCHES:
                    rows = rows_of(name, ranks, per_rank, microbatches)
                    if rows is None:
                        continue
                    texts = [" ".join(str(a) for a in row) for row in rows]
                    key = f"{name} {ranks} {per_rank} {microbatches}"
                    hashes = " ".join(hashlib.sha256(text.encode()).hexdigest()[:8] for text in texts)
                    idle = idle_units(rows, stages)
                    cases[key] = [hashes, " ".join(map(str, idle))]
                    if key in FULL:
                        full[key] = texts
                    if key in COMMS:
                        comms[key] = with_comms(rows, microbatches, stage_to_rank, stages)
    lines = [f"{json.dumps(key)}: {json.dumps(case)}" for key, case in cases.items()]
    body = ",\n".join(lines)
    texts = [f'"{name}": {json.dumps(rows, indent=1)}' for name, rows in (("full", full), ("comms", comms))]
    parts = [f'"cases": {{\n{body}\n}}', *texts]
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    print(f"{len(cases)} schedules, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
