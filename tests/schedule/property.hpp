#pragma once

#include <rapidcheck.h>

#include <cstdlib>
#include <string>

#include "support/catch.hpp"

/// Checks a RapidCheck property with a fixed seed; RC_PARAMS in the environment overrides it.
template <class Property>
void check_property(const std::string& sentence, Property&& property) {
  setenv("RC_PARAMS", "seed=20260118 max_success=200", 0);
  CHECK(rc::check(sentence, std::forward<Property>(property)));
}
