#include <algorithm>
#include <set>

#include "patterns/definitions.hpp"
#include "support/random.hpp"

/// Patterns in which positions alone decide. Queries and keys count from 0, query t has the keys up
/// to t.
namespace multistep {
namespace {

/// The newest w keys. Jiang et al., "Mistral 7B", arXiv 2310.06825, section 2: W = 4096, at most W
/// tokens, as many as the rolling cache holds. "From i - W to i", in the same text, and the mask of
/// one_file_ref.py of mistralai/mistral-inference are one key more.
void window(const Parameters& p, RowBuilder& row) {
  row.keep({row.query - p["window"] + 1, row.query + 1});
}

/// The query's own block. Qiu et al., "Blockwise Self-Attention for Long Document Understanding",
/// arXiv 1911.02972, section 3.1, the heads whose permutation is the identity; there 1024 tokens
/// are 2 blocks. The causal form, keys of the block up to the query, is ours.
void block_diagonal(const Parameters& p, RowBuilder& row) {
  row.keep({row.query - row.query % p["block"], row.query + 1});
}

/// Child et al., "Generating Long Sequences with Sparse Transformers", arXiv 1904.10509, section
/// 4.3, strided: A1 = {max(0, t - l), ..., t} and A2 = {j : (t - j) mod l = 0}, in one head that
/// has both (section 5.1, equation 7, a merged head). l = 128 (section 7). openai/sparse_attention
/// has the two apart, and l keys in the first: A2 has the one that this leaves out.
void strided(const Parameters& p, RowBuilder& row) {
  const Index stride = p["stride"];
  row.keep({row.query - stride, row.query + 1});
  for (Index key = row.query - 2 * stride; key >= row.start; key -= stride) row.keep(key);
}

/// The same, fixed: A1 = {j : floor(j / l) = floor(t / l)} and A2 = {j : j mod l in [l - c, l)}, in
/// one head. l = 128 and c = 32 (section 7.2). There heads may take other c cells of each block
/// than the last (section 4.3), as in openai/sparse_attention; ours all take the last.
void fixed(const Parameters& p, RowBuilder& row) {
  const Index stride = p["stride"];
  const Index own = row.query - row.query % stride;
  row.keep({own, row.query + 1});
  const Index oldest = row.start - row.start % stride;
  for (Index begin = oldest; begin < own; begin += stride) {
    row.keep({begin + stride - p["summary"], begin + stride});
  }
}

/// Li et al., "Enhancing the Locality and Breaking the Memory Bottleneck of Transformer on Time
/// Series Forecasting", arXiv 1907.00235, section 4.2: the query itself and the keys 1, 2, 4, ...
/// before it. Without its local attention and its restarts.
void log_sparse(const Parameters&, RowBuilder& row) {
  row.keep(row.query);
  for (Index distance = 1; distance <= row.query; distance *= 2) row.keep(row.query - distance);
}

/// Beltagy, Peters and Cohan, "Longformer", arXiv 2004.05150, section 3.1: a window, dilated so
/// that it has one key in `stride`, and global keys, which every query has. 512 keys without
/// dilation, one global, as classification has it. There half of the window lies on each side and a
/// global query has every key. That all of it lies in the past is the causal form, which
/// allenai/longformer has too (`autoregressive` of diagonaled_mm_tvm.py, w keys before the query
/// and its own; ours is one of the w). That globals are the oldest keys and have but those before
/// them is ours.
void longformer(const Parameters& p, RowBuilder& row) {
  const Index stride = p["stride"];
  Index key = row.query;
  if (stride == 1) {
    row.keep({row.query - p["window"] + 1, row.query + 1});
  } else {
    for (Index i = 0; i < p["window"] && key >= row.start; ++i, key -= stride) row.keep(key);
  }
  row.keep({0, p["globals"]});
}

/// `count` different numbers of [0, below), or all of them: Floyd's sampling (Bentley, "Programming
/// Pearls: a sample of brilliance", 1987).
std::set<Index> drawn(Index count, Index below, std::uint64_t state) {
  std::set<Index> numbers;
  for (Index last = below - std::min(count, below); last < below; ++last) {
    const auto draw = static_cast<Index>(next_random(state) % static_cast<std::uint64_t>(last + 1));
    if (!numbers.insert(draw).second) numbers.insert(last);
  }
  return numbers;
}

/// Zaheer et al., "Big Bird", arXiv 2007.14062, sections 2 and 3: in blocks, global ones, a window
/// and random ones, the same for all queries of a block. 64 keys a block, 2, 3 and 3 of them
/// (appendix E, table 8, BigBird-ITC). The causal form is ours: the oldest blocks are the global
/// ones, the window is the query's own block and those before it, and random blocks are drawn from
/// what is left in between. In google-research/bigbird the first and the last block are global, the
/// window has the block after the query's, and each head draws blocks of its own.
void bigbird(const Parameters& p, RowBuilder& row) {
  const Index block = p["block"];
  const Index own = row.query / block;
  const Index globals = std::min(p["globals"], own + 1);
  const Index local = std::max<Index>(0, own + 1 - p["window"]);
  row.keep({0, globals * block});
  row.keep({local * block, row.query + 1});
  const auto seed = static_cast<std::uint64_t>(p["seed"]);
  const std::uint64_t state =
      mixed_bits(mixed_bits(seed + kRandomStride) + static_cast<std::uint64_t>(own));
  const Index between = std::max<Index>(0, local - globals);
  if (p["random"] >= between) {
    row.keep({globals * block, local * block});
  } else {
    row.expect(p["random"]);
    for (const Index i : drawn(p["random"], between, state)) {
      row.keep({(globals + i) * block, (globals + i + 1) * block});
    }
  }
}

}  // namespace

const PatternDefinitions& position_patterns() {
  static const PatternDefinitions kDefinitions{
      {"window", {{"window", 4096}}, window},
      {"block-diagonal", {{"block", 512}}, block_diagonal},
      {"strided", {{"stride", 128}}, strided},
      {"fixed", {{"stride", 128}, {"summary", 32, 1, kMaxLength, "stride"}}, fixed},
      {"log-sparse", {}, log_sparse},
      {"longformer", {{"window", 512}, {"stride", 1}, {"globals", 1, 0}}, longformer},
      {"bigbird",
       {{"block", 64},
        {"globals", 2, 0},
        {"window", 3},
        {"random", 3, 0},
        {"seed", 1, 0, INT64_MAX}},
       bigbird},
  };
  return kDefinitions;
}

}  // namespace multistep
