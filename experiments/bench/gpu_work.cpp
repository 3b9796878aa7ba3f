#include "bench/gpu_work.hpp"

#include <algorithm>

#include "multistep/attention.hpp"
#include "multistep/work.hpp"

namespace multistep::program {
namespace {

double real(Index count) { return static_cast<double>(count); }

/// Keys in the union of spans.
Index union_length(std::vector<Span> spans) {
  std::sort(spans.begin(), spans.end(), [](Span a, Span b) { return a.begin < b.begin; });
  Index reached = 0;
  Index length = 0;
  for (const Span& span : spans) {
    const Span rest{std::max(span.begin, reached), span.end};
    length += rest.length();
    reached = std::max(reached, span.end);
  }
  return length;
}

Index first_level(const StripePlan& plan, Index t, Index start) {
  if (plan.steps() == 1) return 0;
  return plan.cut(1, plan.searched(t, start)).count();
}

/// Anchors of the inner levels that a query scores, on average over seeded ones.
double inner_anchors(const GpuProblem& problem) {
  if (problem.levels() < 2) return 0;
  const std::vector<Index> rows = sample_rows(problem, 64);
  double sum = 0;
  for (const Index row : rows) {
    const Index t = problem.sizes().offset() + row % problem.sizes().queries;
    const auto work = random_routing_work(problem.plan(), t, static_cast<std::uint64_t>(row));
    sum += real(work.anchors_scored - first_level(problem.plan(), t, 0));
  }
  return sum / static_cast<double>(rows.size());
}

/// Keys that some query scores at level 1: those of every head.
Index searched_keys(const GpuProblem& problem) {
  const GpuShape& sizes = problem.sizes();
  const StripePlan& plan = problem.plan();
  if (plan.steps() == 1) return 0;
  std::vector<bool> is_searched(static_cast<std::size_t>(sizes.length));
  for (Index t = sizes.offset(); t < sizes.length; ++t) {
    const Segment segment = plan.searched(t, sizes.start);
    const Cut cut = plan.cut(1, segment);
    for (Index i = cut.first(); i <= cut.last(); ++i) {
      is_searched[static_cast<std::size_t>(segment.end - 1 - cut.anchor(i))] = true;
    }
  }
  return std::count(is_searched.begin(), is_searched.end(), true);
}

}  // namespace

GpuWork count_work(const GpuProblem& problem, const std::vector<cuda::DeviceSpan>& spans) {
  const GpuShape& sizes = problem.sizes();
  const StripePlan& plan = problem.plan();
  const Index first = sizes.length - sizes.queries;
  const Index slots = static_cast<Index>(spans.size()) / sizes.rows();
  const double inner = inner_anchors(problem);
  const double heads = real(sizes.batch * sizes.heads);
  GpuWork work;
  for (Index i = 0; i < sizes.queries; ++i) {
    const Index t = first + i;
    work.anchors += heads * (real(first_level(plan, t, sizes.start)) + inner);
    work.window_pairs += heads * real(plan.window(t, sizes.start).length());
    work.dense_pairs += heads * real(std::max<Index>(0, t + 1 - sizes.start));
  }
  for (std::size_t at = 0; at < spans.size(); ++at) {
    const Index t = first + static_cast<Index>(at) / slots % sizes.queries;
    const Span span{spans[at].begin, spans[at].end};
    work.span_pairs += real(outside_window(span, plan.window(t, sizes.start)).length());
  }
  return work;
}

double key_rows(const GpuProblem& problem, const std::vector<cuda::DeviceSpan>& spans) {
  const GpuShape& sizes = problem.sizes();
  const Index slots = static_cast<Index>(spans.size()) / sizes.rows();
  const Index of_group = sizes.group() * sizes.queries;  // rows
  const double searched = std::min(
      real(sizes.length), real(searched_keys(problem)) + inner_anchors(problem) * real(of_group));
  double rows = 0;
  for (Index first = 0; first < sizes.rows(); first += of_group) {
    std::vector<Span> read;
    for (Index t = sizes.offset(); t < sizes.length; ++t) {
      read.push_back(problem.plan().window(t, sizes.start));
    }
    for (Index slot = first * slots; slot < (first + of_group) * slots; ++slot) {
      const cuda::DeviceSpan& span = spans[static_cast<std::size_t>(slot)];
      read.push_back({span.begin, span.end});
    }
    rows += 2 * real(union_length(std::move(read))) + searched;
  }
  return rows;
}

}  // namespace multistep::program
