#include "multistep/accumulation.hpp"
#include "multistep/coverage.hpp"
#include "multistep/power.hpp"
#include "support/catch.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::Problem;
using inputs::Random;

namespace {

/// Keeps what it is told, and wants no more after some calls.
class Listener {
 public:
  explicit Listener(std::size_t patience = SIZE_MAX) : patience_(patience) {}

  Progress progress() {
    return [this](Index done, Index total) {
      told_.push_back(done);
      totals_.push_back(total);
      return told_.size() < patience_;
    };
  }
  const std::vector<Index>& told() const { return told_; }

  /// Was told of no step back, of one total alone, and of its end at the end?
  bool heard_all_of(Index total) const {
    return !told_.empty() && std::is_sorted(told_.begin(), told_.end()) && told_.back() == total &&
           std::count(totals_.begin(), totals_.end(), total) == std::ssize(totals_);
  }

 private:
  std::size_t patience_;
  std::vector<Index> told_, totals_;
};

Schedule with_holes(Index steps) {
  Schedule schedule = inputs::uniform_schedule(Rule::power, steps);
  for (Level& level : schedule.levels) level.backward = make_rational(19, 10);
  return schedule;
}

/// Runs work(progress) to its end, which `total` is, and then with a listener that stops it at
/// once and one that stops it later, if there is a later.
template <class Work>
void check_cancels(Index total, Work work) {
  const inputs::Threads two(2);
  Listener patient;
  work(patient.progress());
  CHECK(patient.heard_all_of(total));
  Listener hasty(1);
  CHECK_THROWS_AS(work(hasty.progress()), Cancelled);
  CHECK(hasty.told().size() == 1);
  CHECK(hasty.told().front() < total);
  Listener slower(patient.told().size());
  try {
    work(slower.progress());  // may have been asked less often: machines differ
  } catch (const Cancelled&) {
    CHECK(slower.told().size() == patient.told().size());
  }
}

}  // namespace

TEST_CASE("The checker tells how far it is, and stops where it is told to", "[coverage]") {
  for (const Schedule& schedule : {preset_schedule("nstep"), preset_schedule("even", 3),
                                   preset_schedule("aligned", 3), with_holes(2)}) {
    check_cancels(10'000, [&](const Progress& progress) {
      return verify_all(schedule, 10'000, 0, progress);
    });
    check_cancels(700, [&](const Progress& progress) {
      return verify_sampled(schedule, 1'000'000, 100, 700, 1, progress);
    });
  }
}

TEST_CASE("One query that takes long can be stopped in its midst", "[coverage]") {
  // Its holes alone take seconds: 2 * 10^4 spans at level 1, with holes of their own.
  std::size_t asked = 0;
  const auto stop_third = [&](Index done, Index) {
    CHECK(done == 0);
    return ++asked < 3;
  };
  CHECK_THROWS_AS(verify_sampled(with_holes(3), Index{1} << 40, 0, 1, 1, stop_third), Cancelled);
  CHECK(asked == 3);
}

TEST_CASE("Tables tell how far they reach, and stop where they are told to", "[schedule]") {
  Index stripes = 0;
  for (const Level& level : with_holes(3).levels) {
    for (Index i = 1; floor_power(i, level.exponent) <= 10'000'000; ++i) ++stripes;
  }
  check_cancels(stripes, [](const Progress& progress) {
    return StripePlan(with_holes(3), 10'000'000, progress);
  });
}

TEST_CASE("Attention stops where it is told to", "[attention]") {
  const auto problem =
      inputs::random_problem(preset_schedule("nstep"), inputs::grouped_sizes(3, 5), 60);
  check_cancels(problem.sizes.rows(),
                [&](const Progress& progress) { return attention(problem.attention(), progress); });
}

TEST_CASE("Accumulation stops where it is told to", "[accumulation]") {
  const Index length = 2000, d = 64, state = 64;
  Random random(61);
  const auto x = random.tensor(length * d);
  const auto bc = random.tensor(length * state);
  const std::vector<double> a(length, 0.5), weights(length * d, 1);
  AccumulationArgs<double> args;
  args.num_heads = 1;
  args.length = length;
  args.head_dim = d;
  args.state = state;
  args.x = x.data();
  args.a = a.data();
  args.b = args.c = bc.data();
  check_cancels(length, [&](const Progress& progress) { return accumulate(args, progress); });
  check_cancels(length, [&](const Progress& progress) {
    return accumulate_backward(args, weights.data(), nullptr, progress);
  });
}

TEST_CASE("Work that nobody asks about has no progress to tell", "[coverage]") {
  CHECK(verify_all(preset_schedule("nstep"), 1000).covered());
}
