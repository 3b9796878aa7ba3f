#include "multistep/host_memory.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "support/error.hpp"

namespace multistep {
namespace {

namespace fs = std::filesystem;

/// The number that a file begins with; none where it has another word, as "max".
std::optional<Index> number_in(const fs::path& file) {
  std::ifstream in(file);
  std::string word;
  Index value = 0;
  if (!(in >> word)) return std::nullopt;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || value < 0) return std::nullopt;
  return value;
}

/// The number behind `name` in a file of names and numbers.
std::optional<Index> field_of(const fs::path& file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word;
    Index value = 0;
    if (words >> word >> value && word == name) return value;
  }
  return std::nullopt;
}

/// How a version of control groups calls its files.
struct Files {
  const char* limit;
  const char* usage;
  const char* reclaimable;  // in memory.stat
};
constexpr Files kVersion2{"memory.max", "memory.current", "inactive_file"};
constexpr Files kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};

/// What a group leaves; none where it has no limit.
std::optional<Index> left_in(const fs::path& group, const Files& files) {
  const std::optional<Index> limit = number_in(group / files.limit);
  if (!limit) return std::nullopt;
  const Index used = number_in(group / files.usage).value_or(0);
  const Index reclaimable = field_of(group / "memory.stat", files.reclaimable).value_or(0);
  return std::max<Index>(0, *limit - std::max<Index>(0, used - reclaimable));
}

/// A mounted hierarchy of groups with memory limits.
struct Hierarchy {
  fs::path mount;  // where it is
  fs::path top;    // the group that is mounted there
  Files files;
};

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

std::vector<Hierarchy> hierarchies(const fs::path& root) {
  std::vector<Hierarchy> found;
  std::ifstream in(root / "proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    // id, parent, device, top, mount, options ... - type, source, options
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash));
    std::istringstream after(line.substr(dash + 3));
    std::string skipped, top, mount, type, options;
    before >> skipped >> skipped >> skipped >> top >> mount;
    after >> type >> skipped >> options;
    if (type == "cgroup2") found.push_back({mount, top, kVersion2});
    if (type == "cgroup" && has_word(options, "memory")) found.push_back({mount, top, kVersion1});
  }
  return found;
}

/// This process's group in a hierarchy: "" where /proc does not say.
fs::path own_group(const fs::path& root, const Files& files) {
  std::ifstream in(root / "proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {  // id:controllers:path
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool own = files.limit == kVersion2.limit ? controllers.empty() && line[0] == '0'
                                                    : has_word(controllers, "memory");
    if (own) return line.substr(second + 1);
  }
  return {};
}

/// The least that the groups of this process leave.
std::optional<Index> left_by_groups(const fs::path& root) {
  std::optional<Index> least;
  for (const Hierarchy& of : hierarchies(root)) {
    // A container sees the hierarchy from its own group on; what lies outside is not there.
    fs::path group = own_group(root, of.files).lexically_relative(of.top);
    if (group.empty() || *group.begin() == "..") group = ".";
    for (;; group = group.parent_path()) {
      const auto left = left_in(root / of.mount.relative_path() / group, of.files);
      if (left) least = std::min(least.value_or(*left), *left);
      if (group.empty() || group == ".") break;
    }
  }
  return least;
}

/// What RLIMIT_AS leaves.
std::optional<Index> left_of_address_space(const fs::path& root) {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  const Index used = number_in(root / "proc/self/statm").value_or(0) * sysconf(_SC_PAGESIZE);
  return std::max<Index>(0, static_cast<Index>(std::min<rlim_t>(limit.rlim_cur, INT64_MAX)) - used);
}

}  // namespace

Index available_memory(const fs::path& root) {
  const std::optional<Index> kib = field_of(root / "proc/meminfo", "MemAvailable:");
  const Index machine = kib ? *kib * 1024 : sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
  return std::min({machine, left_by_groups(root).value_or(machine),
                   left_of_address_space(root).value_or(machine)});
}

void require_memory(std::string_view what, double bytes) {
  if (bytes < 0x1p24) return;
  const double most = 0.9 * static_cast<double>(available_memory());
  require(bytes <= most, "{} {:.2f} GiB, at most {:.2f} GiB fit this machine", what,
          bytes * 0x1p-30, most * 0x1p-30);
}

}  // namespace multistep
