#include <bit>

#include "patterns/definitions.hpp"

/// Patterns in which content chooses: the candidates are everything that it could choose, which a
/// trained router need not find.
namespace multistep {
namespace {

constexpr Index kMany = 10'000;  // of what is counted and never stored

/// Yuan et al., "Native Sparse Attention", arXiv 2502.11089, section 3.3: keys of compressed blocks
/// of `summary` keys, one every `stride`; the `top-k` blocks of `block` keys that the scores of
/// the compressed ones choose, the first and the last two always among them; and a window. Three
/// softmaxes, so that a key in two branches is counted twice; the compressed keys are attended to,
/// and their scores choose at no further cost. A compressed block is there once its last key is,
/// that of the query included (equation 7). The numbers are those of section 4.1.
void nsa(const Parameters& p, RowBuilder& row) {
  const Index stride = p["stride"];
  const Index summary = p["summary"];
  const Index first = row.start < summary ? 0 : (row.start - summary) / stride + 1;
  for (Index begin = first * stride; begin + summary <= row.query + 1; begin += stride) {
    row.average({begin, begin + summary});
  }
  row.offer_all();
  const Index block = p["block"];
  const Index own = row.query - row.query % block;
  const Index first_end = row.start - row.start % block + block;
  if (own < first_end) {
    row.count_attended(row.eligible());
  } else {  // two of the blocks may be cut, and these two are always taken
    const Index between = own - first_end;
    row.count_attended(row.eligible() - between);
    row.count_attended(p["top-k"] - 2, block, between);
  }
  row.count_attended(1, p["window"], row.eligible());
}

/// Lu et al., "MoBA: Mixture of Block Attention for Long-Context LLMs", arXiv 2502.13189, section
/// 2.2: the query's own block, and the `top-k` - 1 earlier ones whose mean key it likes best. 512
/// keys a block, the best 3, the own one among them (section 3.1).
void moba(const Parameters& p, RowBuilder& row) {
  const Index block = p["block"];
  const Index own = row.query - row.query % block;
  row.keep({own, row.query + 1});
  if (own <= row.start || p["top-k"] == 1) return;
  const Span earlier{row.start, own};
  row.offer(earlier);
  row.count_scored(own / block - row.start / block);
  row.count_attended(p["top-k"] - 1, block, earlier.length());
}

/// DeepSeek-AI, "DeepSeek-V3.2", arXiv 2512.02556, section 2.1: an index scores every key, and the
/// best `top-k` are attended to. 2048 of them (index_topk of deepseek-ai/DeepSeek-V3.2-Exp).
void dsa(const Parameters& p, RowBuilder& row) {
  row.offer_all();
  row.count_scored(row.eligible());
  row.count_attended(p["top-k"], 1, row.eligible());
}

/// Roy et al., "Efficient Content-Based Sparse Attention with Routing Transformers", arXiv
/// 2003.05997, section 4.1: each cluster takes the `window` queries and as many keys that are
/// nearest to its centroid, and its queries attend to its keys. Any two may share a cluster, though
/// a state of the centroids can leave some in none and others in several; one is counted. 16
/// clusters of 512 (pg19_local_cluster8k in routing_transformer/ of google-research/
/// google-research). Without the heads with windows.
void routing(const Parameters& p, RowBuilder& row) {
  row.offer_all();
  row.count_scored(p["clusters"]);
  row.count_attended(1, p["window"], row.eligible());
}

/// Kitaev, Kaiser and Levskaya, "Reformer", arXiv 2001.04451, section 2: keys of the query's own
/// hash bucket among its chunk, sorted by bucket, and the chunk before, in `random` rounds, each
/// of one projection to clusters / 2 numbers. Any two may share a bucket; the query's own key is
/// there where no other is. 512 buckets and chunks of 256 (reformer_enwik8.gin of google/trax, with
/// 2 rounds), 4 rounds (the released model of enwik8).
void reformer(const Parameters& p, RowBuilder& row) {
  row.offer_all();
  row.count_scored(p["random"] * (p["clusters"] / 2));
  for (Index round = 0; round < p["random"]; ++round) {
    row.count_attended(2, p["block"], row.eligible());
  }
}

/// Zeng et al., "ZETA", arXiv 2501.14577, section 3: the `top-k` keys next to the query in Z-order,
/// of the chunks before its own, found by bisection; and the mean of all keys so far. A step of the
/// bisection counts as one product. k = 32; the chunks' length is ours.
void zeta(const Parameters& p, RowBuilder& row) {
  const Span earlier{row.start, row.query - row.query % p["block"]};
  const Index keys = row.eligible(earlier);
  row.offer(earlier);
  row.average({row.start, row.query + 1});
  row.count_scored(std::bit_width(static_cast<std::uint64_t>(keys)));
  row.count_attended(p["top-k"], 1, keys);
}

/// Zhu et al., "BiFormer", arXiv 2303.08810, section 3.2: the keys of the `top-k` regions whose
/// mean key has the largest product with the mean query of the query's region. On images, 7 by 7
/// regions; 16 tokens a region and k = 4 are those of its second stage (models/biformer.py of
/// rayleizhu/BiFormer). The causal form is ours: regions are blocks of consecutive keys, none newer
/// than the query's, and each query routes by itself, as the mean of its region has queries to
/// come.
void biformer(const Parameters& p, RowBuilder& row) {
  const Index block = p["block"];
  row.offer_all();
  row.count_scored(row.query / block - row.start / block + 1);
  const Index own = row.query - row.query % block;
  const Index first_end = row.start - row.start % block + block;
  // Two of the regions may be cut: whole ones have the most keys.
  const Index whole = std::max<Index>(0, own - first_end) / block;
  const Index top_k = p["top-k"];
  if (own < first_end || top_k > whole + 1) {
    row.count_attended(row.eligible());
  } else {
    row.count_attended(top_k, block, whole * block);
    if (top_k > whole) {
      row.count_attended(std::max(first_end - row.start, row.query + 1 - own));
    }
  }
}

}  // namespace

const PatternDefinitions& routed_patterns() {
  static const PatternDefinitions kDefinitions{
      {"routing", {{"clusters", 16}, {"window", 512}}, routing},
      {"reformer",
       {{"block", 256}, {"clusters", 512, 2, kMany}, {"random", 4, 1, kMany}},
       reformer},
      // With four blocks one is left to choose beside the three that are always taken.
      {"nsa",
       {{"block", 64}, {"stride", 16}, {"summary", 32}, {"window", 512}, {"top-k", 16, 4}},
       nsa},
      {"moba", {{"block", 512}, {"top-k", 3}}, moba},
      {"dsa", {{"top-k", 2048}}, dsa},
      {"zeta", {{"block", 64}, {"top-k", 32}}, zeta},
      {"biformer", {{"block", 16}, {"top-k", 4}}, biformer},
  };
  return kDefinitions;
}

}  // namespace multistep
