#include <sys/resource.h>
#include <unistd.h>
#include <multistep/host_memory.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/catch.hpp"

using multistep::available_memory;
using multistep::Index;
namespace fs = std::filesystem;

namespace {

constexpr Index kMi = 1 << 20;

/// A made-up machine's files of the kernel.
class Machine {
 public:
  Machine() {
    std::string name = fs::temp_directory_path() / "machine-XXXXXX";
    REQUIRE(mkdtemp(name.data()) != nullptr);
    root_ = name;
    file("proc/meminfo", "MemTotal: 16384 kB\nMemAvailable:    8192 kB\nBuffers: 1 kB\n");
  }
  ~Machine() { fs::remove_all(root_); }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  Machine& file(const fs::path& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
    return *this;
  }
  Machine& version_2(const std::string& top, const std::string& own) {
    return file("proc/self/mountinfo", "21 20 0:5 / /proc rw - proc proc rw\n30 23 0:26 " + top +
                                           " /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup "
                                           "rw\n")
        .file("proc/self/cgroup", "0::" + own + "\n");
  }
  Machine& version_1(const std::string& top, const std::string& own) {
    return file("proc/self/mountinfo",
                "32 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n35 31 0:32 " + top +
                    " /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n38 31 0:38 / "
                    "/sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
        .file("proc/self/cgroup", "9:name=systemd:/\n4:memory:" + own + "\n1:cpu:/\n0::/\n");
  }
  Index available() const { return available_memory(root_); }

 private:
  fs::path root_;
};

}  // namespace

TEST_CASE("Without groups it is what the machine has available", "[host_memory]") {
  CHECK(Machine().available() == 8 * kMi);
  // A limit above is none, and neither is "max".
  CHECK(Machine().version_2("/", "/").file("sys/fs/cgroup/memory.max", "max\n").available() ==
        8 * kMi);
  CHECK(Machine().version_2("/", "/").file("sys/fs/cgroup/memory.max", "99999999").available() ==
        8 * kMi);
  CHECK(available_memory("/no/such/machine") > 0);
  CHECK(available_memory() > 0);
}

TEST_CASE("A group's limit counts, and what it uses", "[host_memory]") {
  Machine machine;
  machine.version_2("/", "/").file("sys/fs/cgroup/memory.max", "4194304\n");
  CHECK(machine.available() == 4 * kMi);
  machine.file("sys/fs/cgroup/memory.current", "3145728\n");
  CHECK(machine.available() == kMi);
  // File pages that it would give back are not used; of more than it uses, all of that.
  machine.file("sys/fs/cgroup/memory.stat", "anon 7\ninactive_file 1048576\nactive_file 9\n");
  CHECK(machine.available() == 2 * kMi);
  machine.file("sys/fs/cgroup/memory.stat", "inactive_file 9000000\n");
  CHECK(machine.available() == 4 * kMi);
  machine.file("sys/fs/cgroup/memory.current", "9999999\n");
  machine.file("sys/fs/cgroup/memory.stat", "");
  CHECK(machine.available() == 0);
}

TEST_CASE("The limits of all ancestors count", "[host_memory]") {
  for (const char* limited : {"", "user.slice/", "user.slice/job/"}) {
    Machine machine;
    machine.version_2("/", "/user.slice/job");
    const std::string group = "sys/fs/cgroup/" + std::string(limited);
    machine.file("sys/fs/cgroup/user.slice/job/memory.max", "max\n");
    machine.file(group + "memory.max", "5242880\n").file(group + "memory.current", "1048576\n");
    CHECK(machine.available() == 4 * kMi);
    machine.file("sys/fs/cgroup/user.slice/other/memory.max", "1\n");  // not an ancestor
    CHECK(machine.available() == 4 * kMi);
  }
}

TEST_CASE("Version 1 has other names", "[host_memory]") {
  Machine machine;
  machine.version_1("/", "/job/step")
      .file("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "3145728\n")
      .file("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "2097152\n")
      .file("sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 1024\n")
      .file("sys/fs/cgroup/memory/job/step/memory.limit_in_bytes", "9223372036854771712\n")
      .file("sys/fs/cgroup/unified/memory.max", "max\n");
  CHECK(machine.available() == kMi + 1024);
}

TEST_CASE("A container sees its own group where the hierarchy is mounted", "[host_memory]") {
  for (const char* own : {"/docker/12ab", "/docker/12ab/inner", "/../../elsewhere", "/"}) {
    Machine machine;
    machine.version_1("/docker/12ab", own)
        .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n");
    CHECK(machine.available() == 2 * kMi);
    machine.file("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "1048576\n");
    CHECK(machine.available() == (std::string(own) == "/docker/12ab/inner" ? kMi : 2 * kMi));
  }
}

TEST_CASE("A limit of the address space counts", "[host_memory]") {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
  // One that is far above what a test uses, the sanitizers' shadow too: it still has to allocate.
  rlimit limited = before;
  limited.rlim_cur = std::min<rlim_t>(rlim_t{1} << 50, before.rlim_max);
  const auto pages = static_cast<Index>(limited.rlim_cur) / sysconf(_SC_PAGESIZE);
  const Index left = 3 * kMi / sysconf(_SC_PAGESIZE);
  Machine machine;
  machine.file("proc/self/statm", std::to_string(pages - left) + " 500 300 1 0 200 0\n");
  REQUIRE(setrlimit(RLIMIT_AS, &limited) == 0);
  const Index available = machine.available();
  REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
  CHECK(available == 3 * kMi);
}

TEST_CASE("What does not fit is refused with sizes", "[host_memory]") {
  CHECK_NOTHROW(multistep::require_memory("the table takes", 1e3));
  CHECK_THROWS_WITH(multistep::require_memory("the table takes", 0x1p80),
                    Catch::Matchers::Matches("the table takes \\S+ GiB, at most \\S+ GiB fit this "
                                             "machine"));
}
