#include "patterns/definitions.hpp"

/// Patterns that have many keys only as averages, whose parts content cannot tell apart.
namespace multistep {
namespace {

/// Ren et al., "Combiner: Full Attention Transformer with Sparse Computation Cost", arXiv
/// 2107.05768, section 4.1, Combiner-Fixed: the keys of the query's own block, and each earlier
/// block as one local expectation, an average whose weights no query after it can change: they are
/// those of one query pooled from the block's own. 128 keys a block in the authors' language model
/// (SqrtFixedFullLM in combiner/ of google-research/google-research).
void combiner_fixed(const Parameters& p, RowBuilder& row) {
  const Index block = p["block"];
  const Index own = row.query - row.query % block;
  row.keep({own, row.query + 1});
  for (Index begin = row.start - row.start % block; begin < own; begin += block) {
    row.average({begin, begin + block});
  }
}

/// Guo et al., "Log-Linear Attention", arXiv 2506.04761, section 3.1: the query's own key, and for
/// each bit of t one bucket of a Fenwick tree, the newest first, each a state with one weight for
/// all of its keys (a bucket of one key too). A state counts as one.
void log_linear(const Parameters&, RowBuilder& row) {
  row.average({row.query, row.query + 1});
  for (Index end = row.query; end > 0; end &= end - 1) row.average({end & (end - 1), end});
}

/// Katharopoulos et al., "Transformers are RNNs", arXiv 2006.16236, section 3.3: all keys in one
/// state, which counts as one.
void linear(const Parameters&, RowBuilder& row) { row.average({row.start, row.query + 1}); }

}  // namespace

const PatternDefinitions& averaging_patterns() {
  static const PatternDefinitions kDefinitions{
      {"combiner-fixed", {{"block", 128}}, combiner_fixed},
      {"log-linear", {}, log_linear},
      {"linear", {}, linear},
  };
  return kDefinitions;
}

}  // namespace multistep
