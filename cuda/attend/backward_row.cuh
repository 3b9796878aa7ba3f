#pragma once

#include "api/stages_backward.cuh"
#include "attend/attend_row.cuh"
#include "group/tile_rows.cuh"

/// Gradients of one item's row, or of one key, by one warp: the plain form, and what the fast
/// kernels turn to for what a tile-mate's NaN or infinity has spoiled. Lane l holds values l, l +
/// 32, ... of head_dim.
namespace multistep::cuda {

using LaneValues = float[kLaneValues];

template <class T>
__device__ void load_lanes(LaneValues& lanes, const T* row, int head_dim) {
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int d = static_cast<int>(threadIdx.x % 32) + 32 * i;
    lanes[i] = d < head_dim ? to_float(row[d]) : 0;
  }
}

template <class T>
__device__ float lanes_dot(const LaneValues& lanes, const T* row, int head_dim) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int d = static_cast<int>(threadIdx.x % 32) + 32 * i;
    if (d < head_dim) sum = fmaf(lanes[i], to_float(row[d]), sum);
  }
  return warp_sum(sum);
}

template <class T>
__device__ void lanes_add(LaneValues& lanes, float weight, const T* row, int head_dim) {
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int d = static_cast<int>(threadIdx.x % 32) + 32 * i;
    if (d < head_dim) lanes[i] = fmaf(weight, to_float(row[d]), lanes[i]);
  }
}

/// A weight's derivatives: by the value's product, P share, and by the logit.
struct WeightGradient {
  float weight;
  float logit;
};
__device__ inline WeightGradient weight_gradient(const ItemWeight& item, float logit_log2,
                                                 float by_weight) {
  const float weight = ptx::exp2(logit_log2 - item.lse_log2);
  return {weight * item.share, weight * fmaf(item.share, by_weight, -item.mean)};
}

/// What the kernels of the backward pass need of a problem.
template <class TileRows>
struct BackwardRows : TileRows {
  ItemGradients gradients;

  BackwardRows(const TileRows& rows, const ItemGradients& of_items)
      : TileRows(rows), gradients(of_items) {}

  template <class T>
  __device__ const T* query_row(std::int64_t index) const {
    return static_cast<const T*>(this->query.data) + this->rows.query_offset(this->query, index);
  }
  /// Where a row's dO is.
  __device__ std::int64_t gradient_row(const TileRow& row) const {
    return gradients.of_items ? row.item : row.index;
  }
};

/// The derivative by the query of one item, not yet scaled.
template <class T, class TileRows>
__device__ void query_gradient(const BackwardRows<TileRows>& args, const TileRow& row,
                               std::int64_t kv_head, LaneValues& sum) {
  const int d = args.rows.head_dim;
  const auto key = args.rows.template kv_rows<T>(args.key, static_cast<std::int32_t>(kv_head));
  const auto value = args.rows.template kv_rows<T>(args.value, static_cast<std::int32_t>(kv_head));
  const ItemWeight item = args.gradients.weights[row.item];
  LaneValues query;
  LaneValues by_output;
  load_lanes(query, args.template query_row<T>(row.index), d);
  load_lanes(by_output,
             static_cast<const T*>(args.gradients.output_gradient) + args.gradient_row(row) * d, d);
#pragma unroll
  for (float& x : sum) x = 0;
  for (std::int64_t j = row.keys.begin; j < row.keys.end; ++j) {
    const float logit = args.scale * lanes_dot(query, key[j], d) * kLog2E;
    const float by_weight = lanes_dot(by_output, value[j], d);
    lanes_add(sum, weight_gradient(item, logit, by_weight).logit, key[j], d);
  }
}

/// Where the derivative by the query of one item goes: a part of a row's, or with all parts the
/// row's.
template <class T, class TileRows>
__device__ void store_query_gradient(const BackwardRows<TileRows>& args, const TileRow& row,
                                     const LaneValues& sum) {
  const int d = args.rows.head_dim;
  const int slots = args.gradients.part_slots;
  const float* const parts = args.gradients.query_parts + row.item * slots * d;
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int at = static_cast<int>(threadIdx.x % 32) + 32 * i;
    if (at >= d) continue;
    float value = args.scale * sum[i];
    if (args.spans) {
      args.gradients.query_parts[row.item * d + at] = value;
      continue;
    }
    for (int s = 0; s < slots; ++s) value += parts[s * d + at];
    static_cast<T*>(args.gradients.query_gradient)[row.index * d + at] = from_float<T>(value);
  }
}

/// The derivatives by one key and its value, the key's not yet scaled.
struct KeyGradient {
  LaneValues key = {};
  LaneValues value = {};

  /// Adds rows [begin, end) of a KV head, those that look at key j.
  template <class T, class TileRows>
  __device__ void add_rows(const BackwardRows<TileRows>& args, std::int64_t kv_head, std::int64_t j,
                           std::int64_t begin, std::int64_t end) {
    const int d = args.rows.head_dim;
    const T* const by_outputs = static_cast<const T*>(args.gradients.output_gradient);
    LaneValues k;
    LaneValues v;
    const auto head = static_cast<std::int32_t>(kv_head);
    load_lanes(k, args.rows.template kv_rows<T>(args.key, head)[j], d);
    load_lanes(v, args.rows.template kv_rows<T>(args.value, head)[j], d);
    for (std::int64_t i = begin; i < end; i += 32) {
      const std::int64_t mine = i + threadIdx.x % 32;
      const TileRow row = mine < end ? args.row(static_cast<int>(kv_head), mine) : TileRow{};
      unsigned todo =
          __ballot_sync(kFullWarp, row.index >= 0 && j >= row.keys.begin && j < row.keys.end);
      while (todo) {
        const int source = __ffs(static_cast<int>(todo)) - 1;
        todo &= todo - 1;
        const TileRow one{__shfl_sync(kFullWarp, row.index, source),
                          __shfl_sync(kFullWarp, row.item, source),
                          {}};
        const T* const query = args.template query_row<T>(one.index);
        const T* const by_output = by_outputs + args.gradient_row(one) * d;
        const float logit = args.scale * lanes_dot(k, query, d) * kLog2E;
        const float by_weight = lanes_dot(v, by_output, d);
        const WeightGradient by =
            weight_gradient(args.gradients.weights[one.item], logit, by_weight);
        lanes_add(key, by.logit, query, d);
        lanes_add(value, by.weight, by_output, d);
      }
    }
  }

  /// Columns [begin, end) to rows of head_dim values: adds to what is there, or not.
  __device__ void store(float scale, float* to_key, float* to_value, int begin, int end, bool add) {
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      const int d = static_cast<int>(threadIdx.x % 32) + 32 * i;
      if (d < begin || d >= end) continue;
      to_key[d] = fmaf(scale, key[i], add ? to_key[d] : 0);
      to_value[d] = value[i] + (add ? to_value[d] : 0);
    }
  }
};

}  // namespace multistep::cuda
