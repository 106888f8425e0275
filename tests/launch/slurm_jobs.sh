#!/usr/bin/env bash
# Runs the files of configs/slurm on the Slurm of slurm.sh: each kind to its end, one that is cancelled, which has to save, and one whose time
# ends, which has to go back to the queue and end with the losses of one that had time enough.
#   tests/launch/slurm.sh tests/launch/slurm_jobs.sh gloo pmix
set -u
(($# > 0)) || { printf 'usage: tests/launch/slurm.sh %s KIND..., each of gloo, pmix, pmi2\n' "$0" >&2 && exit 2; }
cd "$(dirname "$0")/../.." || exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
expect() {
  local what=$1
  shift
  if "$@"; then printf 'ok: %s\n' "$what"; else printf 'FAILED: %s\n' "$what" && failed=1; fi
}
# submit KIND NAME STEPS OPTION...: a job on two hosts with two ranks each; prints its number.
submit() {
  local kind=$1 name=$2 steps=$3
  shift 3
  sbatch --parsable --nodes 2 --ntasks-per-node 2 --output "$work/$name.log" "$@" "configs/slurm/$kind.sbatch" \
    --model.dim 16 --model.n_layers 1 --model.n_heads 2 --model.ffn_hidden_dim 16 --training.local_batch_size 2 --training.seq_len 16 \
    --device.threads 1 --validation.no_enable --metrics.log_freq 1 --job.dump_folder "$work/$name" --training.steps "$steps"
}
field() { scontrol show job "$1" | grep -oE "$2=[^ ]*" | head -n 1 | cut -d= -f2; }
# until SECONDS COMMAND...: waits until it succeeds.
until_true() {
  local tries=$(($1 * 5))
  shift
  for ((; tries > 0; tries--)); do "$@" && return; sleep 0.2; done
  return 1
}
is_over() { [[ $(field "$1" JobState) =~ ^(COMPLETED|FAILED|CANCELLED|TIMEOUT)$ ]]; }
losses() { grep -ohE 'step: +[0-9]+ +loss: +[0-9.]+' "$work/$1.log" | sort -u -k2n; }
came_to() { grep -q "step: *$2 " "$work/$1.log" 2>/dev/null; }
restarted() { [[ $(field "$1" Restarts) != 0 ]]; }

for kind in "$@"; do
  job=$(submit "$kind" "$kind" 60)
  until_true 60 is_over "$job"
  expect "$kind runs to the end: $(losses "$kind" | tail -n 1)" [ "$(field "$job" JobState) $(losses "$kind" | wc -l)" = "COMPLETED 60" ]
  [[ $kind == "$1" ]] || expect "$kind has the losses of $1" [ "$(losses "$kind")" = "$(losses "$1")" ]
done

job=$(submit "$1" cancelled 100000)
until_true 60 came_to cancelled 5
scancel --signal=TERM "$job"
until_true 30 is_over "$job"
expect "a job that is cancelled saves, and does not come back" grep -q "saved in .*: the same command goes on from there" "$work/cancelled.log"
expect "it has been started once" [ "$(field "$job" Restarts)" = 0 ]

job=$(submit "$1" requeued 60 --time 4) # which is soon, to the script, from the beginning
until_true 60 came_to requeued 10
scancel --signal=TERM "$job" # as Slurm does when the time is about to end
until_true 60 restarted "$job"
expect "a job whose time ends goes back to the queue" restarted "$job"
# It would wait for two minutes; an order that comes while its processes are still ending has no effect, and is given again.
goes_on_at_once() { scontrol update "jobid=$job" starttime=now timelimit=30 2>/dev/null; is_over "$job"; }
until_true 120 goes_on_at_once
expect "it goes on, and has the losses of one that had time enough: $(grep -o 'stopped by .*' "$work/requeued.log")" [ "$(losses requeued)" = "$(losses "$1")" ]
((failed == 0)) || tail -n 5 "$work"/*.log
exit $failed
