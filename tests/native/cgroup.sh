# Runs a command in a control group of its own: cgroup.sh MEMORY_BYTES CPU_QUOTA_US COMMAND... The last line of its errors is the most memory
# that the group has had, in bytes. Ends with 99, and says why, where no such group can be made.
memory=$1 quota=$2
shift 2

# The folder of this process's group in a hierarchy of version 1, as it is mounted in most places.
own() { echo "/sys/fs/cgroup/$1$(sed -nE "s/^[0-9]+:([^:]*,)?$1(,[^:]*)?:(.*)$/\3/p" /proc/self/cgroup | sed 's|^/$||')"; }

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then # version 2 alone
  groups=/sys/fs/cgroup/libtitan-$$ peak=memory.peak
  set_limits() { echo "$memory" >"$groups/memory.max" && echo "$quota 100000" >"$groups/cpu.max"; }
else
  groups="$(own memory)/libtitan-$$ $(own cpu)/libtitan-$$" peak=memory.max_usage_in_bytes
  set_limits() {
    echo "$memory" >"${groups% *}/memory.limit_in_bytes" && echo "$quota" >"${groups#* }/cpu.cfs_quota_us"
  }
fi
trap 'for group in $groups; do [ ! -d "$group" ] || rmdir "$group" || { sleep 1; rmdir "$group"; }; done' EXIT
why=$({ mkdir $groups && set_limits; } 2>&1) || { echo "$why" >&2; exit 99; }
sh -c 'for group in $0; do echo $$ >$group/cgroup.procs; done; exec "$@"' "$groups" "$@"
code=$?
echo >&2
cat "${groups% *}/$peak" >&2
exit $code
