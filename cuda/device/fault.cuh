#pragma once

#include <cstdint>

/// Faults that the tests inject, so that `multistep compare` or the tests are seen to catch them.
/// In the library itself `faulty` is a constant and vanishes.
namespace multistep::cuda {

enum class Fault : int {
  none,
  oldest_anchor_missed,   // the last stripe is not searched
  first_anchor_repeated,  // stripe w is searched too, though the window has it
  older_key_scored,       // the key before the anchor is scored
  stale_parent_score,     // a path's score is its last anchor's alone
  span_one_short,         // a span ends a key early
  span_shifted,           // a span begins a key early
  mask_missing,           // keys of a span's first and last tile count that are not in it
  wrong_kv_head,          // every head reads KV head 0
  scale_forgotten,        // logits are not scaled
  rescale_forgotten,      // older sums are not rescaled when the maximum grows
  window_one_short,       // the window loses its oldest key
  gates_equal,            // every span weighs the same
  window_lse_ignored,     // span and window are averaged
  tie_turned,             // of equal scores the newer key wins
  start_ignored,          // padding counts
  length_ignored,         // positions do not follow the length on the device
  chunk_offset_dropped,   // later chunks' queries stand where the first one's do
  search_not_awaited,     // decoding reads what the search may not have written
  part_not_counted,       // a row is joined when one of its parts may be missing
  repair_skipped,         // a NaN of another row's keys or values stays
  earlier_parts_lost,     // of long sums the last part alone counts
  tiles_from_range,       // decoding's warps take tiles from where somebody's keys begin
  capacity_decides,       // how decoding cuts a row depends on the cache's capacity
  stale_delta,            // backward: every span's delta is the first one's
  window_every_slot,      // backward: the window counts once for every span
  piece_dropped,          // backward: of a key tile's pieces the last is not summed
  neighbour_range,        // backward: a key tile gets the rows of the tile before
  pieces_as_they_come,    // backward: pieces are summed in the order in which they are done
  little_share_divides,   // backward: what is left for a window is divided by any weight
  anchor_run_cut,       // backward: of an anchor's run of scores that begins earlier a part is lost
  score_gradient_lost,  // backward: gates do not reach the scores
  newest_part_missed,   // of aligned parts the one that is not whole is not searched
  part_tile_skipped,    // of a product's tiles of parts that follow one another one is left out
  dense_chunk_lost,     // of dense attention's chunks of keys the second counts for nothing
  last_pair_lost,       // a tile that holds fewer pairs than it has room for attends to one less
  steps_ignored,        // keys are read as if they were dense
  late_parents_missed,  // of more parents than warps, those that a warp takes last are not searched
  wanted_tile_skipped,  // key tiles in which no row's span begins or ends are not attended to
  page_table_ignored,   // keys in pages are all read from page 0
  turn_repeated,        // of more paths than a list has the first are found again
  counters_left,        // decoding counts parts on from what its workspace held
  key_bounds_ignored,   // packed sequences' keys are taken to lie as their queries do
  cut_part_lost,        // of a tile that is cut up the first part alone is attended to
};

#ifdef MULTISTEP_FAULTS
/// Passed to every kernel through this host variable, as part of its arguments.
extern int injected_fault;
inline int current_fault() { return injected_fault; }
/// (Row, slot) pairs of a chunk of a prefill; 0: as many as without this.
extern std::int64_t injected_chunk_pairs;
inline std::int64_t chunk_pairs(std::int64_t usual) {
  return injected_chunk_pairs > 0 ? injected_chunk_pairs : usual;
}
__host__ __device__ inline bool faulty(int injected, Fault fault) {
  return injected == static_cast<int>(fault);
}
#else
inline int current_fault() { return 0; }
inline std::int64_t chunk_pairs(std::int64_t usual) { return usual; }
__host__ __device__ constexpr bool faulty(int, Fault) { return false; }
#endif

}  // namespace multistep::cuda
