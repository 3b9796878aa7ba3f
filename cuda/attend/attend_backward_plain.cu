#include "api/check.cuh"
#include "attend/backward_row.cuh"

/// Gradients of attention, plain: a warp an item, a warp a key.
namespace multistep::cuda {
namespace {

constexpr int kWarps = 4;

/// Items in their natural order, of spans or windows.
struct PlainItems : SpanAttend {
  explicit PlainItems(const SpanAttend& items) : SpanAttend(items) {}

  __device__ TileRow item(const Rows::Row& row, int slot) const {
    const DeviceSpan keys =
        spans ? rows.attended(spans[row.index * slots + slot], row) : rows.window_keys(row);
    return {row.index, row.dense * slots + slot, keys};
  }

  /// Item i of a KV head: query by query, head by head, slot by slot.
  __device__ TileRow row(int kv_head, std::int64_t i) const {
    const int group = rows.group();
    const auto slot = static_cast<int>(i % slots);
    const auto head = static_cast<int>(i / slots % group);
    return item(rows.row(kv_head / rows.kv_heads, kv_head % rows.kv_heads * group + head,
                         rows.first + static_cast<int>(i / slots / group)),
                slot);
  }

  /// Items [begin, end) of a KV head hold all that look at key j.
  struct Range {
    std::int64_t begin;
    std::int64_t end;
  };
  __device__ Range range(int kv_head, std::int64_t j) const {
    const std::int64_t key = j + rows.key_offset;
    const Rows::QueryRange queries =
        rows.looking_at(kv_head / rows.kv_heads, key, key + 1, spans ? INT_MAX : rows.window);
    const std::int64_t of_query = static_cast<std::int64_t>(rows.group()) * slots;
    return {queries.begin * of_query, queries.end * of_query};
  }
};

using Args = BackwardRows<PlainItems>;

struct Here {
  TileRow row;
  std::int64_t kv_head;
};
__device__ Here item_here(const Args& args) {
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (pair >= args.rows.total() * args.slots) return {};
  const Rows::Row row = args.rows.at(pair / args.slots);
  return {args.item(row, static_cast<int>(pair % args.slots)),
          static_cast<std::int64_t>(row.batch) * args.rows.kv_heads + row.head / args.rows.group()};
}

template <class T>
__global__ void dot_items(Args args) {
  const Here here = item_here(args);
  if (here.row.index < 0) return;
  const int d = args.rows.head_dim;
  const auto kv_head = static_cast<std::int32_t>(here.kv_head);
  const RowOutput found = attend_row(
      args.template query_row<T>(here.row.index), args.rows.kv_rows<T>(args.key, kv_head),
      args.rows.kv_rows<T>(args.value, kv_head), here.row.keys, d, args.scale);
  const T* const by_output =
      static_cast<const T*>(args.gradients.output_gradient) + args.gradient_row(here.row) * d;
  const float dot = lanes_dot(found.value, by_output, d);
  if (threadIdx.x % 32 == 0) args.gradients.dots[here.row.item] = {found.lse, dot};
}

template <class T>
__global__ void query_gradients(Args args) {
  const Here here = item_here(args);
  if (here.row.index < 0) return;
  LaneValues sum;
  query_gradient<T>(args, here.row, here.kv_head, sum);
  store_query_gradient<T>(args, here.row, sum);
}

template <class T>
__global__ void key_gradients(Args args) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const std::int64_t kv_head = at / args.rows.keys;
  if (kv_head >= static_cast<std::int64_t>(args.rows.batch) * args.rows.kv_heads) return;
  const std::int64_t j = at % args.rows.keys;
  const PlainItems::Range range = args.range(static_cast<int>(kv_head), j);
  if (range.begin >= range.end) return;
  KeyGradient sum;
  sum.add_rows<T>(args, kv_head, j, range.begin, range.end);
  const int d = args.rows.head_dim;
  sum.store(args.scale, args.gradients.key_sums + at * d, args.gradients.value_sums + at * d, 0, d,
            true);
}

/// A thread kValues values of a query row.
template <class T, int kValues>
__global__ void sum_parts(Args args) {
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int d = args.rows.head_dim;
  const int of_row = d / kValues;
  const std::int64_t r = thread / of_row;
  if (r >= args.rows.total()) return;
  const int at = static_cast<int>(thread % of_row) * kValues;
  const Rows::Row row = args.rows.at(r);
  struct alignas(kValues * sizeof(float)) Floats {
    float x[kValues];
  };
  float sum[kValues] = {};
#pragma unroll 4
  for (int s = 0; s < args.slots; ++s) {
    const auto* const part = args.gradients.query_parts + (row.dense * args.slots + s) * d + at;
    const Floats more = *reinterpret_cast<const Floats*>(part);
#pragma unroll
    for (int e = 0; e < kValues; ++e) sum[e] += more.x[e];
  }
  struct alignas(kValues * sizeof(T)) Values {
    T x[kValues];
  } values;
#pragma unroll
  for (int e = 0; e < kValues; ++e) values.x[e] = from_float<T>(sum[e]);
  T* const gradient = static_cast<T*>(args.gradients.query_gradient) + row.index * d + at;
  *reinterpret_cast<Values*>(gradient) = values;
}

/// Launches the kernel for bf16 or fp16 with so many threads, of blocks of `threads`.
void launch(void (*of_bf16)(Args), void (*of_fp16)(Args), const Args& args, std::int64_t count,
            int threads, Stream stream) {
  const unsigned blocks = blocks_for(count, threads);
  if (blocks == 0) return;
  (args.dtype == Dtype::bf16 ? of_bf16 : of_fp16)<<<blocks, threads, 0, stream>>>(args);
  check_launch("attention's gradients");
}

std::int64_t threads_of(const SpanAttend& items) { return items.rows.total() * items.slots * 32; }

}  // namespace

void item_dots_plain(const SpanAttend& items, const ItemGradients& gradients, Stream stream) {
  launch(dot_items<bf16>, dot_items<fp16>, Args(PlainItems(items), gradients), threads_of(items),
         32 * kWarps, stream);
}

void query_gradients_plain(const SpanAttend& items, const ItemGradients& gradients, Stream stream) {
  launch(query_gradients<bf16>, query_gradients<fp16>, Args(PlainItems(items), gradients),
         threads_of(items), 32 * kWarps, stream);
}

void key_gradients_plain(const SpanAttend& items, const ItemGradients& gradients, Stream stream) {
  const Rows& rows = items.rows;
  launch(key_gradients<bf16>, key_gradients<fp16>, Args(PlainItems(items), gradients),
         static_cast<std::int64_t>(rows.batch) * rows.kv_heads * rows.keys * 32, 32 * kWarps,
         stream);
}

void sum_query_parts(const SpanAttend& items, const ItemGradients& gradients, Stream stream) {
  const std::int64_t values = items.rows.total() * items.rows.head_dim;
  const Args args(PlainItems(items), gradients);
  items.rows.head_dim % 4 == 0
      ? launch(sum_parts<bf16, 4>, sum_parts<fp16, 4>, args, values / 4, 256, stream)
      : launch(sum_parts<bf16, 1>, sum_parts<fp16, 1>, args, values, 256, stream);
}

}  // namespace multistep::cuda
