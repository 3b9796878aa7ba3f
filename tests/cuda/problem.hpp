#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "multistep/cuda/attention.hpp"
#include "multistep/cuda/gradients.hpp"
#include "multistep/cuda/memory.hpp"
#include "support/catch.hpp"
#include "support/inputs.hpp"

/// Seeded problems whose values the 16-bit type holds exactly, so that the GPU and the oracle
/// compute with the same numbers, and the GPU's stages run on them.
namespace gpu {

namespace cuda = multistep::cuda;
using cuda::DeviceArray;
using cuda::DeviceSpan;
using cuda::Dtype;
using cuda::Rung;
using inputs::at;
using multistep::Index;
using multistep::Schedule;
using multistep::Selection;
using multistep::Span;
using Problem = inputs::Problem<float>;

inline constexpr Rung kRungs[] = {Rung::plain, Rung::fast};
inline constexpr Dtype kDtypes[] = {Dtype::bf16, Dtype::fp16};

inline std::string name(Rung rung) { return rung == Rung::plain ? "plain" : "fast"; }
inline std::string name(Dtype dtype) { return dtype == Dtype::bf16 ? "bf16" : "fp16"; }
inline std::string name(const Schedule& schedule) {
  std::string rules;
  for (const auto& level : schedule.levels) rules += std::string(to_string(level.rule)) + ", ";
  return rules + "w = " + std::to_string(schedule.window_index);
}

enum class Values {
  integers,  // -2 ... 2: scores are exact in float32 whatever the order of the sum; ties everywhere
  exact,     // multiples of 2^-8 in [-1, 1): scores are exact here too, with few ties
  rough,     // magnitudes from 2^-6 to 1, rounded to the 16-bit type
};

struct Options {
  Schedule schedule = multistep::preset_schedule("nstep");
  Dtype dtype = Dtype::bf16;
  Index batch = 2;
  Index num_heads = 4;
  Index num_kv_heads = 2;
  Index queries = 1;
  Index head_dim = 64;
  Index query_offset = 0;
  Index tail = 0;               // rows of the cache behind the last query's position
  std::vector<Index> start{};   // [batch], or none
  bool separate_search = true;  // search keys of their own; else K is searched
  Values values = Values::integers;
  std::uint64_t seed = 1;
};

inline std::vector<float> tensor(inputs::Random& random, Index size, const Options& options) {
  std::vector<float> result(at(size));
  for (float& x : result) {
    x = options.values == Values::integers ? static_cast<float>(random.below(5) - 2)
        : options.values == Values::exact  ? static_cast<float>(random.value(inputs::Values::exact))
                                          : static_cast<float>(random.value(inputs::Values::rough));
  }
  return cuda::from_16_bits(options.dtype, cuda::to_16_bits(options.dtype, result));
}

/// The plan is for all rows of the cache, so that a cache length may move.
inline Problem make_problem(const Options& options) {
  inputs::Random random(options.seed);
  multistep::Shape sizes;
  sizes.batch = options.batch;
  sizes.num_heads = options.num_heads;
  sizes.num_kv_heads = options.num_kv_heads;
  sizes.queries = options.queries;
  sizes.keys = options.query_offset + options.queries + options.tail;
  sizes.head_dim = options.head_dim;
  sizes.query_offset = options.query_offset;
  const Index queries = sizes.rows() * sizes.head_dim;
  const Index keys = sizes.batch * sizes.num_kv_heads * sizes.keys * sizes.head_dim;
  Problem problem{sizes,
                  options.start,
                  {options.schedule, std::max<Index>(1, sizes.keys)},
                  tensor(random, queries, options),
                  tensor(random, keys, options),
                  tensor(random, keys, options),
                  {},
                  {}};
  for (Index m = 1; m < options.schedule.steps; ++m) {
    problem.routing.push_back(tensor(random, queries, options));
  }
  if (options.separate_search) problem.search_keys = tensor(random, keys, options);
  return problem;
}

/// Every row of [heads, keys, head_dim] that no query may look at becomes `value`: the padding
/// before start, and the rows behind the last position.
inline void fill_unused_rows(Problem& problem, float value) {
  const multistep::Shape& sizes = problem.sizes;
  for (Index head = 0; head < sizes.batch * sizes.num_kv_heads; ++head) {
    const Index start = problem.start_of(head / sizes.num_kv_heads);
    for (Index j = 0; j < sizes.keys; ++j) {
      if (j >= start && j < sizes.query_offset + sizes.queries) continue;
      for (auto* array : {&problem.key, &problem.value, &problem.search_keys}) {
        if (array->empty()) continue;
        std::fill_n(array->begin() + (head * sizes.keys + j) * sizes.head_dim, sizes.head_dim,
                    value);
      }
    }
  }
}

inline std::vector<DeviceSpan> to_device(const std::vector<Span>& spans) {
  std::vector<DeviceSpan> result;
  for (const Span& span : spans) {
    result.push_back({static_cast<std::int32_t>(span.begin), static_cast<std::int32_t>(span.end)});
  }
  return result;
}

inline std::vector<Span> to_host(const std::vector<DeviceSpan>& spans) {
  std::vector<Span> result;
  for (const DeviceSpan& span : spans) result.push_back({span.begin, span.end});
  return result;
}

inline std::vector<std::int32_t> to_int32(const std::vector<Index>& values) {
  return {values.begin(), values.end()};
}

template <class To, class From>
std::vector<To> cast(const std::vector<From>& values) {
  std::vector<To> result;
  for (const From x : values) result.push_back(static_cast<To>(x));
  return result;
}

/// Bit for bit, NaN included.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// A problem's arrays on the device, and the arguments of the stages that read them.
struct OnDevice {
  Dtype dtype;
  cuda::DeviceSchedule schedule;
  DeviceArray<std::uint16_t> query, key, value, search_keys;
  std::vector<DeviceArray<std::uint16_t>> routing;
  DeviceArray<std::int32_t> start, length, cu_seqlens, cu_seqlens_k;
  cuda::Shape shape;
  double search_scale;
  std::optional<double> softmax_scale;

  OnDevice(const Problem& problem, Dtype type)
      : dtype(type),
        schedule(problem.plan),
        query(upload(problem.query)),
        key(upload(problem.key)),
        value(upload(problem.value)),
        search_keys(upload(problem.search_keys)),
        start(to_int32(problem.start)),
        search_scale(problem.search_scale),
        softmax_scale(problem.softmax_scale) {
    for (const std::vector<float>& level : problem.routing) routing.push_back(upload(level));
    const multistep::Shape& sizes = problem.sizes;
    shape.batch = sizes.batch;
    shape.num_heads = sizes.num_heads;
    shape.num_kv_heads = sizes.num_kv_heads;
    shape.queries = sizes.queries;
    shape.keys = sizes.keys;
    shape.head_dim = sizes.head_dim;
    shape.query_offset = sizes.query_offset;
    shape.start = start.data();
  }

  DeviceArray<std::uint16_t> upload(const std::vector<float>& values) const {
    return DeviceArray<std::uint16_t>(cuda::to_16_bits(dtype, values));
  }

  /// From now on the positions come from the device.
  void use_length(const std::vector<Index>& lengths) {
    length = DeviceArray<std::int32_t>(to_int32(lengths));
    shape.length = length.data();
    shape.query_offset = 0;
  }
  void use_length() {
    use_length(std::vector<Index>(at(shape.batch), shape.query_offset + shape.queries));
  }

  /// From now on the rows are packed sequences.
  void use_cu_seqlens(const std::vector<Index>& boundaries) {
    cu_seqlens = DeviceArray<std::int32_t>(to_int32(boundaries));
    shape.cu_seqlens = cu_seqlens.data();
    shape.sequences = static_cast<Index>(boundaries.size()) - 1;
  }
  /// The same, and their keys have bounds of their own.
  void use_cu_seqlens(const std::vector<Index>& boundaries, const std::vector<Index>& of_keys) {
    use_cu_seqlens(boundaries);
    cu_seqlens_k = DeviceArray<std::int32_t>(to_int32(of_keys));
    shape.cu_seqlens_k = cu_seqlens_k.data();
  }

  std::vector<const void*> routing_pointers() const {
    std::vector<const void*> result;
    for (const auto& level : routing) result.push_back(level.data());
    return result;
  }

  cuda::SpanSearchArgs search_args(Rung rung) const {
    cuda::SpanSearchArgs args;
    args.shape = shape;
    args.dtype = dtype;
    args.schedule = &schedule;
    args.routing_queries = routing_pointers();
    args.search_keys = search_keys.size() > 0 ? search_keys.data() : key.data();
    args.search_scale = search_scale;
    args.rung = rung;
    return args;
  }

  /// SpanAttentionArgs, CombineArgs or AttentionArgs with what they have in common.
  template <class Args>
  Args args(Rung rung) const {
    Args args;
    args.shape = shape;
    args.dtype = dtype;
    args.schedule = &schedule;
    args.query = query.data();
    args.key = key.data();
    args.value = value.data();
    args.softmax_scale = softmax_scale;
    args.rung = rung;
    return args;
  }

  cuda::AttentionArgs attention_args(Rung rung) const {
    auto result = args<cuda::AttentionArgs>(rung);
    result.routing_queries = routing_pointers();
    result.search_keys = search_keys.data();
    result.search_scale = search_scale;
    return result;
  }
};

}  // namespace gpu
