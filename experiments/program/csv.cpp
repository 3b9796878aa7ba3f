#include "program/csv.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <utility>

#include "multistep/host_memory.hpp"
#include "program/printable.hpp"

namespace multistep::program {
namespace {

constexpr std::string_view kHeader = "query,begin,end";
constexpr std::string_view kMark = "\xef\xbb\xbf";  // of byte order, before the first line

/// The fields of a line, spaces and tabs around each left out.
std::vector<std::string_view> fields_of(std::string_view line) {
  std::vector<std::string_view> fields;
  for (bool more = true; more;) {
    const std::size_t comma = line.find(',');
    more = comma != std::string_view::npos;
    std::string_view field = line.substr(0, comma);
    field.remove_prefix(std::min(field.find_first_not_of(" \t"), field.size()));
    field.remove_suffix(field.size() - (field.find_last_not_of(" \t") + 1));
    fields.push_back(field);
    if (more) line.remove_prefix(comma + 1);
  }
  return fields;
}

/// Are these the names of the columns, in capitals or not?
bool is_header(const std::vector<std::string_view>& fields) {
  std::string names;
  for (const std::string_view field : fields) {
    if (!names.empty()) names += ',';
    for (const char letter : field) {
      names += letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
    }
  }
  return names == kHeader;
}

/// Three integers, and nothing else.
bool parse_row(const std::vector<std::string_view>& fields, std::array<Index, 3>& row) {
  if (fields.size() != row.size()) return false;
  for (std::size_t column = 0; column < row.size(); ++column) {
    const std::string_view field = fields[column];
    const char* const past = field.data() + field.size();
    const auto [end, error] = std::from_chars(field.data(), past, row[column]);
    if (error != std::errc() || end != past) return false;
  }
  return true;
}

/// The next line without its end, and whether all of it fits the buffer.
std::pair<std::string_view, bool> next_line(std::istream& in, std::array<char, 256>& buffer) {
  in.getline(buffer.data(), buffer.size());
  const bool cut = in.fail() && !in.bad();
  const bool ended = !in.eof() && !in.fail();  // by a newline, which counts
  std::string_view line(buffer.data(), static_cast<std::size_t>(in.gcount() - (ended ? 1 : 0)));
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return {line, !cut};
}

/// The beginning of a line as an error shows it.
std::string shown(std::string_view line) {
  constexpr std::size_t kLetters = 40;
  return fmt::format("'{}{}'", printable(line.substr(0, kLetters)),
                     line.size() > kLetters ? "..." : "");
}

}  // namespace

std::vector<QuerySpan> read_spans(const std::string& path, Index length, Index start) {
  std::ifstream file;
  if (path != "-") file.open(path);
  std::istream& in = path == "-" ? std::cin : file;
  const auto refuse = [&](Index line, const std::string& what) {
    throw std::invalid_argument(fmt::format("{}:{}: {}", path, line, what));
  };
  if (!in || (in.peek() == std::char_traits<char>::eof() && in.bad())) {
    throw std::invalid_argument(fmt::format("--spans {}: a readable file of {}", path, kHeader));
  }

  std::vector<QuerySpan> spans;
  std::array<char, 256> buffer{};  // three integers and some spaces fit
  bool first = true;
  for (Index line = 1; in.peek() != std::char_traits<char>::eof(); ++line) {
    auto [text, whole] = next_line(in, buffer);
    if (line == 1 && text.substr(0, kMark.size()) == kMark) text.remove_prefix(kMark.size());
    const std::vector<std::string_view> fields = fields_of(text);
    if (whole && fields.size() == 1 && fields[0].empty()) continue;  // a blank line
    if (std::exchange(first, false) && is_header(fields)) continue;
    std::array<Index, 3> row{};
    if (!whole || !parse_row(fields, row)) {
      refuse(line, fmt::format("found {}, wanted three integers from {} to {}, {}", shown(text),
                               start, length, kHeader));
    }
    const auto [query, begin, end] = row;
    if (query < start || query >= length) {
      refuse(line,
             fmt::format("query {}: an integer in [start {}, length {})", query, start, length));
    }
    if (begin < start || begin >= end || end > query + 1) {
      refuse(line, fmt::format("span [{}, {}) of query {}: start {} <= begin < end <= query + 1",
                               begin, end, query, start));
    }
    if (spans.size() == spans.capacity()) {  // as many again
      require_memory(fmt::format("--spans {}: its spans take", path),
                     2 * sizeof(QuerySpan) * static_cast<double>(spans.size()));
    }
    spans.push_back({query, {begin, end}});
  }
  if (in.bad()) throw std::invalid_argument(fmt::format("--spans {}: reading failed", path));
  if (spans.empty()) throw std::invalid_argument(fmt::format("--spans {}: no spans", path));
  return spans;
}

}  // namespace multistep::program
