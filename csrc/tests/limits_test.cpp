// Limits of memory and processor time on systems that are folders of files: control groups of version 1, 2 and both, in containers and out of them.
#include "../limits.h"

#include <algorithm>

#include "folder.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

constexpr uint64_t GIB = uint64_t{1} << 30;
constexpr const char* MACHINE = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:   12582912 kB";  // 16 GiB, of which 12
constexpr const char* UNIFIED = "25 30 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";

bool is(const MemoryLimit& limit, const std::string& file, uint64_t bytes, uint64_t available) {
  return limit.file == file && limit.bytes == bytes && limit.available == available;
}

void without_control_groups_the_machine_is_the_limit() {
  const Folder folder({{"/proc/meminfo", MACHINE}});
  const auto limits = memory_limits(folder.path);
  EXPECT(limits.size() == 1 && is(limits[0], "", 16 * GIB, 12 * GIB) && limits[0].group == 0);
  EXPECT(std::isinf(cpu_quota(folder.path)));
  // Nor is a system that tells nothing an error.
  const auto unknown = memory_limits(folder.path + "/nowhere");
  EXPECT(unknown.size() == 1 && unknown[0].bytes > GIB / 4 && unknown[0].available == unknown[0].bytes);
  EXPECT(own_memory(folder.path) == 0);
}

void a_container_of_version_2_sees_itself_as_the_root() {
  const Folder folder({{"/proc/meminfo", MACHINE},
                       {"/proc/self/cgroup", "0::/"},
                       {"/proc/self/mountinfo", UNIFIED},
                       {"/sys/fs/cgroup/memory.max", "2147483648"},
                       {"/sys/fs/cgroup/memory.high", "max"},
                       {"/sys/fs/cgroup/memory.current", "1610612736"},
                       {"/sys/fs/cgroup/memory.stat", "anon 536870912\nfile 1073741824\nshmem 268435456\nactive_file 268435456\ninactive_file 536870912\nslab_reclaimable 0"},
                       {"/sys/fs/cgroup/cpu.max", "150000 100000"}});
  // 1.5 GiB are in use, of which 0.75 give way; what tmpfs holds (shmem) does not.
  const auto limits = memory_limits(folder.path);
  EXPECT(limits.size() == 2 && is(limits[1], "/sys/fs/cgroup/memory.max", 2 * GIB, 5 * GIB / 4));
  EXPECT(cpu_quota(folder.path) == 1.5);
  folder.write("/sys/fs/cgroup/memory.high", "1073741824");  // from which on the system slows the processes down
  const auto slower = memory_limits(folder.path);
  EXPECT(slower.size() == 3 && is(slower[2], "/sys/fs/cgroup/memory.high", GIB, GIB / 4));
  EXPECT(is(memory_of({}, folder.path), "/sys/fs/cgroup/memory.high", GIB, GIB / 4));
  folder.write("/sys/fs/cgroup/cpu.max", "max 100000");
  EXPECT(std::isinf(cpu_quota(folder.path)));
}

void limits_of_all_groups_above_count() {
  const std::string job = "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_1";
  const Folder folder({{"/proc/meminfo", MACHINE}, {"/proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_1/step_0/user/task_0"}, {"/proc/self/mountinfo", UNIFIED}});
  for (const char* group : {"", "/step_0", "/step_0/user", "/step_0/user/task_0"}) {
    folder.write(job + group + "/memory.max", "max");
    folder.write(job + group + "/cpu.max", "max 100000");
  }
  folder.write(job + "/memory.max", "4294967296");
  folder.write(job + "/memory.current", "1073741824");
  folder.write(job + "/step_0/cpu.max", "400000 100000");
  folder.write(job + "/cpu.max", "250000 100000");
  const auto limits = memory_limits(folder.path);
  EXPECT(limits.size() == 2 && is(limits[1], job + "/memory.max", 4 * GIB, 3 * GIB));
  EXPECT(cpu_quota(folder.path) == 2.5);
  // A limit that is higher than the machine's memory is none.
  folder.write(job + "/memory.max", "17179869184");
  EXPECT(memory_limits(folder.path).size() == 1);
}

void version_1_has_a_hierarchy_for_each_controller() {
  const std::string memory = "/sys/fs/cgroup/memory/slurm/uid_0/job_1", cpu = "/sys/fs/cgroup/cpu,cpuacct/slurm/uid_0/job_1";
  // With the hierarchy of version 2 beside them, which has no controllers then.
  const Folder folder({{"/proc/meminfo", MACHINE},
                       {"/proc/self/cgroup", "9:name=systemd:/slurm\n5:cpu,cpuacct:/slurm/uid_0/job_1/step_0/task_0\n4:memory:/slurm/uid_0/job_1/step_0/task_0\n0::/slurm"},
                       {"/proc/self/mountinfo",
                        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu\n"
                        "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"},
                       {"/sys/fs/cgroup/unified/slurm/cgroup.procs", ""}});
  for (const char* group : {"", "/step_0", "/step_0/task_0"}) {
    folder.write(memory + group + "/memory.limit_in_bytes", "9223372036854771712");
    folder.write(cpu + group + "/cpu.cfs_quota_us", "-1");
    folder.write(cpu + group + "/cpu.cfs_period_us", "100000");
  }
  EXPECT(memory_limits(folder.path).size() == 1);
  EXPECT(std::isinf(cpu_quota(folder.path)));
  folder.write(memory + "/memory.limit_in_bytes", "3221225472");
  folder.write(memory + "/memory.usage_in_bytes", "2147483648");
  folder.write(memory + "/memory.stat", "cache 9\nactive_file 1\ninactive_file 1\ntotal_active_file 536870912\ntotal_inactive_file 1073741824");
  folder.write(cpu + "/step_0/cpu.cfs_quota_us", "75000");
  folder.write(cpu + "/step_0/cpu.cfs_period_us", "50000");
  const auto limits = memory_limits(folder.path);
  EXPECT(limits.size() == 2 && is(limits[1], memory + "/memory.limit_in_bytes", 3 * GIB, 5 * GIB / 2));
  EXPECT(cpu_quota(folder.path) == 1.5);
}

void a_container_of_version_1_finds_its_own_group_where_it_is_mounted() {
  const Folder folder({{"/proc/meminfo", MACHINE},
                       {"/proc/self/cgroup", "4:memory:/docker/abc\n1:cpu:/docker/abc/inner"},
                       {"/proc/self/mountinfo", "35 31 0:32 /docker/abc /sys/fs/cgroup\\040s/memory ro - cgroup cgroup rw,memory\n36 31 0:33 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu"},
                       {"/sys/fs/cgroup s/memory/memory.limit_in_bytes", "1073741824"},
                       {"/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "-1"},
                       {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000"},
                       {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"}});
  EXPECT(is(memory_of({}, folder.path), "/sys/fs/cgroup s/memory/memory.limit_in_bytes", GIB, GIB));
  EXPECT(cpu_quota(folder.path) == 0.5);
}

void a_group_that_cannot_be_seen_lies_below_the_topmost() {
  const Folder folder({{"/proc/meminfo", MACHINE},
                       {"/proc/self/mountinfo", UNIFIED},
                       {"/sys/fs/memory.max", "4096"},  // above what is mounted
                       {"/sys/fs/cgroup/memory.max", "1073741824"},
                       {"/sys/fs/cgroup/job_11/memory.max", "4096"}});
  for (const char* group : {"0::/../../other", "0::/job_1"}) {
    folder.write("/proc/self/cgroup", group);
    if (group == std::string("0::/job_1")) folder.write("/proc/self/mountinfo", "25 30 0:22 /job_11 /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
    EXPECT(is(memory_of({}, folder.path), "/sys/fs/cgroup/memory.max", GIB, GIB));
  }
}

void ranks_share_what_limits_them_together() {
  const Folder folder({{"/proc/meminfo", MACHINE},
                       {"/proc/self/cgroup", "0::/job/task"},
                       {"/proc/self/mountinfo", UNIFIED},
                       {"/sys/fs/cgroup/job/memory.max", "8589934592"},
                       {"/sys/fs/cgroup/job/memory.current", "0"},
                       {"/sys/fs/cgroup/job/task/memory.max", "3221225472"},
                       {"/sys/fs/cgroup/job/task/memory.current", "1073741824"}});
  const auto limits = memory_limits(folder.path);
  const uint64_t task = limits[1].group, job = limits[2].group;
  EXPECT(limits.size() == 3 && task && job && task != job);
  EXPECT(is(memory_of({}, folder.path), "/sys/fs/cgroup/job/task/memory.max", 3 * GIB, 2 * GIB));
  // Eight ranks of a host; four of them in this job, each in a group of its own.
  EXPECT(is(memory_of({8, {{job, 4}, {task, 1}}}, folder.path), "", 16 * GIB, 3 * GIB / 2));
  EXPECT(is(memory_of({4, {{job, 4}, {task, 2}}}, folder.path), "/sys/fs/cgroup/job/task/memory.max", 3 * GIB, GIB));
  EXPECT(is(memory_of({4, {{job, 8}, {task, 1}}}, folder.path), "/sys/fs/cgroup/job/memory.max", 8 * GIB, GIB));
  // As long as nobody has told, all ranks of the host share each.
  EXPECT(is(memory_of({4, {}}, folder.path), "/sys/fs/cgroup/job/task/memory.max", 3 * GIB, GIB / 2));
  // What a process has already, it need not find.
  folder.write("/proc/self/status", "Name:\ttitan\nRssAnon:\t  262144 kB\nRssFile:\t 1048576 kB");
  EXPECT(own_memory(folder.path) == GIB / 4);
  EXPECT(is(memory_of({4, {}}, folder.path), "/sys/fs/cgroup/job/task/memory.max", 3 * GIB, 3 * GIB / 4));
  // What is used beyond a limit leaves nothing.
  folder.write("/sys/fs/cgroup/job/task/memory.current", "4294967296");
  EXPECT(memory_of({1, {}}, folder.path).available == GIB / 4);
}

}  // namespace

int main() {
  without_control_groups_the_machine_is_the_limit();
  a_container_of_version_2_sees_itself_as_the_root();
  limits_of_all_groups_above_count();
  version_1_has_a_hierarchy_for_each_controller();
  a_container_of_version_1_finds_its_own_group_where_it_is_mounted();
  a_group_that_cannot_be_seen_lies_below_the_topmost();
  ranks_share_what_limits_them_together();
  return finish("limits");
}
