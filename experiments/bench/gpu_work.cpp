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

/// Rows of keys and values that one decoded query has to read, once for each group of heads.
double key_rows(const GpuProblem& problem, const std::vector<cuda::DeviceSpan>& spans,
                double inner) {
  const GpuShape& sizes = problem.sizes();
  const Index t = sizes.length - 1;
  const Index slots = static_cast<Index>(spans.size()) / (sizes.batch * sizes.heads);
  double rows = 0;
  for (Index head = 0; head < sizes.batch * sizes.heads; head += sizes.group()) {
    std::vector<Span> read{problem.plan().window(t, sizes.start)};
    for (Index slot = head * slots; slot < (head + sizes.group()) * slots; ++slot) {
      const cuda::DeviceSpan& span = spans[static_cast<std::size_t>(slot)];
      read.push_back({span.begin, span.end});
    }
    rows += 2 * real(union_length(read)) + real(first_level(problem.plan(), t, sizes.start)) +
            inner * real(sizes.group());
  }
  return rows;
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
  if (sizes.queries == 1) work.key_rows = key_rows(problem, spans, inner);
  return work;
}

}  // namespace multistep::program
