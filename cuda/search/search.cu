#include "search/search_levels.cuh"

namespace multistep::cuda {

/// No chip need grant 16 blocks, and a share of one may lack the room for fewer.
int largest_cluster() {
  static PerDevice<int> sizes;
  return sizes.of_current([](int) {
    if (!current_device().clusters()) return 1;
    const auto kernel = search_few<bf16, kMaxHeadDim, kMaxFastTopK, false>;  // no other needs more
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
          "cudaFuncSetAttribute");
    int blocks = kMaxCluster;
    for (; blocks > 1; blocks /= 2) {
      cudaLaunchAttribute cluster{};
      cluster.id = cudaLaunchAttributeClusterDimension;
      cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
      cudaLaunchConfig_t config{};
      config.gridDim = static_cast<unsigned>(blocks);
      config.blockDim = kThreads;
      config.attrs = &cluster;
      config.numAttrs = 1;
      int fitting = 0;
      if (cudaOccupancyMaxActiveClusters(&fitting, kernel, &config) == cudaSuccess && fitting > 0) {
        break;
      }
      cudaGetLastError();  // too many blocks are an error: fewer may do
    }
    return blocks;
  });
}

bool search_needs_lists(const LevelSearch& search) { return search.parents && !are_few(search); }

void search_levels_fast(const LevelSearch* levels, int count, const SearchScratch& scratch,
                        Stream stream) {
  if (levels->rows.total() == 0) return;
  levels->rows.pages.table ? search_levels_paged(levels, count, scratch, stream)
                           : search_levels<false>(levels, count, scratch, stream);
}

}  // namespace multistep::cuda
