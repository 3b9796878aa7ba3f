#pragma once

/// All of the reference library.
#include "multistep/accumulation.hpp"
#include "multistep/attention.hpp"
#include "multistep/count.hpp"
#include "multistep/coverage.hpp"
#include "multistep/gradients.hpp"
#include "multistep/host_memory.hpp"
#include "multistep/judge.hpp"
#include "multistep/judge_gradients.hpp"
#include "multistep/memory.hpp"
#include "multistep/power.hpp"
#include "multistep/schedule.hpp"
#include "multistep/shards.hpp"
#include "multistep/types.hpp"
#include "multistep/walk.hpp"
#include "multistep/work.hpp"
