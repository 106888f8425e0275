#!/usr/bin/env bash
# Runs a command on a Slurm of its own: slurmctld and two hosts (or as many as HOSTS says), n1 and n2, which are network namespaces of this
# machine with two processors each. All of it lies in a temporary folder and ends with the command. Where LINKS says how, a command gives all
# links a delay (slow_links.cpp), which gets their names. As root, with Debian's slurm-wlm:
#   tests/launch/slurm.sh srun --nodes 2 hostname
set -u
hosts=${HOSTS:-2}
work=$(mktemp -d)
bridge=titan-slurm
pids=()
clean() {
  kill "${pids[@]}" 2>/dev/null
  sleep 0.5
  kill -KILL "${pids[@]}" 2>/dev/null
  for ((n = 1; n <= hosts; n++)); do
    ip netns pids "n$n" 2>/dev/null | xargs -r kill -KILL 2>/dev/null
    ip netns del "n$n" 2>/dev/null
    ip link del "titan-n$n" 2>/dev/null # the system itself takes its time
  done
  ip link del $bridge 2>/dev/null
  rm -rf "$work"
}
trap clean EXIT

# With slow links, slurmctld has one as well, in place of the bridge.
if [[ -v LINKS ]]; then ip link add $bridge type veth peer name titan-n0 && ip link set titan-n0 up; else ip link add $bridge type bridge; fi || exit
ip addr add 10.77.0.254/24 dev $bridge && ip link set $bridge up || exit
for ((n = 1; n <= hosts; n++)); do
  ip netns add "n$n" && ip link add "titan-n$n" type veth peer name eth0 netns "n$n" && ip link set "titan-n$n" up || exit
  [[ -v LINKS ]] || ip link set "titan-n$n" master $bridge || exit
  ip -n "n$n" addr add "10.77.0.$n/24" dev eth0
  ip -n "n$n" link set eth0 up
  ip -n "n$n" link set lo up
done
if [[ -v LINKS ]]; then
  $LINKS $(seq -f 'titan-n%.0f' 0 "$hosts") >/dev/null &
  pids+=($!)
fi
mkdir -p "$work/state"
head -c 1024 /dev/urandom >"$work/slurm.key"
chmod 600 "$work/slurm.key"
printf '127.0.0.1 localhost\n10.77.0.254 ctl\n' >"$work/hosts"
for ((n = 1; n <= hosts; n++)); do
  mkdir "$work/n$n" "$work/n$n.tmp" # in a /tmp of both, Slurm's PMIx on one host removes what the other's step needs
  printf '10.77.0.%d n%d\n' $n $n >>"$work/hosts"
done
cat >"$work/slurm.conf" <<END
ClusterName=titan
SlurmctldHost=ctl(10.77.0.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/slurm
CredType=auth/slurm
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=1,requeue_setup_env_fail
MinJobAge=300
KillWait=5
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/%n
TmpFS=$work/%n.tmp
SlurmctldPidFile=$work/ctl.pid
SlurmdPidFile=$work/%n.pid
SlurmctldLogFile=$work/ctl.log
SlurmdLogFile=$work/%n.log
ReturnToService=2
NodeName=n[1-$hosts] NodeAddr=10.77.0.[1-$hosts] CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE
END
printf 'CgroupPlugin=disabled\n' >"$work/cgroup.conf"
export SLURM_CONF=$work/slurm.conf
# What runs beside the cluster, and on it, has its names.
inside() { exec unshare --mount --uts bash -c 'mount --bind "$0" /etc/hosts && hostname "$1" && shift && exec "$@"' "$work/hosts" "$@"; }
inside ctl slurmctld -D >/dev/null 2>&1 &
pids+=($!)
for ((n = 1; n <= hosts; n++)); do
  ip netns exec "n$n" unshare --mount --uts bash -c 'mount --bind "$0" /etc/hosts && hostname "$1" && exec slurmd -D -N "$1"' "$work/hosts" "n$n" >/dev/null 2>&1 &
  pids+=($!)
done
for _ in {1..100}; do
  [[ $(sinfo --noheader --format %T 2>/dev/null) == idle ]] && break
  sleep 0.2
done
(inside ctl "$@")
code=$?
if ((code != 0)); then
  tail -n 5 "$work"/*.log >&2
fi
exit $code
