#pragma once

/// All of the kernels' library.
#include "multistep/cuda/accumulation.hpp"
#include "multistep/cuda/attention.hpp"
#include "multistep/cuda/gradients.hpp"
#include "multistep/cuda/memory.hpp"
#include "multistep/cuda/plan.hpp"
#include "multistep/cuda/timing.hpp"
#include "multistep/cuda/types.hpp"
