#!/usr/bin/env bash
# Four hosts, which are network namespaces of this machine with links of 1 Gbit/s and 1 ms, train together without MPI, and with the same
# losses by mpirun and by srun, where they are there. Then the ranks of one are killed, its link is cut, it is halted: each time the others
# must end within ten seconds and name it, and none of their processes may be left; with --restarts the run then ends with the losses of one
# that lost nothing. As root, with iproute2, c++ and libtitan's module for Gloo: tests/launch/four_hosts.sh
set -u
cd "$(dirname "$0")/../.." || exit
work=$(mktemp -d)
deno=$PWD/node_modules/.bin/deno
export TITAN_TOKEN=four-hosts NO_COLOR=1
failed=0
clean() {
  [[ -v relay ]] && kill "$relay"
  for n in 1 2 3 4; do
    ip netns pids "titan$n" 2>/dev/null | xargs -r kill -KILL 2>/dev/null
    ip netns del "titan$n" 2>/dev/null
    ip link del "titan-h$n" 2>/dev/null
  done
  rm -rf "$work"
}
trap clean EXIT
c++ -std=c++20 -O2 tests/launch/slow_links.cpp -o "$work/slow_links" || exit
for n in 1 2 3 4; do
  ip netns add "titan$n" && ip link add "titan-h$n" type veth peer name eth0 netns "titan$n" && ip link set "titan-h$n" up || exit
  ip -n "titan$n" addr add "10.79.0.$n/24" dev eth0 && ip -n "titan$n" link set eth0 up && ip -n "titan$n" link set lo up || exit
  tc -n "titan$n" qdisc add dev eth0 root tbf rate 1gbit burst 128kb latency 50ms || exit
done
"$work/slow_links" 1000 titan-h1 titan-h2 titan-h3 titan-h4 >"$work/links" &
relay=$!
disown # it goes on while others are waited for
until grep -q ready "$work/links"; do kill -0 $relay || exit; done

# training NAME STEPS: the command that all ranks run.
training() {
  command=("$deno" task --quiet train --mesh dp_shard=2,tp=2 --model.dim 32 --model.n_layers 2 --model.n_heads 2 --model.ffn_hidden_dim 32
    --training.local_batch_size 2 --training.seq_len 32 --device.threads 1 --validation.no_enable --metrics.log_freq 1
    --training.steps "$2" --job.dump_folder "$work/$1")
}
# start NAME STEPS OPTION...: gives every host the same command.
start() {
  local name=$1 n
  training "$1" "$2"
  shift 2
  launchers=()
  for n in 1 2 3 4; do
    ip netns exec "titan$n" "${command[@]}" --hosts 10.79.0.1,10.79.0.2,10.79.0.3,10.79.0.4 --host "10.79.0.$n" "$@" \
      >"$work/$name.$n.out" 2>"$work/$name.$n.err" &
    launchers+=($!)
  done
}
# step NAME N: waits for a step.
step() {
  for _ in {1..600}; do
    grep -q "step: *$2 " "$work/$1.1.out" && return
    sleep 0.1
  done
  printf 'FAILED: %s never came to step %s\n' "$1" "$2"
  tail -n 3 "$work/$1".*.err
  exit 1
}
losses() { grep -oE 'step: +[0-9]+ +loss: +[0-9.]+' "$work/$1.1.out" | sort -u -k2n; }
expect() {
  local what=$1
  shift
  if "$@"; then printf 'ok: %s\n' "$what"; else printf 'FAILED: %s\n' "$what" && failed=1; fi
}

# The least that it takes to be refused at a port.
round_trip=$(ip netns exec titan1 bash -c '
  for _ in {1..20}; do
    begun=${EPOCHREALTIME/[.,]/}
    { : >/dev/tcp/10.79.0.2/9; } 2>/dev/null
    echo $((${EPOCHREALTIME/[.,]/} - begun))
  done' | sort -n | head -n 1)
expect "a round trip takes two milliseconds ($round_trip us)" [ "$round_trip" -ge 2000 ]

start whole 30 --checkpoint.enable --checkpoint.interval 5
wait "${launchers[@]}"
expect "four hosts train together: $(losses whole | tail -n 1)" [ "$(losses whole | wc -l)" = 30 ]

# The agent stands for ssh: it runs a command on one of the hosts, which has a name of its own there.
printf '127.0.0.1 localhost\n10.79.0.1 titan1\n10.79.0.2 titan2\n10.79.0.3 titan3\n10.79.0.4 titan4\n' >"$work/hosts"
cat >"$work/agent" <<END
#!/bin/sh
host=\$1 && shift
exec ip netns exec "\$host" unshare --mount --uts sh -c 'mount --bind "$work/hosts" /etc/hosts && hostname "\$0" && eval "\$@"' "\$host" "\$*"
END
chmod +x "$work/agent"
# same NAME BY: whether a run has ended with the losses of that without MPI.
same() {
  expect "four hosts train by $2 with the same losses: $(losses "$1" | tail -n 1)" [ "$(losses "$1")" = "$(losses whole)" ]
  [[ $(losses "$1") == "$(losses whole)" ]] || tail -n 5 "$work/$1.1.err"
}
if command -v mpirun >/dev/null; then
  training mpirun 30
  variables=(OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_MCA_plm_ssh_agent="$work/agent" PRTE_MCA_prte_if_include=eth0
    OMPI_MCA_btl_tcp_if_include=eth0 PRTE_MCA_hwloc_default_binding_policy=none OMP_WAIT_POLICY=passive)
  "$work/agent" titan1 env "${variables[@]}" timeout 120 mpirun -n 4 --host titan1,titan2,titan3,titan4 "${command[@]}" >"$work/mpirun.1.out" 2>"$work/mpirun.1.err"
  same mpirun mpirun
else
  printf 'skipped: mpirun, which this machine has not\n'
fi
if command -v slurmctld >/dev/null; then
  training srun 30
  # As in configs/slurm/pmix.sbatch.
  SLURM_PMIX_FENCE=ring HOSTS=4 LINKS="$work/slow_links 1000" tests/launch/slurm.sh timeout 120 srun --mpi=pmix --nodes 4 --ntasks-per-node 1 "${command[@]}" >"$work/srun.1.out" 2>"$work/srun.1.err"
  same srun srun
else
  printf 'skipped: srun, as there is no Slurm (Debian: slurm-wlm)\n'
fi

# harm NAME HOW COMMAND...: does something to host 3 behind step 5, and looks at how the other hosts end.
harm() {
  local name=$1 how=$2 begun n left
  shift 2
  start "$name" 100000
  step "$name" 5
  begun=$(date +%s%N)
  "$@"
  for n in 0 1 3; do wait "${launchers[$n]}"; done
  local ms=$((($(date +%s%N) - begun) / 1000000))
  expect "$name: the other hosts end within ten seconds ($ms ms)" [ $ms -lt 10000 ]
  expect "$name: the error names the host: $(head -n 1 "$work/$name.1.err" | cut -c 1-160)..." grep -q "^\[rank0\] error: .* rank 2 on 10.79.0.3 $how" "$work/$name.1.err"
  left=$(for n in 1 2 4; do ip netns pids "titan$n"; done | wc -l)
  expect "$name: no process of theirs is left" [ "$left" = 0 ]
  ip link set titan-h3 up
  ip netns pids titan3 | xargs -r kill -KILL
  wait
}
ranks_of_3() { pgrep -f -- '--host 10.79.0.3' | grep -Fx -f <(ip netns pids titan3) | while read -r pid; do [[ -e /proc/$pid ]] && grep -qz '^TITAN_ADDRESS=10.79.0.3' "/proc/$pid/environ" && echo "$pid"; done; }
killed() { ranks_of_3 | xargs kill -KILL; }
cut_off() { ip link set titan-h3 down; }
# Again and again, as somebody else may have it go on.
halted() { (for _ in {1..300}; do ip netns pids titan3 | xargs -r kill -STOP; sleep 0.02; done) & }
harm killed "has ended without a word" killed
harm cut "has not been heard of for" cut_off
harm halted "has not been heard of for" halted

start again 30 --checkpoint.enable --checkpoint.interval 5 --restarts 3
step again 12
killed
wait "${launchers[@]}"
expect "a run that loses a rank ends with the losses of one that does not" [ "$(losses again | tail -n 18)" = "$(losses whole | tail -n 18)" ]
expect "it was started anew once" grep -q "^restart 1 of 3: 4 ranks go on" "$work/again.1.err"
exit $failed
