#pragma once

#include <string_view>
#include <vector>

#include "multistep/patterns.hpp"
#include "patterns/row_builder.hpp"

namespace multistep {

/// The parameters of a pattern, by name.
class Parameters {
 public:
  explicit Parameters(const std::vector<PatternParameter>& values) : values_(values) {}

  Index operator[](std::string_view name) const {
    for (const PatternParameter& parameter : values_) {
      if (parameter.name == name) return parameter.value;
    }
    return 0;
  }

 private:
  const std::vector<PatternParameter>& values_;
};

struct ParameterDefinition {
  std::string_view name;
  Index paper;  // the value in the paper
  Index low = 1;
  Index high = kMaxLength;
  std::string_view most = "";  // the parameter that it must not pass, whose definition comes first
};

struct Pattern::Definition {
  std::string_view name;
  std::vector<ParameterDefinition> parameters;
  void (*define)(const Parameters&, RowBuilder&);
};

using PatternDefinitions = std::vector<Pattern::Definition>;

const PatternDefinitions& position_patterns();  // positions alone decide
const PatternDefinitions& averaging_patterns();
const PatternDefinitions& routed_patterns();  // content chooses

}  // namespace multistep
