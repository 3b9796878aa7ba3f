#include "judge/items.hpp"

#include "stages/attend_row.hpp"
#include "support/parallel.hpp"

namespace multistep {

double stored_deviation(Storage storage, double value) {
  return rounding_of(storage, value) / std::sqrt(3.0);
}

RowVerdict judge_outputs(const std::vector<const RoundedItem*>& exact,
                         const std::vector<const YardstickItem*>& yardsticks, const double* got,
                         Storage storage) {
  std::vector<double> want, yardstick, luck, slack, magnitude;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const RoundedItem& item = *exact[i];
    const std::vector<double> stored = yardsticks[i]->stored(storage);
    want.insert(want.end(), item.output.begin(), item.output.end());
    yardstick.insert(yardstick.end(), stored.begin(), stored.end());
    for (std::size_t c = 0; c < item.output.size(); ++c) {
      luck.push_back(std::hypot(item.deviation[c], stored_deviation(storage, item.output[c])));
    }
    slack.insert(slack.end(), item.flushed.begin(), item.flushed.end());
    magnitude.insert(magnitude.end(), item.magnitude.begin(), item.magnitude.end());
  }
  return judge_row({{got, want.size()}, want, yardstick, luck, slack, magnitude}, storage);
}

RowVerdict judge_lses(const std::vector<const RoundedItem*>& exact,
                      const std::vector<const YardstickItem*>& yardsticks, const double* got) {
  std::vector<double> want, yardstick, luck, magnitude;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    want.push_back(exact[i]->lse);
    yardstick.push_back(static_cast<double>(yardsticks[i]->lse));
    luck.push_back(std::hypot(exact[i]->lse_deviation, kSingle * exact[i]->lse));
    // A logarithm as well as the logits: four times the floor of an output.
    magnitude.push_back(4 * std::max(1.0, std::abs(exact[i]->lse)));
  }
  return judge_row({{got, want.size()}, want, yardstick, luck, {}, magnitude}, Storage::float32);
}

template <class T>
ItemsReport judge_items(const SpanAttentionArgs<T>& args, Storage storage, const double* outputs,
                        const double* lses) {
  const Rows rows(args.shape);
  require_spans(rows, args);
  require_array(outputs, "outputs", rows.count());
  require_array(lses, "lses", rows.count());
  const Index d = args.shape.head_dim;
  const double scale = scale_or_default(args.softmax_scale, d);
  const Index items = rows.count() * args.slots;
  std::vector<RowVerdict> of_outputs(at(items)), of_lses(at(items));
  std::vector<Index> heads(at(items));
  parallel_blocks(rows.count(), 1, [&] {
    return [&](Index row, Index) {
      const Vector query = vector_at(args.query, row, d);
      const Index first = rows.kv_row(row, 0) * d;
      for (Index slot = row * args.slots; slot < (row + 1) * args.slots; ++slot) {
        const Span keys = item_keys(args, rows, slot);
        const RoundedItem exact =
            round_item(keys, query, args.key + first, args.value + first, scale, storage);
        const YardstickItem yardstick = yardstick_item(keys, args.query + row * d, args.key + first,
                                                       args.value + first, d, scale, storage);
        of_outputs[at(slot)] = judge_outputs({&exact}, {&yardstick}, outputs + slot * d, storage);
        of_lses[at(slot)] = judge_lses({&exact}, {&yardstick}, lses + slot);
        heads[at(slot)] = row / args.shape.queries;
      }
    };
  });
  return {judge_rows(of_outputs, heads), judge_rows(of_lses, heads)};
}

template ItemsReport judge_items(const SpanAttentionArgs<float>&, Storage, const double*,
                                 const double*);
template ItemsReport judge_items(const SpanAttentionArgs<double>&, Storage, const double*,
                                 const double*);

}  // namespace multistep
