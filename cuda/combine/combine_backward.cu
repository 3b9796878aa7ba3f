#include "api/check.cuh"
#include "api/stages_backward.cuh"
#include "attend/attend_row.cuh"

/// Gates and joins, backwards (SPEC 6): a thread a query row. Of a row with gates g_s, joints J_s =
/// a_s O_s + w_s O_w and delta_s = <dO, J_s>: d score_s = g_s (delta_s - sum of g delta).
namespace multistep::cuda {
namespace {

constexpr int kThreads = 128;

/// Windows that weigh less among a row's items are below the rounding of what they would be found
/// from, and a division by so little is infinite.
constexpr float kNoShare = 0x1p-40f;

/// What 0 counts may hold anything.
__device__ float counted(float share, float value) { return share == 0 ? 0 : share * value; }

/// exp(logit - lse) with this is 0 where nothing weighs, never exp(inf - inf).
__device__ ItemWeight item_weight(float lse, float share, float mean) {
  return {lse == -kInfinity ? kInfinity : lse * kLog2E, share, mean, 0};
}

/// One row of a CombineGradients.
struct RowGradients {
  const CombineGradients& args;
  std::int64_t given;  // its first slot in the caller's arrays
  std::int64_t first;  // in the chunk's
  ItemDot window;

  /// A slot's share in its joint with the window, and delta.
  struct Slot {
    Joined joined;
    float delta;
  };
  __device__ Slot slot(int s) const {
    const ItemDot span = args.span_dots[first + s];
    Joined joined = join(span.lse, window.lse);
    if (faulty(args.rows.fault, Fault::window_lse_ignored)) joined = {0.5f, 0.5f, joined.lse};
    return {joined, counted(joined.first, span.dot) + counted(joined.second, window.dot)};
  }
};

__global__ void prepare(CombineGradients args) {
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (r >= args.rows.total()) return;
  const Rows::Row at = args.rows.at(r);
  RowGradients row{args, at.index * args.slots, r * args.slots,
                   args.window_dots ? args.window_dots[r] : ItemDot{-kInfinity, 0}};
  const int used = args.slots == 0 ? 0 : slots_in_use(args.spans + row.given, args.slots);
  const Gates gates = gates_of(args.scores + row.given, used);
  const auto gate_of = [&](int s) {
    const bool equal = faulty(args.rows.fault, Fault::gates_equal);
    return equal ? 1.0f / static_cast<float>(used) : gates.of(args.scores[row.given + s]);
  };
  if (args.of_outputs) {
    // Of <dO, output> = sum of g (a <dO, O_s> + w <dO, O_w>) the windows' part is left.
    const float of_output = row.window.dot;
    row.window.dot = 0;
    float of_spans = 0;
    float share = used == 0 ? 1 : 0;
    for (int s = 0; s < used; ++s) {
      const RowGradients::Slot slot = row.slot(s);
      of_spans = fmaf(gate_of(s), slot.delta, of_spans);
      share = fmaf(gate_of(s), slot.joined.second, share);
    }
    const bool divides = faulty(args.rows.fault, Fault::little_share_divides) && share > 0;
    row.window.dot = share < kNoShare && !divides ? 0 : (of_output - of_spans) / share;
  }
  float mean = 0;
  for (int s = 0; s < used; ++s) mean = fmaf(gate_of(s), row.slot(s).delta, mean);

  float window_share = used == 0 ? 1 : 0;
  float window_mean = used == 0 ? row.window.dot : 0;
  for (int s = 0; s < args.slots; ++s) {
    const std::int64_t given = row.given + s;
    float by_score = 0;
    ItemWeight weight = item_weight(-kInfinity, 0, 0);
    if (s < used) {
      const RowGradients::Slot slot = row.slot(s);
      float delta = slot.delta;
      if (faulty(args.rows.fault, Fault::stale_delta)) delta = row.slot(0).delta;
      const float gate = gate_of(s);
      const float share = gate * slot.joined.first;
      const float of_window = gate * slot.joined.second;
      const float by_lse = args.given_by_span_lse ? args.given_by_span_lse[given] : 0;
      by_score = gate * (slot.delta - mean);
      if (faulty(args.rows.fault, Fault::score_gradient_lost)) by_score = 0;
      if (args.given_by_score) by_score += args.given_by_score[given];
      weight =
          item_weight(args.span_dots[row.first + s].lse, share, counted(share, delta) - by_lse);
      window_share += of_window;
      window_mean += counted(of_window, delta);
    }
    args.by_score[row.first + s] = by_score;
    args.span_weights[row.first + s] = weight;
  }
  if (!args.window_dots) return;
  if (args.given_by_window_lse) window_mean -= args.given_by_window_lse[at.index];
  if (faulty(args.rows.fault, Fault::window_every_slot)) window_share *= static_cast<float>(used);
  args.window_weights[r] = item_weight(row.window.lse, window_share, window_mean);
}

/// A warp a row.
template <class T>
__global__ void dot_rows(Rows rows, const T* output, const T* output_gradient,
                         const float* window_lse, ItemDot* dots) {
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (r >= rows.total()) return;
  const std::int64_t index = rows.at(r).index;
  const int d = rows.head_dim;
  const T* const left = output + index * d;
  const T* const right = output_gradient + index * d;
  float sum = 0;
  if (d % 4 == 0) {
    for (int i = 4 * static_cast<int>(threadIdx.x % 32); i < d; i += 128) {
      const uint2 a = __ldcs(reinterpret_cast<const uint2*>(left + i));
      const uint2 b = __ldg(reinterpret_cast<const uint2*>(right + i));
      const float2 products[2][2] = {{unpack<T>(a.x), unpack<T>(b.x)},
                                     {unpack<T>(a.y), unpack<T>(b.y)}};
      for (const auto& pair : products) {
        sum = fmaf(pair[0].x, pair[1].x, fmaf(pair[0].y, pair[1].y, sum));
      }
    }
  } else {
    for (int i = static_cast<int>(threadIdx.x % 32); i < d; i += 32) {
      sum = fmaf(to_float(left[i]), to_float(right[i]), sum);
    }
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) dots[r] = {window_lse[index], sum};
}

__global__ void weigh(std::int64_t count, const ItemDot* dots, const float* lse_gradient,
                      ItemWeight* weights) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const float by_lse = lse_gradient ? lse_gradient[i] : 0;
  weights[i] = item_weight(dots[i].lse, 1, dots[i].dot - by_lse);
}

/// combine_backward(): a warp a row.
template <class T>
__global__ void combine_rows_backward(CombineBackwardArgs args, Rows rows) {
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (r >= rows.total()) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int d = rows.head_dim;
  const auto slots = static_cast<int>(args.slots);
  const std::int64_t first = r * slots;
  const T* const by_output = static_cast<const T*>(args.output_gradient) + r * d;
  const auto dot = [&](const void* output, std::int64_t at) {
    const T* const values = static_cast<const T*>(output) + at * d;
    float sum = 0;
    for (int i = lane; i < d; i += 32) {
      sum = fmaf(to_float(by_output[i]), to_float(values[i]), sum);
    }
    return warp_sum(sum);
  };
  const auto store = [&](void* gradient, std::int64_t at, float share) {
    T* const values = static_cast<T*>(gradient) + at * d;
    for (int i = lane; gradient && i < d; i += 32) {
      values[i] = from_float<T>(counted(share, to_float(by_output[i])));
    }
  };
  const auto put = [&](float* gradient, std::int64_t at, float value) {
    if (gradient && lane == 0) gradient[at] = value;
  };

  const int used = slots == 0 ? 0 : slots_in_use(args.spans + first, slots);
  const Gates gates = gates_of(args.scores + first, used);
  const float window_lse = args.window_lse ? args.window_lse[r] : -kInfinity;
  const float of_window = window_lse == -kInfinity ? 0 : dot(args.window_output, r);
  struct Slot {
    float gate, delta, dot;
    Joined joined;
  };
  const auto slot_of = [&](int s) -> Slot {
    const Joined joined = join(args.span_lses[first + s], window_lse);
    const float of_span = joined.first == 0 ? 0 : dot(args.span_outputs, first + s);
    return {gates.of(args.scores[first + s]),
            counted(joined.first, of_span) + counted(joined.second, of_window), of_span, joined};
  };
  float mean = 0;
  for (int s = 0; s < used; ++s) {
    const Slot slot = slot_of(s);
    mean = fmaf(slot.gate, slot.delta, mean);
  }
  float window_share = used == 0 ? 1 : 0;
  float window_by_lse = 0;
  for (int s = 0; s < slots; ++s) {
    const Slot slot = s < used ? slot_of(s) : Slot{0, 0, 0, {0, 0, 0}};
    const float share = slot.gate * slot.joined.first;
    put(args.score_gradient, first + s, s < used ? slot.gate * (slot.delta - mean) : 0);
    put(args.span_lse_gradient, first + s, counted(share, slot.dot - slot.delta));
    store(args.span_output_gradient, first + s, share);
    window_share += slot.gate * slot.joined.second;
    window_by_lse += counted(slot.gate * slot.joined.second, of_window - slot.delta);
  }
  store(args.window_output_gradient, r, window_share);
  put(args.window_lse_gradient, r, window_by_lse);
}

}  // namespace

void prepare_gradients(const CombineGradients& combine, Stream stream) {
  if (combine.rows.total() == 0) return;
  prepare<<<blocks_for(combine.rows.total(), kThreads), kThreads, 0, stream>>>(combine);
  check_launch("prepare_gradients");
}

void dot_outputs(const Rows& rows, Dtype dtype, const void* output, const void* output_gradient,
                 const float* window_lse, ItemDot* dots, Stream stream) {
  const unsigned blocks = blocks_for(rows.total() * 32, kThreads);
  if (blocks == 0) return;
  const auto launch = [&](auto type) {
    using T = decltype(type);
    dot_rows<T><<<blocks, kThreads, 0, stream>>>(rows, static_cast<const T*>(output),
                                                 static_cast<const T*>(output_gradient), window_lse,
                                                 dots);
  };
  dtype == Dtype::bf16 ? launch(bf16{}) : launch(fp16{});
  check_launch("dot_outputs");
}

void weigh_items(const Rows& rows, std::int32_t slots, const ItemDot* dots,
                 const float* lse_gradient, ItemWeight* weights, Stream stream) {
  const std::int64_t count = rows.total() * slots;
  if (count == 0) return;
  weigh<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(count, dots, lse_gradient, weights);
  check_launch("weigh_items");
}

void combine_rows_backward(const CombineBackwardArgs& args, const Rows& rows, Stream stream) {
  const unsigned blocks = blocks_for(rows.total() * 32, kThreads);
  if (blocks == 0) return;
  args.dtype == Dtype::bf16
      ? combine_rows_backward<bf16><<<blocks, kThreads, 0, stream>>>(args, rows)
      : combine_rows_backward<fp16><<<blocks, kThreads, 0, stream>>>(args, rows);
  check_launch("combine_rows_backward");
}

}  // namespace multistep::cuda
