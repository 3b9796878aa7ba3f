#pragma once

#include <string>
#include <vector>

#include "bench/gpu_shape.hpp"

/// The calls around a base shape that differ from it in one thing.
namespace multistep::program {

struct SweepPoint {
  std::string config;
  Schedule schedule;
  GpuShape shape;
  bool lse = false;          // the log-sum-exps are wanted beside the output
  bool interleaved = false;  // keys and values are [B, L, H, D]
};

/// Calls that differ in one thing, neighbours in order.
struct SweepAxis {
  std::string config;
  std::string name;
  std::string phase;  // decode or prefill; empty: the axis is that of the queries
  Index length = 0;   // keys; 0: the axis is that of the keys
  std::vector<std::string> values;
  std::vector<std::size_t> points;  // [values] of Sweep::points
};

/// Where the axes cross.
struct SweepBases {
  std::vector<Index> lengths;
  std::vector<std::string> phases;  // decode (one query), prefill (a chunk at the end)
  Index chunk = 0;                  // queries of prefill, of shorter contexts all
};

struct Sweep {
  std::vector<SweepPoint> points;  // each once, however many axes it is on
  std::vector<SweepAxis> axes;

  /// The axes of a schedule; length and queries of `base` are those of the bases.
  void add(const SweepPoint& base, const SweepBases& bases);
};

}  // namespace multistep::program
