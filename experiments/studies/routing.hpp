#pragma once

#include <cstdint>

#include "multistep/work.hpp"

/// Can a search find one planted key? A model of routing alone: no model is run, no key has values.
///
/// The query stands at the end of n keys. A candidate's score is 1 if its span holds the needle and
/// 0 otherwise - what routing is trained towards, an anchor's key standing for its span - plus
/// `noise` times a standard normal draw of its own; without noise, equal scores are ranked by lot.
/// The needle is found if one of the top_k final spans kept, or the window, holds it.
namespace multistep::program {

struct Hunt {
  bool found = false;
  WorkCount work;
  Index mean_span = 0;  // mean length of the final spans kept, rounded up
};

/// The schedule's own search. `needle` is a key in [0, query].
Hunt hunt(const StripePlan& plan, Index query, Index needle, double noise, std::uint64_t seed);

/// As many anchors as `like` scored, each at the begin of a span of like.mean_span keys that lies
/// anywhere before the window with equal chance; the top_k best spans are kept.
Hunt hunt_at_random(const StripePlan& plan, Index query, Index needle, double noise,
                    std::uint64_t seed, const Hunt& like);

/// The keys before the window in blocks of like.mean_span, counted from the newest. As many blocks
/// as `like` scored anchors are scored, the newest ones, or all there are; the top_k best are kept.
Hunt hunt_in_blocks(const StripePlan& plan, Index query, Index needle, double noise,
                    std::uint64_t seed, const Hunt& like);

}  // namespace multistep::program
