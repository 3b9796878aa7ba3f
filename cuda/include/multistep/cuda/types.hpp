#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "multistep/schedule.hpp"

struct CUstream_st;

/// The stages of multi-step attention on the GPU. Every function here enqueues work on the caller's
/// stream and returns: it neither allocates nor synchronizes, and can be captured in a CUDA graph.
/// Pointers are to memory of the current device unless said otherwise; arrays are dense, row-major,
/// where there are no Strides of theirs.
///
/// Results are the same bits in every run. A row's result depends neither on the other rows nor on
/// how queries are cut into calls, nor on the capacity of the cache (Shape::keys, the plan's
/// max_length), nor on whether its position comes from the host or the device, but for the order of
/// sums, whose difference is within rounding (SPEC 8), between
/// - the plain rung and the fast one, and code compiled for different architectures;
/// - attention() for few queries and for many. Few are at most 64 rows of a KV head (queries times
///   query heads a KV head), on contexts of 16Ki keys and more with N > 1 as many as read less of
///   the context one by one than all of it, and all calls with Shape::length; a head_dim that
///   is a multiple of 8 and top_k <= 16 are further conditions. plan_attention() tells.
///   Paths and scores are the same in both;
/// - calls in which a row's tile holds other rows' keys or values that are NaN or infinite, and
///   those in which it does not.
///
/// Every function throws std::invalid_argument for arguments that it can see to be wrong, before
/// anything is launched, and std::runtime_error where CUDA reports an error.
namespace multistep::cuda {

using Stream = CUstream_st*;  // cudaStream_t

/// Longest context that the kernels take, in keys: they count keys in 32 bits.
inline constexpr Index kMaxContext = (Index{1} << 31) - 2;
/// Largest head_dim that they take.
inline constexpr int kMaxHeadDim = 256;

/// Storage type of queries, keys, values and outputs. Sums are in float32.
enum class Dtype { bf16, fp16 };

/// `plain` kernels are short transliterations of the oracle and take every shape. `fast` ones take
/// the shapes that they are built for, and leave the others to the plain kernels; which and why,
/// plan_attention() tells. `fast_or_refuse` leaves none: it throws.
enum class Rung { plain, fast, fast_or_refuse };

/// Where the rows of head_dim values lie in an array of [batch, heads, length, head_dim]: the steps
/// from one batch, head and row to the next, in values, multiples of 8. The values of a row are
/// next to each other. All 0: dense.
struct Strides {
  Index batch = 0;
  Index head = 0;
  Index row = 0;

  bool dense() const { return batch == 0 && head == 0 && row == 0; }
};

/// Half-open interval of keys, [begin, end).
struct DeviceSpan {
  std::int32_t begin;
  std::int32_t end;
};

/// Number of GPUs that the process can use; 0 without a driver.
int device_count();

/// Why the current device cannot run the kernels, in one line: no driver, no device, no kernels for
/// this chip. Empty where it can.
std::string why_unusable();

/// The exact tables of a schedule, copied to the current device: stripes, and the reaches B(n) and
/// F(n) as step functions. Copies share the tables. Construction allocates and waits; make it
/// ahead.
class DeviceSchedule {
 public:
  /// Throws std::invalid_argument where plan.max_length() exceeds kMaxContext, or where a table
  /// would pass 2^26 entries.
  explicit DeviceSchedule(StripePlan plan);

  /// The same tables with another number of paths kept, [1, 64].
  DeviceSchedule with_top_k(Index top_k) const {
    DeviceSchedule changed = *this;
    changed.plan_ = plan_.with_top_k(top_k);
    return changed;
  }

  const StripePlan& plan() const { return plan_; }
  Index levels() const { return plan_.steps() - 1; }
  Index top_k() const { return plan_.schedule().top_k; }

  struct Tables;  // cuda/device/schedule.cuh
  const Tables& tables() const { return *tables_; }

 private:
  StripePlan plan_;
  std::shared_ptr<const Tables> tables_;
};

/// Query row i of a sequence stands at position query_offset + i. With `length`, which lives on the
/// device so that a captured graph follows a growing cache, it stands at
/// length[batch] - queries + i instead, and query_offset counts for nothing. A length is at most
/// keys and the plan's max_length(): of a longer one the rest is left out.
///
/// The arrays hold the keys [key_offset, key_offset + keys): all of them, with key_offset 0 and
/// possibly a spare tail, or a shard of a longer context. Rows past the last query's position, and
/// rows before `start`, are not read or do not count: they may hold anything, NaN included.
///
/// With `cu_seqlens` the rows are those of packed sequences, one behind the other, queries and keys
/// alike: a query looks at keys of its own sequence alone, and rows behind the last sequence have
/// no keys. Batch is then 1, query_offset 0, and there is neither a start nor a length.
///
/// With `cu_seqlens_k` too the keys of the packed sequences have bounds of their own: new queries
/// over caches of any length. A sequence's last query stands at its newest key: row i of [0,
/// queries) at cu_seqlens_k[s + 1] - cu_seqlens[s + 1] + i, a row of the keys, as spans and anchors
/// are. Of more queries than keys the first ones have no keys. Rows of keys behind the last
/// sequence do not count, and may hold anything. The plan's max_length() is at least keys; of a
/// bound above keys the rest is left out.
///
/// With `block_table`, which goes with a length and which attention() alone takes, keys, values and
/// search keys lie in pools [pages, num_kv_heads, page_size, head_dim]: key j of a sequence is row
/// j % page_size of the page that entry j / page_size of its table names. Strides::batch is then
/// the step from one page to the next. Only entries of keys that count are read, and of their pages
/// only these keys: all others may be anything.
struct Shape {
  Index batch = 1;
  Index num_heads = 1;
  Index num_kv_heads = 1;  // divides num_heads; query head h reads KV head h / (num_heads / this)
  Index queries = 0;       // L_q
  Index keys = 0;          // L_kv, rows of the key and value arrays
  Index head_dim = 0;      // [1, kMaxHeadDim]
  Index query_offset = 0;
  Index key_offset = 0;
  const std::int32_t* start = nullptr;   // [batch] on the device, first eligible key; null: 0
  const std::int32_t* length = nullptr;  // [batch] on the device, keys in the whole context; null
  Index sequences = 0;                   // packed, where there are cu_seqlens
  const std::int32_t* cu_seqlens = nullptr;    // [sequences + 1] on the device: first rows, from 0,
                                               // and the end of the last; not decreasing
  const std::int32_t* cu_seqlens_k = nullptr;  // the same of keys; null: those of the queries
  const std::int32_t* block_table = nullptr;   // [batch, max_pages] on the device; null: no pages
  Index max_pages = 0;                         // of a sequence; keys <= max_pages * page_size
  Index page_size = 0;                         // keys of a page, a power of two from 16

  Index rows() const { return batch * num_heads * queries; }  // [batch, num_heads, L_q]
  Index group() const { return num_heads / num_kv_heads; }
  /// The device alone knows where a sequence's keys end.
  bool keys_on_device() const { return length || cu_seqlens_k; }
};

/// Scratch memory of a call, 256-byte aligned, of at least workspace_size(args) bytes. It need not
/// be initialized. Calls on different streams need different workspaces.
struct Workspace {
  void* data = nullptr;
  std::size_t size = 0;
};

}  // namespace multistep::cuda
