#pragma once

#include <optional>
#include <string>
#include <vector>

#include "multistep/cuda/types.hpp"

/// Which kernels a call of attention() runs, and why no faster ones. Nothing is launched, and a GPU
/// need not be there.
namespace multistep::cuda {

/// What the choice of kernels depends on of a GPU and of the code that it has loaded.
struct Chip {
  int multiprocessors = 132;
  bool hopper = true;  // code with the features of Hopper alone
  int cluster = 16;    // blocks of the largest cluster; 1: none
};

/// Of the current device.
Chip current_chip();

/// Of "h100" or "a100", or for "" of the current device, and of an H100 where none is usable.
/// Throws std::invalid_argument.
Chip chip_named(const std::string& name);

struct StagePlan {
  std::string stage;                 // search, attend, combine, backward
  std::vector<std::string> kernels;  // in the order of their launches
  bool fast = true;
  std::string why;  // no faster kernel takes the call, in one line; empty where it is fast
};

struct AttentionPlan {
  std::vector<StagePlan> stages;  // without search where N = 1
  Index queries_at_once = 0;      // of a chunk
  StagePlan backward;  // attention_backward(): its kernels that go over the keys of every item

  /// Forward.
  bool fast() const;
  std::string why() const;  // of the first stage that is not fast
};

/// For the rung `fast`; the pointers of the shape are looked at for null alone. Throws
/// std::invalid_argument for a shape that attention() refuses.
AttentionPlan plan_attention(const Shape& shape, const StripePlan& plan, const Chip& chip,
                             std::optional<double> softmax_scale = {});

/// What a call has to do where scores are drawn at random.
struct ExpectedWork {
  double anchors_scored = 0;  // of the mean row
  double keys_attended = 0;   // of the mean row
  double products = 0;        // multiplications and additions of pairs of values, of all rows
  double bytes = 0;  // the keys and values that rows choose, or the whole cache where that is less;
                     // and queries, routing queries and outputs
};

/// From up to 16 queries, evenly spread.
ExpectedWork expected_work(const Shape& shape, const StripePlan& plan);

}  // namespace multistep::cuda
