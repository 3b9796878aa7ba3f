#pragma once

#include "attend/attend_tiles_sm80.cuh"
#include "attend/attend_tiles_sm90.cuh"

namespace multistep::cuda {

/// By what the code that was loaded has: Hopper's instructions, or not.
template <class Tiles>
void launch_attend_tiles(const Tiles& args, Stream stream) {
  if (args.per_head == 0 || args.rows.keys == 0) return;
  current_device().hopper ? launch_attend_tiles_sm90(args, stream)
                          : launch_attend_tiles_sm80(args, stream);
}

}  // namespace multistep::cuda
