#include "bench/sweep_axes.hpp"

#include <algorithm>
#include <functional>

namespace multistep::program {
namespace {

constexpr Index kShortest = 1 << 10;  // of the axis of keys

/// One place on an axis.
struct Place {
  std::string value;
  std::function<void(SweepPoint&)> move;
};

/// Places at numbers, in order, with the base's own among them.
std::vector<Place> places(std::vector<Index> numbers, Index own,
                          const std::function<void(SweepPoint&, Index)>& move) {
  numbers.push_back(own);
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  std::vector<Place> result;
  for (const Index number : numbers) {
    result.push_back({std::to_string(number), [=](SweepPoint& point) { move(point, number); }});
  }
  return result;
}

Index queries_of(const std::string& phase, Index length, Index chunk) {
  return phase == "decode" ? 1 : std::min(length, chunk);
}

bool same(const SweepPoint& a, const SweepPoint& b) {
  return a.config == b.config && a.schedule.top_k == b.schedule.top_k && a.shape == b.shape &&
         a.lse == b.lse && a.interleaved == b.interleaved;
}

class Builder {
 public:
  Builder(Sweep& sweep, const SweepPoint& base, const SweepBases& bases)
      : sweep_(sweep), base_(base), bases_(bases) {}

  void add() {
    for (const Index length : bases_.lengths) {
      for (const std::string& phase : bases_.phases) add_around(phase, length);
      add_queries(length);
    }
    for (const std::string& phase : bases_.phases) add_keys(phase);
  }

 private:
  /// What a call can differ in beside its queries and keys. A new one is an entry here.
  void add_around(const std::string& phase, Index length) {
    SweepPoint base = base_;
    base.shape.length = length;
    base.shape.queries = queries_of(phase, length, bases_.chunk);
    const auto add = [&](const char* name, const std::vector<Place>& at) {
      add_axis({base_.config, name, phase, length, {}, {}}, base, at);
    };
    if (base.schedule.steps > 1) {  // dense attention keeps no paths
      add("top_k", places({1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 32}, base.schedule.top_k,
                          [](SweepPoint& to, Index k) { to.schedule.top_k = k; }));
    }
    add("head_dim", places({32, 64, 80, 96, 128, 192, 256}, base.shape.head_dim,
                           [](SweepPoint& to, Index d) { to.shape.head_dim = d; }));
    std::vector<Index> groups{1, 2, 4, 8, 16, 32};
    std::erase_if(groups, [&](Index group) { return base.shape.heads % group != 0; });
    add("group", places(groups, base.shape.group(), [](SweepPoint& to, Index group) {
          to.shape.kv_heads = to.shape.heads / group;
        }));
    add("batch", places({1, 2, 3, 4, 8}, base.shape.batch,
                        [](SweepPoint& to, Index batch) { to.shape.batch = batch; }));
    add("layout", {{"[B, H, L, D]", [](SweepPoint& point) { point.interleaved = false; }},
                   {"[B, L, H, D]", [](SweepPoint& point) { point.interleaved = true; }}});
    std::vector<InputKind> inputs{InputKind::random, InputKind::clustered, InputKind::hot};
    if (base.shape.inputs == InputKind::needle) inputs.push_back(InputKind::needle);
    std::vector<Place> kinds;
    for (const InputKind kind : inputs) {
      kinds.push_back(
          {std::string(to_string(kind)), [kind](SweepPoint& point) { point.shape.inputs = kind; }});
    }
    add("inputs", kinds);
    add("outputs", {{"output", [](SweepPoint& point) { point.lse = false; }},
                    {"output, LSE", [](SweepPoint& point) { point.lse = true; }}});
  }

  void add_queries(Index length) {
    std::vector<Index> numbers{1, 2, 3, 4, 5, 8, 16, 17, 32, 64, 128, 256, 512, 1024, 2048, 4096};
    std::erase_if(numbers, [&](Index queries) { return queries > length; });
    SweepPoint base = base_;
    base.shape.length = length;
    const Index chunk = queries_of("prefill", length, bases_.chunk);
    add_axis({base_.config, "queries", "", length, {}, {}}, base,
             places(numbers, chunk, [](SweepPoint& to, Index q) { to.shape.queries = q; }));
  }

  /// Powers of two, and one more, which fills no tile.
  void add_keys(const std::string& phase) {
    std::vector<Index> numbers = bases_.lengths;
    const Index longest = *std::max_element(numbers.begin(), numbers.end());
    for (Index power = kShortest; power <= longest; power *= 2) {
      numbers.insert(numbers.end(), {power, power + 1});
    }
    std::erase_if(numbers, [&](Index keys) { return keys <= base_.shape.start; });
    add_axis({base_.config, "keys", phase, 0, {}, {}}, base_,
             places(numbers, longest, [&](SweepPoint& to, Index keys) {
               to.shape.length = keys;
               to.shape.queries = queries_of(phase, keys, bases_.chunk);
             }));
  }

  void add_axis(SweepAxis axis, const SweepPoint& base, const std::vector<Place>& at) {
    for (const Place& place : at) {
      SweepPoint point = base;
      place.move(point);
      axis.values.push_back(place.value);
      axis.points.push_back(index_of(point));
    }
    sweep_.axes.push_back(std::move(axis));
  }

  std::size_t index_of(const SweepPoint& point) {
    auto& points = sweep_.points;
    const auto found = std::find_if(points.begin(), points.end(),
                                    [&](const SweepPoint& one) { return same(one, point); });
    if (found != points.end()) return static_cast<std::size_t>(found - points.begin());
    points.push_back(point);
    return points.size() - 1;
  }

  Sweep& sweep_;
  const SweepPoint& base_;
  const SweepBases& bases_;
};

}  // namespace

void Sweep::add(const SweepPoint& base, const SweepBases& bases) {
  Builder(*this, base, bases).add();
}

}  // namespace multistep::program
