#include "judge.hpp"

// With integer inputs the selection is the oracle's to the bit, so the outputs can be compared end
// to end.

using namespace multistep;
using namespace gpu;

namespace {

Options prefill(const Schedule& schedule) {
  Options options;
  options.schedule = schedule;
  options.queries = 130;
  options.start = {0, 37};
  options.tail = 5;
  return options;
}

void check_attention(const Options& options) {
  const Problem problem = make_problem(options);
  const OnDevice device(problem, options.dtype);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(options.dtype));
    CHECK(wrong_exactly(problem, options.dtype, gpu::attention(device, rung)) == "");
  }
}

std::vector<float> rows(const Problem& problem, const std::vector<float>& output, Index first,
                        Index count) {
  return inputs::rows_of(output, problem.sizes.batch * problem.sizes.num_heads,
                         problem.sizes.head_dim, first, count);
}

/// A problem's arrays as [batch, rows, heads, head_dim], with NaN between the rows.
class Spread {
 public:
  Spread(const Problem& problem, Dtype dtype) : dtype_(dtype), sizes_(problem.sizes) {
    query_ = spread(problem.query, sizes_.num_heads, sizes_.queries);
    key_ = spread(problem.key, sizes_.num_kv_heads, sizes_.keys);
    value_ = spread(problem.value, sizes_.num_kv_heads, sizes_.keys);
    search_keys_ = spread(problem.search_keys, sizes_.num_kv_heads, sizes_.keys);
    for (const auto& level : problem.routing) {
      routing_.push_back(spread(level, sizes_.num_heads, sizes_.queries));
    }
  }

  cuda::AttentionArgs args(const OnDevice& dense, Rung rung) const {
    cuda::AttentionArgs args = dense.attention_args(rung);
    args.query = query_.data();
    args.key = key_.data();
    args.value = value_.data();
    args.search_keys = search_keys_.data();
    const cuda::Strides of_queries = strides(sizes_.num_heads, sizes_.queries);
    args.query_strides = of_queries;
    args.key_strides = args.value_strides = args.search_key_strides =
        strides(sizes_.num_kv_heads, sizes_.keys);
    for (std::size_t m = 0; m < routing_.size(); ++m) args.routing_queries[m] = routing_[m].data();
    args.routing_strides.assign(routing_.size(), of_queries);
    return args;
  }

 private:
  static constexpr Index kGap = 24;  // values behind a row

  cuda::Strides strides(Index heads, Index rows) const {
    const Index head = sizes_.head_dim + kGap;
    return {rows * heads * head + 8, head, heads * head};
  }
  DeviceArray<std::uint16_t> spread(const std::vector<float>& dense, Index heads,
                                    Index rows) const {
    const cuda::Strides step = strides(heads, rows);
    std::vector<float> wide(at(sizes_.batch * step.batch), static_cast<float>(inputs::kNaN));
    for (Index r = 0; r < sizes_.batch * heads * rows; ++r) {
      const Index to =
          r / (heads * rows) * step.batch + r / rows % heads * step.head + r % rows * step.row;
      std::copy_n(dense.begin() + r * sizes_.head_dim, sizes_.head_dim, wide.begin() + to);
    }
    return DeviceArray<std::uint16_t>(cuda::to_16_bits(dtype_, wide));
  }

  Dtype dtype_;
  multistep::Shape sizes_;
  DeviceArray<std::uint16_t> query_, key_, value_, search_keys_;
  std::vector<DeviceArray<std::uint16_t>> routing_;
};

Schedule windowed(const char* rules, Index steps) {
  Schedule schedule = preset_schedule(rules, steps);
  schedule.window_index = 2;
  return schedule;
}

}  // namespace

TEST_CASE("GPU attention for every preset, in prefill and decoding", "[attention]") {
  for (Index steps = 1; steps <= 5; ++steps) {
    for (const char* rules : {"nstep", "even", "aligned"}) {
      for (const Dtype dtype : kDtypes) {
        CAPTURE(steps, rules);
        Options options = prefill(preset_schedule(rules, steps));
        options.dtype = dtype;
        check_attention(options);
        options.query_offset = 1022;
        options.queries = 3;
        options.num_heads = 16;
        check_attention(options);
      }
    }
  }
  for (const char* rules : {"paper", "released"}) {
    for (const Index offset : {0, 2000, 4095}) {  // within W = 2032, across it, beyond it
      CAPTURE(rules, offset);
      Options options = prefill(preset_schedule(rules));
      if (options.schedule.window_index == 0) options.schedule.window_index = 31;
      options.batch = 1;
      options.start = {17};
      options.query_offset = offset;
      options.queries = 70;
      options.head_dim = 128;
      check_attention(options);
    }
  }
}

TEST_CASE("GPU attention for every head_dim and group", "[attention]") {
  for (const Index head_dim : {8, 24, 32, 36, 64, 72, 80, 96, 104, 128, 136, 192, 256}) {
    for (const Index queries : {1, 70}) {
      CAPTURE(head_dim, queries);
      Options options = prefill(windowed("nstep", 2));
      options.head_dim = head_dim;
      options.queries = queries;
      options.query_offset = 250;
      check_attention(options);
    }
  }
  for (const Index group : {1, 2, 3, 5, 7, 8, 16, 20, 24, 32, 48}) {
    for (const Index queries : {1, 70}) {
      CAPTURE(group, queries);
      Options options = prefill(windowed("nstep", 2 + group % 2));
      options.num_heads = 2 * group;
      options.head_dim = group % 2 ? 64 : 128;
      options.queries = queries;
      options.query_offset = 250;
      check_attention(options);
    }
  }
}

TEST_CASE("GPU attention for every top_k", "[attention]") {
  for (const Index top_k : {1, 4, 5, 6, 8, 9, 13, 16, 17, 31, 32, 64}) {
    for (const Index window_index : {0, 2}) {
      for (const Index queries : {1, 130}) {
        CAPTURE(top_k, window_index, queries);
        Options options = prefill(preset_schedule(top_k % 2 ? "aligned" : "nstep", 2 + top_k % 2));
        options.schedule.top_k = top_k;
        options.schedule.window_index = window_index;
        options.num_heads = 12;
        options.queries = queries;
        options.query_offset = 1500;
        check_attention(options);
      }
    }
  }
}

TEST_CASE("GPU attention with a softmax_scale of any sign", "[attention]") {
  for (const double scale : {-0.5, 0.0, 0.125}) {
    for (const Index steps : {1, 2}) {
      for (const Index queries : {1, 130}) {
        CAPTURE(scale, steps, queries);
        Options options = prefill(windowed("nstep", steps));
        options.queries = queries;
        options.query_offset = 250;
        Problem problem = make_problem(options);
        problem.softmax_scale = scale;
        const OnDevice device(problem, options.dtype);
        for (const Rung rung : kRungs) {
          CAPTURE(name(rung));
          CHECK(wrong_exactly(problem, options.dtype, gpu::attention(device, rung)) == "");
        }
      }
    }
  }
}

TEST_CASE("GPU attention reads arrays where they lie", "[attention][fault]") {
  for (const char* rules : {"nstep", "aligned"}) {
    for (const Index steps : {1, 2, 3}) {
      for (const Index head_dim : {64, 96, 128, 192}) {
        for (const Index queries : {1, 5, 150}) {
          CAPTURE(rules, steps, head_dim, queries);
          Options options = prefill(windowed(rules, steps));
          options.head_dim = head_dim;
          options.queries = queries;
          options.query_offset = 200;
          options.values = Values::rough;
          const Problem problem = make_problem(options);
          const OnDevice dense(problem, options.dtype);
          const Spread spread(problem, options.dtype);
          for (const Rung rung : kRungs) {
            CAPTURE(name(rung));
            CHECK(same_bits(gpu::attention(spread.args(dense, rung)), gpu::attention(dense, rung)));
          }
        }
      }
    }
  }
}

TEST_CASE("GPU attention with any schedule", "[attention]") {
  inputs::Random random(31);
  for (int i = 0; i < 30; ++i) {
    Options options;
    options.schedule = inputs::random_schedule(random, 3);  // none aligned
    options.seed = random.next();
    options.dtype = kDtypes[random.below(2)];
    options.queries = 1 + random.below(100);
    options.query_offset = random.below(300);
    options.start = {random.below(400), random.below(20)};
    options.separate_search = random.below(2) == 0;
    CAPTURE(i, options.schedule.steps, options.queries, options.query_offset);
    check_attention(options);
  }
}

TEST_CASE("GPU attention of queries without a key is 0", "[attention]") {
  for (Index steps = 1; steps <= 3; ++steps) {
    for (const Index queries : {1, 70}) {
      CAPTURE(steps, queries);
      Options options = prefill(preset_schedule("nstep", steps));
      options.queries = queries;
      options.start = {0, 500};
      check_attention(options);
      const Problem problem = make_problem(options);
      const OnDevice device(problem, options.dtype);
      for (const Rung rung : kRungs) {
        CAPTURE(name(rung));
        const Index rows = device.shape.rows();
        CHECK(found_nothing(gpu::attention(device, rung), rows / 2, rows / 2));
      }
    }
  }
}

TEST_CASE("GPU attention finds the same whatever of it is wanted", "[attention]") {
  using Args = cuda::AttentionArgs;
  for (const Index steps : {1, 2, 3}) {
    for (const Index queries : {1, 130}) {
      Options options = prefill(windowed("nstep", steps));
      options.queries = queries;
      options.query_offset = 150;
      const Problem problem = make_problem(options);
      const OnDevice device(problem, Dtype::bf16);
      for (const Rung rung : kRungs) {
        CAPTURE(steps, queries, name(rung));
        const Whole want = gpu::attention(device, rung);
        const auto check = [&](auto pointer, auto array, const auto& all) {
          Args args = device.attention_args(rung);
          WholeArrays arrays(args);
          args.output = arrays.output.data();
          const std::size_t workspace = cuda::workspace_size(args);
          if (pointer) args.*pointer = (arrays.*array).data();
          const bool anchors = std::is_same_v<decltype(pointer), std::int32_t * Args::*>;
          CHECK((cuda::workspace_size(args) > workspace) == (anchors && steps > 2));
          run(args, cuda::attention);
          CHECK(same_bits(arrays.download().output, want.output));
          if (pointer) CHECK(same_bits((arrays.*array).download(), all));
        };
        check(&Args::spans, &WholeArrays::spans, want.kept.spans);
        check(&Args::scores, &WholeArrays::scores, want.kept.scores);
        check(&Args::span_lses, &WholeArrays::span_lses, want.span_lses);
        check(&Args::window_lse, &WholeArrays::window_lse, want.window_lse);
        check(&Args::anchors, &WholeArrays::anchors, want.kept.anchors);
        float* Args::*none = nullptr;
        check(none, &WholeArrays::scores, want.kept.scores);
      }
    }
  }
}

TEST_CASE("GPU chunked prefill gives the bits of the whole", "[attention]") {
  for (const char* rules : {"nstep", "even", "aligned"}) {
    for (const Index steps : {1, 2, 3}) {
      Options options = prefill(windowed(rules, steps));
      options.queries = 300;
      options.values = Values::rough;
      const Problem problem = make_problem(options);
      const OnDevice device(problem, options.dtype);
      for (const Rung rung : kRungs) {
        const Whole whole = gpu::attention(device, rung);
        // Fast kernels may be others for few queries.
        for (const Index step : {100, 129, rung == Rung::plain ? 7 : 200}) {
          for (Index first = 0; first < options.queries; first += step) {
            const Index count = std::min(step, options.queries - first);
            if (rung == Rung::fast && count < 100) continue;
            CAPTURE(rules, steps, name(rung), first, count);
            const OnDevice part(problem.chunk(first, count), options.dtype);
            CHECK(same_bits(gpu::attention(part, rung).output,
                            rows(problem, whole.output, first, count)));
          }
        }
      }
    }
  }
}

TEST_CASE("GPU attention of some queries on a long context", "[attention]") {
  // Decoding's kernels or tiles of fewer pairs than they have room for, and searches in between.
  Schedule windowed_paper = preset_schedule("paper");
  windowed_paper.window_index = 7;
  for (const Schedule& schedule : {windowed_paper, preset_schedule("nstep", 3),
                                   preset_schedule("aligned", 2), preset_schedule("aligned", 3)}) {
    for (const Index queries : {5, 33, 150, 600}) {
      Options options;
      options.schedule = schedule;
      options.batch = 1;
      options.num_heads = 32;
      options.head_dim = 64;
      options.queries = queries;
      options.query_offset = 20000 - queries;
      options.start = {37};
      options.values = Values::integers;
      CAPTURE(name(schedule), queries);
      const Problem problem = make_problem(options);
      const Whole got = gpu::attention(OnDevice(problem, options.dtype), Rung::fast);
      CHECK(wrong_exactly(problem, options.dtype, got) == "");
    }
  }
}

TEST_CASE("GPU attention by tiles of fewer pairs than they have rows", "[attention][fault]") {
  Options options;
  options.schedule = preset_schedule("paper");
  options.schedule.window_index = 7;
  options.batch = 1;
  options.num_heads = 32;
  options.queries = 60;
  options.query_offset = 20000;
  check_attention(options);
}

TEST_CASE("GPU dense attention of a few queries, chunk by chunk", "[attention][fault]") {
  for (const Index keys : {511, 513, 1024, 1500, 33000}) {  // chunks of 512 keys; then longer ones
    for (const Index queries : {1, 20}) {
      if (keys > 2000 && queries > 1) continue;  // the oracle takes long
      CAPTURE(keys, queries);
      Options options = prefill(preset_schedule("nstep", 1));
      options.num_heads = 2 * (keys < 2000 ? 16 : 1);
      options.queries = queries;
      options.query_offset = keys - queries;
      check_attention(options);
    }
  }
}

TEST_CASE("GPU prefill, decoded row by row", "[attention]") {
  for (const char* rules : {"nstep", "even", "aligned"}) {
    for (const Index steps : {1, 2, 3}) {
      Options options = prefill(windowed(rules, steps));
      options.queries = 66;
      options.query_offset = 15;
      const Problem problem = make_problem(options);
      for (const Rung rung : kRungs) {
        for (Index i = 0; i < options.queries; i += i < 8 ? 1 : 7) {
          CAPTURE(rules, steps, name(rung), i);
          const Problem one = problem.chunk(i, 1);
          const OnDevice device(one, options.dtype);
          CHECK(wrong_exactly(one, options.dtype, gpu::attention(device, rung)) == "");
        }
      }
    }
  }
}

TEST_CASE("GPU attention with the length on the device", "[attention]") {
  for (const Index steps : {1, 2, 3}) {
    for (const Index queries : {1, 70}) {
      CAPTURE(steps, queries);
      Options options = prefill(windowed("nstep", steps));
      options.queries = queries;
      options.query_offset = 190;
      options.tail = 100;
      Problem problem = make_problem(options);
      fill_unused_rows(problem, static_cast<float>(inputs::kNaN));
      const OnDevice device(problem, options.dtype);
      OnDevice moved(problem, options.dtype);
      moved.use_length();
      for (const Rung rung : kRungs) {
        CAPTURE(name(rung));
        const Whole got = gpu::attention(moved, rung);
        // Of many queries, fast kernels may take those of unknown position for decoding.
        if (rung == Rung::plain || queries == 1) {
          CHECK(same_bits(got, gpu::attention(device, rung)));
        }
        CHECK(wrong_exactly(problem, options.dtype, got) == "");
        if (steps == 1) continue;
        CHECK(same_paths(search(moved.search_args(rung)), search(device.search_args(rung))));
      }
    }
  }
}

TEST_CASE("GPU sequences of a batch have lengths of their own", "[attention][fault]") {
  const std::vector<Index> lengths{100, 37, 64};
  for (const Index steps : {1, 2, 3}) {
    for (const Index queries : {1, 30}) {
      Options options;
      options.schedule = windowed("nstep", steps);
      options.batch = 3;
      options.queries = queries;
      options.query_offset = 100 - queries;
      options.tail = 28;
      Problem problem = make_problem(options);
      problem.length = lengths;
      OnDevice device(problem, options.dtype);
      device.use_length(lengths);
      for (const Rung rung : kRungs) {
        CAPTURE(steps, queries, name(rung));
        CHECK(wrong_exactly(problem, options.dtype, gpu::attention(device, rung)) == "");
      }
    }
  }
}

TEST_CASE("GPU stages of no queries do nothing", "[attention]") {
  Options options = prefill(windowed("nstep", 2));
  options.queries = 0;
  options.query_offset = 10;
  const Problem problem = make_problem(options);
  const OnDevice device(problem, options.dtype);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung));
    CHECK(gpu::attention(device, rung).output.empty());
    CHECK(search(device.search_args(rung)).spans.empty());
  }
}
