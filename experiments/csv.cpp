#include "csv.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <fstream>
#include <iostream>
#include <stdexcept>

namespace multistep {
namespace {

constexpr std::string_view kHeader = "query,begin,end";

/// Three integers separated by commas, and nothing else.
bool parse_row(std::string_view line, std::array<Index, 3>& row) {
  const char* at = line.data();
  const char* const past = at + line.size();
  for (std::size_t column = 0; column < row.size(); ++column) {
    if (column > 0 && (at == past || *at++ != ',')) return false;
    const auto [end, error] = std::from_chars(at, past, row[column]);
    if (error != std::errc()) return false;
    at = end;
  }
  return at == past;
}

}  // namespace

std::vector<CandidateSpan> read_spans(const std::string& path, Index length, Index start) {
  std::ifstream file;
  if (path != "-") file.open(path);
  std::istream& in = path == "-" ? std::cin : file;
  const auto refuse = [&](Index line, const std::string& what) {
    throw std::invalid_argument(fmt::format("{}:{}: {}", path, line, what));
  };
  if (!in || (in.peek() == std::char_traits<char>::eof() && in.bad())) {
    throw std::invalid_argument(fmt::format("--spans {}: a readable file of {}", path, kHeader));
  }

  std::vector<CandidateSpan> spans;
  std::array<char, 128> buffer{};  // three integers fit
  for (Index line = 1; in.peek() != std::char_traits<char>::eof(); ++line) {
    in.getline(buffer.data(), buffer.size());
    std::string_view text(buffer.data());
    if (in.fail()) refuse(line, fmt::format("'{:.40}...': {}", text, kHeader));
    if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
    if (line == 1 && text == kHeader) continue;
    std::array<Index, 3> row{};
    if (!parse_row(text, row)) refuse(line, fmt::format("'{:.40}': {}", text, kHeader));
    const auto [query, begin, end] = row;
    if (query < start || query >= length) {
      refuse(line,
             fmt::format("query {}: an integer in [start {}, length {})", query, start, length));
    }
    if (begin < start || begin >= end || end > query + 1) {
      refuse(line, fmt::format("span [{}, {}) of query {}: start {} <= begin < end <= query + 1",
                               begin, end, query, start));
    }
    spans.push_back({query, {begin, end}});
  }
  if (in.bad()) throw std::invalid_argument(fmt::format("--spans {}: reading failed", path));
  if (spans.empty()) throw std::invalid_argument(fmt::format("--spans {}: no spans", path));
  return spans;
}

}  // namespace multistep
