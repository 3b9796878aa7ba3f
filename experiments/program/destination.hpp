#pragma once

#include <string>

/// Where results go: "" and "-" are standard output, /dev/stdout and /dev/fd/N are the descriptors
/// that they name, a device or a pipe takes the text as it comes, and a file is replaced once the
/// text is whole. Links are followed, those to files that are not there yet too.
namespace multistep::program {

/// Throws std::runtime_error unless `path` can be written, ahead of the work whose result goes
/// there. Leaves it as it is.
void require_writable(const std::string& path);

/// Writes the text, or throws std::runtime_error; a file is then as it was.
void write_whole(const std::string& path, const std::string& text);

}  // namespace multistep::program
