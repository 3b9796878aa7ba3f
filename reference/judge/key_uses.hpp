#pragma once

#include <span>
#include <vector>

#include "multistep/attention.hpp"
#include "stages/shape.hpp"

/// Who looks at a key.
namespace multistep {

/// The items of a query: its spans in use without the window's keys, then the window.
std::vector<Span> row_items(const StripePlan& plan, const Rows& rows, const Selection& selection,
                            Index row);

/// How many items hold each key, and how many paths have it as an anchor.
struct KeyUses {
  std::vector<Index> items;    // [batch, num_kv_heads, L_kv]
  std::vector<Index> anchors;  // [batch, num_kv_heads, L_kv]
};
KeyUses key_uses(const Shape& shape, const StripePlan& plan, const Selection& selection);

/// All uses of some keys, in the order of rows.
struct ItemUse {
  Index row;
  Index item;  // of row_items()
};
struct AnchorUse {
  Index row;
  Index rank;
  Index level;  // [0, N - 1)
};
struct UsesOfKey {
  std::vector<ItemUse> items;
  std::vector<AnchorUse> anchors;
};
/// `keys`: ascending, of [batch, num_kv_heads, L_kv].
std::vector<UsesOfKey> uses_of(std::span<const Index> keys, const Shape& shape,
                               const StripePlan& plan, const Selection& selection);

}  // namespace multistep
