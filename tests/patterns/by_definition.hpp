#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <multistep/patterns.hpp>
#include <set>
#include <string>
#include <vector>

/// The patterns as their papers define them: which pairs of a query and a key there are, one by
/// one. Slow, and independent of the library, of which it uses the plain structs alone.
namespace definition {

using multistep::Index;

struct Parameters {
  Index block = 0, stride = 0, window = 0, summary = 0, globals = 0, random = 0, clusters = 0;
  Index top_k = 0;
};

enum class Has { nothing, average, key };

struct Work {
  Index scored = 0;
  Index attended = 0;
};

inline bool is_power_of_two(Index n) {
  while (n > 1 && n % 2 == 0) n /= 2;
  return n == 1;
}

/// What query t has of the key j <= t. Content chooses whatever it may.
inline Has has(const std::string& name, const Parameters& p, Index t, Index j) {
  const auto when = [](bool reached) { return reached ? Has::key : Has::nothing; };
  if (name == "window") return when(j > t - p.window);
  if (name == "block-diagonal") return when(j / p.block == t / p.block);
  if (name == "strided") return when(t - j <= p.stride || (t - j) % p.stride == 0);
  if (name == "fixed") {
    return when(j / p.stride == t / p.stride || j % p.stride >= p.stride - p.summary);
  }
  if (name == "log-sparse") return when(j == t || is_power_of_two(t - j));
  if (name == "combiner-fixed") return j / p.block == t / p.block ? Has::key : Has::average;
  if (name == "longformer") {
    for (Index i = 0; i < p.window; ++i) {
      if (t - i * p.stride == j) return Has::key;
    }
    return when(j < p.globals);
  }
  if (name == "bigbird") {  // without random blocks
    return when(j / p.block < p.globals || t / p.block - j / p.block < p.window);
  }
  if (name == "log-linear" || name == "linear") return Has::average;
  if (name == "zeta") return j / p.block < t / p.block ? Has::key : Has::average;
  if (name == "moba") return when(p.top_k > 1 || j / p.block == t / p.block);
  return Has::key;  // nsa, dsa, routing, reformer, biformer
}

/// The bucket of the Fenwick tree that key j is in for query t: the highest bit in which the two
/// differ, and none for the query itself.
inline Index bucket(Index t, Index j) {
  Index level = 0;
  for (Index differ = t ^ j; differ > 0; differ /= 2) ++level;
  return level;
}

/// Products of query t whose keys are [start, t].
inline Work work(const std::string& name, const Parameters& p, Index t, Index start) {
  Work work;
  const Index keys = t + 1 - start;
  std::vector<bool> old_blocks(static_cast<std::size_t>(p.block > 0 ? t / p.block : 0));
  Index own = 0;  // keys of the query's block
  for (Index j = start; j <= t && p.block > 0; ++j) {
    if (j / p.block == t / p.block) {
      ++own;
    } else {
      old_blocks[static_cast<std::size_t>(j / p.block)] = true;
    }
  }
  Index blocks = 0;
  for (const bool any : old_blocks) blocks += any;
  if (name == "combiner-fixed") return {0, own + blocks};
  if (name == "moba") {
    if (p.top_k == 1) return {0, own};
    return {blocks, own + std::min(keys - own, (p.top_k - 1) * p.block)};
  }
  if (name == "log-linear") {
    std::set<Index> buckets;
    for (Index j = start; j <= t; ++j) buckets.insert(bucket(t, j));
    return {0, static_cast<Index>(buckets.size())};
  }
  if (name == "linear") return {0, 1};
  if (name == "routing") return {p.clusters, std::min(keys, p.window)};
  if (name == "reformer") {
    return {p.random * p.clusters / 2, p.random * std::min(keys, 2 * p.block)};
  }
  if (name == "zeta") {
    Index steps = 0;  // until no key is left between the ends
    for (Index left = keys - own; left > 0; left /= 2) ++steps;
    return {steps, std::min(keys - own, p.top_k) + 1};
  }
  if (name == "biformer" || name == "nsa") {
    std::map<Index, Index> sizes;  // of the blocks with keys
    for (Index j = start; j <= t; ++j) ++sizes[j / p.block];
    Index left = p.top_k;
    if (name == "nsa") {  // the first block and the last two, whatever their size
      for (const Index block : std::set<Index>{start / p.block, t / p.block, t / p.block - 1}) {
        const auto found = sizes.find(block);
        if (found == sizes.end()) continue;
        work.attended += found->second;
        sizes.erase(found);
        --left;
      }
    }
    std::multiset<Index, std::greater<>> best;
    for (const auto& [block, size] : sizes) best.insert(size);
    for (const Index size : best) {
      if (left-- > 0) work.attended += size;
    }
  }
  if (name == "biformer") return {blocks + 1, work.attended};
  if (name == "dsa") return {keys, std::min(keys, p.top_k)};
  if (name == "nsa") {
    work.attended += std::min(keys, p.window);
    for (Index begin = 0; begin + p.summary - 1 <= t; begin += p.stride) {
      work.attended += begin + p.summary > start;
    }
    return work;
  }
  for (Index j = start; j <= t; ++j) work.attended += has(name, p, t, j) != Has::nothing;
  return work;
}

}  // namespace definition
