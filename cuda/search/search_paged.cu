#include "search/search_levels.cuh"

namespace multistep::cuda {

void search_levels_paged(const LevelSearch* levels, int count, const SearchScratch& scratch,
                         Stream stream) {
  search_levels<true>(levels, count, scratch, stream);
}

}  // namespace multistep::cuda
