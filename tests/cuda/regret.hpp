#pragma once

#include <algorithm>

#include "judge.hpp"
#include "multistep/walk.hpp"

/// Searches whose scores are rounded: near-ties may go either way, so the paths kept are judged by
/// their scores (SPEC 8).
namespace gpu {

struct Candidate {
  double score = 0;  // path score in double
  double bound = 0;  // how far a float32 sum may be from it
  Index anchor = 0;
  Index parent = 0;
  Span span;
  bool taken = false;
};

/// score(level m, anchor) for a row, and the bound (head_dim + 8) 2^-23 sum |q_i k_i| on its
/// rounding: head_dim products and sums of half an ulp each, in any order, and twice that.
inline Candidate scored(const Problem& problem, Index m, Index row, Index anchor) {
  const Index d = problem.sizes.head_dim;
  const float* query = problem.routing[at(m - 1)].data() + row * d;
  const float* key = problem.searched().data() + problem.kv_row(row, anchor) * d;
  Candidate result;
  result.anchor = anchor;
  double sum = 0;
  for (Index i = 0; i < d; ++i) {
    const double product = static_cast<double>(query[i]) * static_cast<double>(key[i]);
    result.score += product;
    sum += std::abs(product);
  }
  result.score *= problem.search_scale;
  result.bound = static_cast<double>(d + 8) * 0x1p-23 * std::abs(problem.search_scale) * sum;
  return result;
}

/// What level m offers to a row inside the kept spans `parents` of the level above (null at level
/// 1).
inline std::vector<Candidate> offered(const Problem& problem, Index m, Index row,
                                      const Paths* parents) {
  std::vector<Candidate> result;
  const Index top_k = problem.plan.schedule().top_k;
  for (Index rank = 0; rank < (parents ? top_k : 1); ++rank) {
    Span segment =
        problem.plan.searched(problem.position_of(row), problem.start_of(problem.batch_of(row)));
    double parent_score = 0;
    if (parents) {
      const DeviceSpan span = parents->spans[at(row * top_k + rank)];
      segment = {span.begin, span.end};
      parent_score = static_cast<double>(parents->scores[at(row * top_k + rank)]);
    }
    if (segment.empty()) continue;
    for (const multistep::Choice choice : multistep::Choices(problem.plan, m, segment)) {
      Candidate candidate = scored(problem, m, row, choice.key);
      candidate.score += parent_score;
      candidate.bound += 0x1p-23 * std::abs(candidate.score);
      candidate.parent = rank;
      candidate.span = choice.span;
      result.push_back(candidate);
    }
  }
  return result;
}

/// One level's paths inside those that the level above kept: real candidates, none twice, their
/// spans exact, their scores within the rounding bound, best first; as many as there can be; and
/// the worst of them no worse than the best top_k allow for. One candidate passes over another only
/// where their scores differ by no more than both bounds.
inline std::string judge_level(const Problem& problem, Index m, const Paths& got,
                               const Paths* parents) {
  std::ostringstream text;
  const Index top_k = got.top_k;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    std::vector<Candidate> candidates = offered(problem, m, row, parents);
    const Index kept = std::min<Index>(top_k, static_cast<Index>(candidates.size()));
    double worst = inputs::kInfinity;
    for (Index rank = 0; rank < top_k; ++rank) {
      const std::size_t slot = at(row * top_k + rank);
      const DeviceSpan span = got.spans[slot];
      const float score = got.scores[slot];
      const Index anchor = got.anchors[slot];
      text << "row " << row << " rank " << rank << " anchor " << anchor << ": ";
      if (rank >= kept) {
        if (span.begin == 0 && span.end == 0 && anchor == -1 && std::isinf(score) && score < 0) {
          text.str("");
          continue;
        }
        text << "more paths than " << kept;
        return text.str();
      }
      const auto found =
          std::find_if(candidates.begin(), candidates.end(), [&](const Candidate& candidate) {
            return candidate.anchor == anchor &&
                   (!parents || candidate.parent == got.parent_ranks[slot]);
          });
      if (found == candidates.end()) return text.str() + "not offered";
      if (std::exchange(found->taken, true)) return text.str() + "kept twice";
      if (!(found->span == Span{span.begin, span.end})) return text.str() + "another span";
      if (!(std::abs(static_cast<double>(score) - found->score) <= found->bound)) {
        text << "score " << score << " for " << found->score << " +- " << found->bound;
        return text.str();
      }
      if (rank > 0 && !(score <= got.scores[slot - 1])) return text.str() + "better than before";
      worst = std::min(worst, found->score);
      text.str("");
    }
    if (kept == 0) continue;
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    double bound = 0;
    for (const Candidate& candidate : candidates) bound = std::max(bound, candidate.bound);
    const double regret = candidates[at(kept - 1)].score - worst;
    if (regret <= 2 * bound) continue;
    text << "row " << row << ": regret " << regret << " > " << 2 * bound;
    return text.str();
  }
  return "";
}

/// Every path of a search of all levels exists, its final span is exact, its score within the
/// rounding bound; no path twice.
inline std::string judge_paths(const Problem& problem, const Paths& got) {
  std::ostringstream text;
  const Index levels = problem.plan.steps() - 1;
  for (std::size_t slot = 0; slot < got.spans.size(); ++slot) {
    const auto path = got.anchors.begin() + static_cast<std::ptrdiff_t>(slot) * levels;
    if (path[0] < 0) continue;
    const Index row = static_cast<Index>(slot) / got.top_k;
    text.str("");
    text << "row " << row << " rank " << static_cast<Index>(slot) % got.top_k << ": ";
    Candidate whole;
    whole.span =
        problem.plan.searched(problem.position_of(row), problem.start_of(problem.batch_of(row)));
    for (Index m = 1; m <= levels; ++m) {
      const auto choice = multistep::Choices(problem.plan, m, whole.span).at_key(path[m - 1]);
      if (!choice) return text.str() + "no such path";
      const Candidate step = scored(problem, m, row, path[m - 1]);
      whole.score += step.score;
      whole.bound += step.bound + 0x1p-23 * std::abs(whole.score);
      whole.span = choice->span;
    }
    const DeviceSpan span = got.spans[slot];
    if (!(whole.span == Span{span.begin, span.end})) return text.str() + "another span";
    if (!(std::abs(static_cast<double>(got.scores[slot]) - whole.score) <= whole.bound)) {
      return text.str() + "another score";
    }
    for (std::size_t other = slot - slot % at(got.top_k); other < slot; ++other) {
      const auto before = got.anchors.begin() + static_cast<std::ptrdiff_t>(other) * levels;
      if (std::equal(path, path + levels, before)) return text.str() + "kept twice";
    }
  }
  return "";
}

}  // namespace gpu
