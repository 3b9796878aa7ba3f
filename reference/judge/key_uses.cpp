#include "judge/key_uses.hpp"

#include <algorithm>
#include <set>

#include "multistep/judge_gradients.hpp"
#include "stages/stage_gradients.hpp"
#include "support/random.hpp"

namespace multistep {
namespace {

/// Calls item(row, number, span) and anchor(row, rank, level, key) for all that queries look at;
/// spans and keys of [batch, num_kv_heads, L_kv].
template <class OfItem, class OfAnchor>
void for_each_use(const Shape& shape, const StripePlan& plan, const Selection& selection,
                  OfItem&& item, OfAnchor&& anchor) {
  const Rows rows(shape);
  for (Index row = 0; row < rows.count(); ++row) {
    const Index first = rows.kv_row(row, 0);
    const std::vector<Span> items = row_items(plan, rows, selection, row);
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (items[i].empty()) continue;
      item(row, static_cast<Index>(i), Span{first + items[i].begin, first + items[i].end});
    }
    const Index levels = selection.levels;
    const Index* keys = selection.anchors.data() + row * selection.top_k * levels;
    for (Index i = 0; i < selection.count[at(row)] * levels; ++i) {
      anchor(row, i / levels, i % levels, first + keys[i]);
    }
  }
}

/// Where the first of the largest of [begin, end) stands.
Index largest(const std::vector<Index>& values, Index begin, Index end) {
  return std::max_element(values.begin() + begin, values.begin() + end) - values.begin();
}

/// Keys of one KV head beside tiles and the edge of the newest query's window.
std::vector<Index> edge_keys(const Shape& shape, const StripePlan& plan) {
  std::vector<Index> edges;
  const Index past = std::min(shape.keys, longest(shape));
  if (past < 1) return edges;
  const Index window = plan.window(past - 1, 0).begin;
  for (const Index edge : {window, Index{64}, Index{128}, past / 64 * 64, past / 128 * 128}) {
    for (const Index key : {edge - 1, edge}) {
      if (key >= 0 && key < shape.keys) edges.push_back(key);
    }
  }
  return edges;
}

}  // namespace

std::vector<Span> row_items(const StripePlan& plan, const Rows& rows, const Selection& selection,
                            Index row) {
  const Span window = plan.window(rows.position(row), rows.start(row));
  std::vector<Span> items;
  for (Index s = 0; s < selection.count[at(row)]; ++s) {
    items.push_back(outside_window(selection.spans[at(row * selection.top_k + s)], window));
  }
  items.push_back(window);
  return items;
}

KeyUses key_uses(const Shape& shape, const StripePlan& plan, const Selection& selection) {
  const Index total = shape.batch * shape.num_kv_heads * shape.keys;
  KeyUses uses{std::vector<Index>(at(total + 1), 0), std::vector<Index>(at(total), 0)};
  for_each_use(
      shape, plan, selection,
      [&](Index, Index, Span keys) {
        ++uses.items[at(keys.begin)];
        --uses.items[at(keys.end)];
      },
      [&](Index, Index, Index, Index key) { ++uses.anchors[at(key)]; });
  for (Index key = 1; key <= total; ++key) uses.items[at(key)] += uses.items[at(key - 1)];
  uses.items.pop_back();
  return uses;
}

std::vector<UsesOfKey> uses_of(std::span<const Index> keys, const Shape& shape,
                               const StripePlan& plan, const Selection& selection) {
  std::vector<UsesOfKey> uses(keys.size());
  const auto first_from = [&](Index key) {
    return static_cast<std::size_t>(std::lower_bound(keys.begin(), keys.end(), key) - keys.begin());
  };
  for_each_use(
      shape, plan, selection,
      [&](Index row, Index item, Span span) {
        for (std::size_t s = first_from(span.begin); s < keys.size() && keys[s] < span.end; ++s) {
          uses[s].items.push_back({row, item});
        }
      },
      [&](Index row, Index rank, Index level, Index key) {
        const std::size_t s = first_from(key);
        if (s < keys.size() && keys[s] == key) uses[s].anchors.push_back({row, rank, level});
      });
  return uses;
}

std::vector<Index> sample_keys(const Shape& shape, const StripePlan& plan,
                               const Selection& selection, Index count, std::uint64_t seed) {
  require(count >= 1, "keys {}: an integer >= 1", count);
  const Rows rows(shape);
  require_plan(&plan, shape);
  require_given(rows, selection, plan.steps() - 1);
  const Index heads = shape.batch * shape.num_kv_heads;
  const Index total = heads * shape.keys;
  std::vector<Index> all;
  if (total <= count) {
    for (Index key = 0; key < total; ++key) all.push_back(key);
    return all;
  }
  const Index head_rows = shape.num_heads / shape.num_kv_heads * shape.queries;
  const KeyUses uses = key_uses(shape, plan, selection);
  std::set<Index> keys;
  const auto insert = [&](Index key) {
    if (std::ssize(keys) < count) keys.insert(key);
  };
  for (Index head = 0; head < heads; ++head) {
    const Index begin = head * shape.keys, end = begin + shape.keys;
    const Index last = shape.queries > 0 ? rows.position((head + 1) * head_rows - 1) : -1;
    if (last >= 0) insert(begin + last);
    insert(largest(uses.items, begin, end));
    insert(largest(uses.anchors, begin, end));
    const Index start = shape.start ? shape.start[head / shape.num_kv_heads] : 0;
    insert(begin + std::min(start, shape.keys - 1));
    const auto unseen = std::find(uses.items.begin() + begin, uses.items.begin() + end, 0);
    if (unseen < uses.items.begin() + end) insert(unseen - uses.items.begin());
  }
  Index head = 0;
  for (const Index key : edge_keys(shape, plan)) {
    if (2 * std::ssize(keys) >= count) break;
    keys.insert(head * shape.keys + key);
    head = (head + 1) % heads;
  }
  while (std::ssize(keys) < count) {
    keys.insert(static_cast<Index>(next_random(seed) % static_cast<std::uint64_t>(total)));
  }
  return {keys.begin(), keys.end()};
}

}  // namespace multistep
