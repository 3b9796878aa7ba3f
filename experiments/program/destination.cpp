#include "program/destination.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <stdexcept>

namespace multistep::program {
namespace {

namespace fs = std::filesystem;

/// Throws what the system says of `path`, which holds where `holds`.
void check(bool holds, const std::string& path) {
  if (holds) return;
  const char* const reason = std::strerror(errno);
  throw std::runtime_error(
      path.empty() || path == "-"
          ? fmt::format("standard output: cannot be written ({})", reason)
          : fmt::format("--output {}: a file that can be written ({})", path, reason));
}

/// A descriptor, or where there is none a file.
struct Place {
  int descriptor = -1;
  std::string file;  // no link
  bool exists = false;
  struct stat status {};  // where it exists

  bool is_stream() const { return exists && !S_ISREG(status.st_mode); }
};

/// The descriptor that a path names by itself, as /dev/fd/3 does; -1: none.
int named_descriptor(const fs::path& path) {
  const fs::path folder = path.parent_path();
  if (folder != "/dev/fd" && folder != "/proc/self/fd") return -1;
  const std::string digits = path.filename();
  int descriptor = -1;
  const char* const past = digits.data() + digits.size();
  const auto [end, error] = std::from_chars(digits.data(), past, descriptor);
  return error == std::errc() && end == past ? descriptor : -1;
}

Place place_of(const std::string& path) {
  Place place;
  if (path.empty() || path == "-") {
    place.descriptor = STDOUT_FILENO;
    return place;
  }
  constexpr int kMaxLinks = 40;
  fs::path target = path;
  for (int links = 0;; ++links) {
    place.descriptor = named_descriptor(target);
    if (place.descriptor >= 0) return place;
    std::error_code error;
    const fs::path next = fs::read_symlink(target, error);
    if (error) break;  // no link
    errno = ELOOP;
    check(links < kMaxLinks, path);
    target = target.parent_path() / next;
  }
  place.file = target;
  place.exists = stat(place.file.c_str(), &place.status) == 0;
  check(place.exists || errno == ENOENT, path);
  return place;
}

void write_all(int descriptor, const std::string& text, const std::string& path) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(descriptor, text.data() + done, text.size() - done);
    if (written >= 0) {
      done += static_cast<std::size_t>(written);
    } else if (errno == EAGAIN) {
      pollfd ready{descriptor, POLLOUT, 0};
      poll(&ready, 1, -1);
    } else {
      check(errno == EINTR, path);
    }
  }
}

/// A new file beside the one that it is to replace, gone again unless it has.
class PartialFile {
 public:
  PartialFile(const Place& place, const std::string& path) : place_(place), path_(path) {
    const fs::path target = place.file;
    const std::string stem = target.filename().string().substr(0, 200);  // of 255 letters
    for (int attempt = 0; descriptor_ < 0; ++attempt) {
      name_ = target.parent_path() / fmt::format("{}.{}-{}.partial", stem, getpid(), attempt);
      descriptor_ = open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      check(descriptor_ >= 0 || (errno == EEXIST && attempt < 100), path);
    }
    if (place.exists) fchmod(descriptor_, place.status.st_mode & 07777);
  }
  ~PartialFile() {
    if (descriptor_ >= 0) close(descriptor_);
    if (!name_.empty()) unlink(name_.c_str());
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  void replace_with(const std::string& text) {
    write_all(descriptor_, text, path_);
    const int closed = close(descriptor_);
    descriptor_ = -1;
    check(closed == 0, path_);
    check(rename(name_.c_str(), place_.file.c_str()) == 0, path_);
    name_.clear();
  }

 private:
  const Place& place_;
  const std::string& path_;
  std::string name_;
  int descriptor_ = -1;
};

}  // namespace

void require_writable(const std::string& path) {
  const Place place = place_of(path);
  if (place.descriptor >= 0) {
    const int flags = fcntl(place.descriptor, F_GETFL);
    if (flags >= 0) errno = EBADF;  // a descriptor to read from
    return check(flags >= 0 && (flags & O_ACCMODE) != O_RDONLY, path);
  }
  errno = EISDIR;
  check(!place.exists || !S_ISDIR(place.status.st_mode), path);
  check(!place.exists || access(place.file.c_str(), W_OK) == 0, path);
  if (!place.is_stream()) PartialFile(place, path);
}

void write_whole(const std::string& path, const std::string& text) {
  const Place place = place_of(path);
  if (place.descriptor >= 0) return write_all(place.descriptor, text, path);
  if (!place.is_stream()) return PartialFile(place, path).replace_with(text);
  const int descriptor = open(place.file.c_str(), O_WRONLY | O_CLOEXEC);
  check(descriptor >= 0, path);
  try {
    write_all(descriptor, text, path);
  } catch (...) {
    close(descriptor);
    throw;
  }
  check(close(descriptor) == 0, path);
}

}  // namespace multistep::program
