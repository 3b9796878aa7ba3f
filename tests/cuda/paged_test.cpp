#include <numeric>

#include "backward.hpp"
#include "calls.hpp"

// Keys in pages against the same keys in dense arrays: the same kernels, and the same bits.

using namespace multistep;
using namespace gpu;

namespace {

/// A pool's pages, in no order. What no key that counts lies in is NaN, and page 0 nobody's.
struct Pages {
  Index size;
  Index max_pages;
  Index count = 1;                  // of the pool
  bool rows_of_heads = false;       // a page is [page_size, kv_heads, head_dim]
  std::vector<std::int32_t> table;  // [batch, max_pages]

  /// `other`: entries of pages that no key that counts lies in; -1: all sorts of them.
  Pages(const Problem& problem, const std::vector<Index>& lengths, Index page_size,
        std::int32_t other)
      : size(page_size), max_pages(problem.sizes.keys / page_size + 2) {
    const auto counts = [&](Index b, Index page) {
      return page * size < lengths[at(b)] && (page + 1) * size > problem.start_of(b);
    };
    const Index entries = problem.sizes.batch * max_pages;
    for (Index i = 0; i < entries; ++i) count += counts(i / max_pages, i % max_pages);
    std::vector<std::int32_t> order(at(count));
    std::iota(order.begin(), order.end(), 0);
    inputs::Random random(7);
    for (Index i = count - 1; i > 1; --i) std::swap(order[at(i)], order[at(1 + random.below(i))]);
    const std::vector<std::int32_t> wild{INT_MAX, -1, INT_MIN, 1 << 20};
    for (Index i = 0; i < entries; ++i) {
      const bool taken = counts(i / max_pages, i % max_pages);
      table.push_back(taken ? order.back() : other < 0 ? wild[at(i % 4)] : other);
      if (taken) order.pop_back();
    }
  }

  cuda::Strides strides(const multistep::Shape& sizes) const {
    const Index d = sizes.head_dim;
    const Index heads = sizes.num_kv_heads;
    return rows_of_heads ? cuda::Strides{heads * size * d, d, heads * d} : cuda::Strides{};
  }

  std::vector<float> pool(const Problem& problem, const std::vector<Index>& lengths,
                          const std::vector<float>& dense) const {
    if (dense.empty()) return {};
    const multistep::Shape& sizes = problem.sizes;
    const Index d = sizes.head_dim;
    const Index heads = sizes.num_kv_heads;
    std::vector<float> result(at(count * heads * size * d), static_cast<float>(inputs::kNaN));
    for (Index b = 0; b < sizes.batch; ++b) {
      for (Index j = problem.start_of(b); j < lengths[at(b)]; ++j) {
        const Index page = table[at(b * max_pages + j / size)];
        for (Index h = 0; h < heads; ++h) {
          const Index row = rows_of_heads ? (page * size + j % size) * heads + h
                                          : (page * heads + h) * size + j % size;
          std::copy_n(dense.begin() + ((b * heads + h) * sizes.keys + j) * d, d,
                      result.begin() + row * d);
        }
      }
    }
    return result;
  }
};

/// A problem on the device, its keys in pages.
struct InPages {
  OnDevice device;
  DeviceArray<std::int32_t> table;
  cuda::Strides strides;

  InPages(const Problem& problem, Dtype dtype, const std::vector<Index>& lengths,
          const Pages& pages)
      : device(problem, dtype), table(pages.table), strides(pages.strides(problem.sizes)) {
    device.use_length(lengths);
    device.key = device.upload(pages.pool(problem, lengths, problem.key));
    device.value = device.upload(pages.pool(problem, lengths, problem.value));
    device.search_keys = device.upload(pages.pool(problem, lengths, problem.search_keys));
    device.shape.keys = pages.max_pages * pages.size;
    device.shape.block_table = table.data();
    device.shape.max_pages = pages.max_pages;
    device.shape.page_size = pages.size;
  }

  Whole attention(Rung rung) const {
    cuda::AttentionArgs args = device.attention_args(rung);
    args.key_strides = args.value_strides = args.search_key_strides = strides;
    return gpu::attention(args);
  }
};

Whole dense(const Problem& problem, Dtype dtype, const std::vector<Index>& lengths, Rung rung) {
  OnDevice device(problem, dtype);
  device.use_length(lengths);
  return gpu::attention(device, rung);
}

constexpr Index kBatch = 4;
constexpr Index kHeads = 32;

Options paged_options(const Schedule& schedule, Index queries) {
  Options options;
  options.schedule = schedule;
  options.batch = kBatch;
  options.num_heads = kHeads;
  options.queries = queries;
  options.query_offset = 900 - queries;
  options.values = Values::rough;
  return options;
}

Schedule windowed() {
  Schedule schedule = preset_schedule("paper");
  schedule.window_index = 31;
  return schedule;
}

std::vector<Schedule> schedules() {
  return {preset_schedule("nstep", 1),   preset_schedule("nstep", 2),
          preset_schedule("nstep", 3),   windowed(),
          preset_schedule("aligned", 3), preset_schedule("released")};
}

const std::vector<Index> kLengths{0, 333, 900, 257};

}  // namespace

TEST_CASE("Pages leave no trace in what GPU decoding finds", "[paged]") {
  for (const Schedule& schedule : schedules()) {
    const bool searches = schedule.steps > 1;
    // With N = 1 few queries on dense keys are taken in chunks, which pages are not.
    for (const Index queries : searches ? std::vector<Index>{1, 40} : std::vector<Index>{40}) {
      for (const bool separate : {true, false}) {
        Options options = paged_options(schedule, queries);
        options.separate_search = separate && searches;
        options.start = separate ? std::vector<Index>{0, 37, 5, 250} : std::vector<Index>{};
        options.dtype = separate ? Dtype::bf16 : Dtype::fp16;
        options.head_dim = separate ? 128 : 40;
        const Problem problem = make_problem(options);
        std::vector<Whole> wanted;
        for (const Rung rung : kRungs) {
          wanted.push_back(dense(problem, options.dtype, kLengths, rung));
        }
        for (const Index size : {16, 64, 256}) {
          for (const bool rows_of_heads : {false, true}) {
            Pages pages(problem, kLengths, size, -1);
            pages.rows_of_heads = rows_of_heads;
            const InPages paged(problem, options.dtype, kLengths, pages);
            for (std::size_t i = 0; i < wanted.size(); ++i) {
              CAPTURE(name(schedule), queries, separate, name(kRungs[i]), size, rows_of_heads);
              const Whole got = paged.attention(kRungs[i]);
              CHECK(same_bits(got, wanted[i]));
              CHECK(found_nothing(got, 0, kHeads * queries));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("GPU decoding reads the pages that the table names", "[paged][fault]") {
  const std::vector<Index> lengths{41, 333, 900, 257};
  for (const Schedule& schedule : {preset_schedule("nstep", 2), preset_schedule("nstep", 3)}) {
    const Problem problem = make_problem(paged_options(schedule, 1));
    for (const Rung rung : kRungs) {
      CAPTURE(name(schedule), name(rung));
      const InPages paged(problem, Dtype::bf16, lengths, Pages(problem, lengths, 16, 0));
      CHECK(same_bits(paged.attention(rung), dense(problem, Dtype::bf16, lengths, rung)));
    }
  }
}

TEST_CASE("Dense attention of few queries is that of many, in pages", "[paged]") {
  const Index queries = 40;
  const Problem many = make_problem(paged_options(preset_schedule("nstep", 1), queries));
  const Problem last = many.chunk(queries - 1, 1);
  for (const Index size : {16, 64, 256}) {
    CAPTURE(size);
    const Pages pages(many, kLengths, size, -1);
    const auto got = [&](const Problem& problem) {
      return InPages(problem, Dtype::bf16, kLengths, pages).attention(Rung::fast);
    };
    CHECK(same_bits(got(last), got(many).of_rows(queries - 1, 1, kBatch * kHeads)));
  }
}

TEST_CASE("The plain GPU kernels take pages where the fast ones do not", "[paged]") {
  for (const Index top_k : {2, 40}) {
    Options options = paged_options(windowed(), 2);
    options.schedule.top_k = top_k;
    options.head_dim = top_k > 16 ? 64 : 100;
    options.values = Values::integers;  // whoever searches, the scores are the same bits
    options.num_heads = 4;
    const Problem problem = make_problem(options);
    const Whole want = dense(problem, options.dtype, kLengths, Rung::plain);
    const InPages paged(problem, options.dtype, kLengths, Pages(problem, kLengths, 16, -1));
    CAPTURE(top_k);
    CHECK(same_bits(paged.attention(Rung::fast), want));
    CHECK_THROWS_WITH(paged.attention(Rung::fast_or_refuse), ContainsSubstring("no fast kernel"));
  }
}

TEST_CASE("GPU decoding refuses pages that cannot be", "[paged][arguments]") {
  Options options;
  options.schedule = preset_schedule("nstep", 3);
  options.queries = 5;
  options.query_offset = 20;
  options.tail = 7;
  const Problem problem = make_problem(options);
  OnDevice device(problem, Dtype::bf16);
  const std::int32_t not_looked_at = 0;
  device.shape.block_table = device.shape.length = &not_looked_at;
  device.shape.query_offset = 0;
  device.shape.max_pages = 2;
  device.shape.page_size = 16;
  using Args = cuda::AttentionArgs;
  const auto call = attention_call(device);
  const Stage<Args> stage = cuda::attention;
  const auto refuses_shape = [&](const std::string& offender, auto spoil) {
    refuses<Args>(call, stage, {offender}, [&](Args& args) { spoil(args.shape); });
  };
  for (const Index size : {-16, 0, 1, 8, 24, 100}) {
    refuses_shape("page_size", [&](cuda::Shape& shape) { shape.page_size = size; });
  }
  refuses_shape("max_pages", [](cuda::Shape& shape) { shape.max_pages = -1; });
  refuses_shape("keys", [](cuda::Shape& shape) { shape.max_pages = 1; });
  refuses_shape("length", [](cuda::Shape& shape) { shape.length = nullptr; });
  refuses_shape("key_offset", [](cuda::Shape& shape) { shape.key_offset = 1; });
  refuses_shape("block_table",
                [](cuda::Shape& shape) { shape.block_table = shifted(shape.block_table); });
  refuses_shape("cu_seqlens", [&](cuda::Shape& shape) {
    shape.batch = shape.sequences = 1;
    shape.cu_seqlens = &not_looked_at;
  });

  const auto takes_none = [&](const auto& args) {
    CHECK_THROWS_WITH(cuda::workspace_size(args), ContainsSubstring("block_table"));
  };
  takes_none(device.search_args(Rung::fast));
  auto attend = device.args<cuda::SpanAttentionArgs>(Rung::fast);
  attend.slots = 1;
  takes_none(attend);
  takes_none(device.args<cuda::CombineArgs>(Rung::fast));
  takes_none(device.args<cuda::AttentionBackwardArgs>(Rung::fast));
}
