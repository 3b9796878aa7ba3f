#pragma once

#include "group/laid_items.cuh"

/// Keys as owners of their sums: a block takes 128 keys of a KV head with some of the tiles of rows
/// that look at them. Rows lie in the order of the keys that they look at, so those tiles are one
/// range; long ranges are cut into pieces of about one size, whose sums are added up in order.
namespace multistep::cuda {

inline constexpr int kOwnedKeys = 128;
inline constexpr std::int32_t kMaxPieceSums = 2048;  // pieces with sums of their own
inline constexpr std::int32_t kMinPieceTiles = 32;   // tiles of rows of a piece

struct KeyPiece {
  std::int32_t key_tile;  // [kv_heads, tiles of keys]
  std::int32_t begin;     // tiles of rows
  std::int32_t end;
  std::int32_t sums;  // where they are kept; -1: the tile's first, which is added at once
};

struct KeyPieces {
  std::int32_t tiles_per_head;  // of keys
  std::int32_t key_tiles;
  KeyPiece* piece;      // [key_tiles + kMaxPieceSums]
  std::int32_t* count;  // of them
  KeyPiece* of_tile;    // [key_tiles]: its range of rows; later the first of its sums, and how many
  float* sums;          // [kMaxPieceSums, 2, 128, head_dim], of keys and values

  KeyPieces(const Rows& rows, Arena& arena);
};

/// The rows' tiles that the keys are looked at by.
void cut_pieces(const LaidItems& items, const KeyPieces& pieces, Stream stream);

/// Adds the sums of tiles with several pieces, in the order of the rows.
void add_pieces(const Rows& rows, const KeyPieces& pieces, float* key_sums, float* value_sums,
                Stream stream);

}  // namespace multistep::cuda
