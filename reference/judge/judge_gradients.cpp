#include "multistep/judge_gradients.hpp"

#include <algorithm>

#include "judge/all_gradients.hpp"
#include "judge/gradient_sum.hpp"
#include "judge/key_uses.hpp"
#include "stages/part.hpp"
#include "stages/stage_gradients.hpp"
#include "support/parallel.hpp"
#include "support/watch.hpp"

namespace multistep {
namespace {

template <class T>
class GradientJudge {
 public:
  GradientJudge(const SubmittedGradients<T>& submitted, Storage storage,
                std::span<const Index> rows, std::span<const Index> keys)
      : submitted_(submitted),
        args_(submitted.attention),
        selection_(*submitted.selection),
        storage_(storage),
        all_(args_.shape),
        d_(args_.shape.head_dim),
        scale_(scale_or_default(args_.softmax_scale, d_)),
        sampled_rows_(rows),
        sampled_keys_(keys),
        levels_(std::ssize(submitted.routing_queries)),
        of_query_(submitted.query ? rows.size() : 0),
        of_routing_(rows.size() * at(levels_)),
        of_key_(submitted.key ? keys.size() : 0),
        of_value_(submitted.value ? keys.size() : 0),
        of_search_keys_(submitted.search_keys ? keys.size() : 0) {}

  JudgeReport judge(const Progress& progress) {
    const std::vector<UsesOfKey> uses =
        uses_of(sampled_keys_, args_.shape, *args_.plan, selection_);
    const std::vector<Index> needed = needed_rows(uses);
    Watch watch(progress,
                std::ssize(needed) + std::ssize(sampled_rows_) + std::ssize(sampled_keys_));
    const auto for_each = [&](Index count, auto&& body) {
      parallel_blocks(count, 1, [&] {
        return [&](Index i, Index) {
          body(i);
          watch.add(1);
        };
      });
    };
    prepared_.resize(needed.size());
    for_each(std::ssize(needed), [&](Index i) {
      prepared_[at(i)] = gradient_row(submitted_, all_, needed[at(i)], storage_);
    });
    for_each(std::ssize(sampled_rows_), [&](Index s) { judge_query(s); });
    for_each(std::ssize(sampled_keys_), [&](Index s) { judge_key(s, uses[at(s)]); });
    watch.finish();
    return report();
  }

 private:
  std::vector<Index> needed_rows(const std::vector<UsesOfKey>& uses) {
    place_.assign(at(all_.count()), -1);
    const auto need = [&](Index row) { place_[at(row)] = 0; };
    for (const Index row : sampled_rows_) need(row);
    for (const UsesOfKey& key : uses) {
      for (const ItemUse& use : key.items) need(use.row);
      for (const AnchorUse& use : key.anchors) need(use.row);
    }
    std::vector<Index> needed;
    for (Index row = 0; row < all_.count(); ++row) {
      if (place_[at(row)] < 0) continue;
      place_[at(row)] = std::ssize(needed);
      needed.push_back(row);
    }
    return needed;
  }
  const GradientRow& prepared(Index row) const { return prepared_[at(place_[at(row)])]; }

  const T* searched() const { return args_.search_keys ? args_.search_keys : args_.key; }

  void judge_query(Index s) {
    const Index row = sampled_rows_[at(s)];
    const GradientRow& of = prepared(row);
    if (submitted_.query) {
      GradientSum sum(d_, storage_);
      for (const GradientItem& item : of.items) add_item(item, row, sum);
      of_query_[at(s)] = sum.judge(submitted_.query + row * d_);
    }
    for (Index m = 0; m < levels_; ++m) {
      GradientSum sum(d_, storage_);
      const Index* anchors = selection_.anchors.data() + row * selection_.top_k * levels_ + m;
      for (std::size_t rank = 0; rank < of.scores.size(); ++rank) {
        const Index kv = all_.kv_row(row, anchors[static_cast<Index>(rank) * levels_]);
        sum.add(of.scores[rank].scaled(args_.search_scale), vector_at(searched(), kv, d_));
      }
      sum.end_part();
      of_routing_[at(s * levels_ + m)] = sum.judge(submitted_.routing_queries[at(m)] + row * d_);
    }
  }

  /// dq += the sum over an item's keys of d logit k.
  void add_item(const GradientItem& item, Index row, GradientSum& sum) const {
    const Vector d_output = output_gradient(submitted_, row);
    Vector by_lse = Vector::Zero(d_), by_share = by_lse, by_shift = by_lse;
    for (Index j = item.keys.begin; j < item.keys.end; ++j) {
      const Index kv = all_.kv_row(row, j);
      const PairTerms terms = pair(item, row, kv, d_output);
      const Vector key = vector_at(args_.key, kv, d_);
      sum.add(terms.logit, key);
      by_lse += terms.by_lse * key;
      by_share += terms.by_share * key;
      by_shift += terms.by_shift * key;
    }
    for (const Vector& deviation : {by_lse, by_share, by_shift}) sum.add_deviation(deviation);
    sum.end_part();
  }

  PairTerms pair(const GradientItem& item, Index row, Index kv, const Vector& d_output) const {
    return pair_terms(item, args_.query + row * d_, args_.key + kv * d_, args_.value + kv * d_,
                      d_output, scale_, storage_);
  }

  /// Is use i the last of its query head?
  template <class Use>
  bool ends_head(const std::vector<Use>& uses, std::size_t i) const {
    const auto head = [&](const Use& use) { return use.row / args_.shape.queries; };
    return i + 1 == uses.size() || head(uses[i + 1]) != head(uses[i]);
  }

  /// dv += p share dO, dk += d logit q and, where K is searched, d score times a routing query.
  void judge_key(Index s, const UsesOfKey& uses) {
    const Index kv = sampled_keys_[at(s)];
    GradientSum key(d_, storage_), value(d_, storage_), search(d_, storage_);
    for (std::size_t i = 0; i < uses.items.size(); ++i) {
      const ItemUse& use = uses.items[i];
      const Vector d_output = output_gradient(submitted_, use.row);
      const PairTerms terms = pair(prepared(use.row).items[at(use.item)], use.row, kv, d_output);
      key.add(terms.logit_alone(), vector_at(args_.query, use.row, d_));
      value.add(terms.value, d_output);
      if (!ends_head(uses.items, i)) continue;
      key.end_part();
      value.end_part();
    }
    GradientSum& searched = args_.search_keys ? search : key;
    for (std::size_t i = 0; i < uses.anchors.size(); ++i) {
      const AnchorUse& use = uses.anchors[i];
      searched.add(prepared(use.row).scores[at(use.rank)].scaled(args_.search_scale),
                   vector_at(args_.routing_queries[at(use.level)], use.row, d_));
      if (ends_head(uses.anchors, i)) searched.end_part();
    }
    if (submitted_.key) of_key_[at(s)] = key.judge(submitted_.key + kv * d_);
    if (submitted_.value) of_value_[at(s)] = value.judge(submitted_.value + kv * d_);
    if (submitted_.search_keys) {
      of_search_keys_[at(s)] = search.judge(submitted_.search_keys + kv * d_);
    }
  }

  // The report

  StageReport stage(const char* name, const std::vector<RowVerdict>& verdicts, bool of_keys,
                    Index levels) const {
    const Shape& shape = args_.shape;
    const Index length = of_keys ? shape.keys : shape.queries;
    const Index in_batch = of_keys ? shape.num_kv_heads : shape.num_heads;
    const std::span<const Index> sample = of_keys ? sampled_keys_ : sampled_rows_;
    std::vector<Index> heads;
    for (Index i = 0; i < std::ssize(verdicts); ++i) {
      heads.push_back(sample[at(i / levels)] / length);
    }
    StageReport stage;
    stage.name = name;
    stage.of_keys = of_keys;
    stage.values = judge_rows(verdicts, heads);
    if (stage.values.worst_row < 0) return stage;
    const Index row = sample[at(stage.values.worst_row / levels)];
    const Index position = of_keys ? row % length : all_.position(row);
    stage.worst = {row / length / in_batch, row / length % in_batch, position};
    if (levels > 1) stage.level = stage.values.worst_row % levels + 1;
    stage.dim = stage.values.worst_value;
    return stage;
  }

  JudgeReport report() const {
    const Shape& shape = args_.shape;
    JudgeReport report;
    report.rows = std::ssize(sampled_rows_);
    report.rows_of = all_.count();
    report.keys = std::ssize(sampled_keys_);
    report.keys_of = shape.batch * shape.num_kv_heads * shape.keys;
    const AllGradients<T> all(submitted_, storage_);
    const auto add = [&](const char* name, bool given, const std::vector<RowVerdict>& verdicts,
                         bool of_keys, Index levels, WholeCheck (AllGradients<T>::*check)() const) {
      if (!given) {
        report.not_supplied.emplace_back(name);
        return;
      }
      report.stages.push_back(stage(name, verdicts, of_keys, levels));
      report.stages.back().whole = (all.*check)();
    };
    using All = AllGradients<T>;
    const bool searches = args_.plan->steps() > 1;
    add("d query", submitted_.query, of_query_, false, 1, &All::query);
    if (searches) {
      add("d routing queries", levels_ > 0, of_routing_, false, levels_, &All::routing_queries);
    }
    add("d key", submitted_.key, of_key_, true, 1, &All::key);
    add("d value", submitted_.value, of_value_, true, 1, &All::value);
    if (searches && args_.search_keys) {
      add("d search keys", submitted_.search_keys, of_search_keys_, true, 1, &All::search_keys);
    }
    return report;
  }

  const SubmittedGradients<T>& submitted_;
  const AttentionArgs<T>& args_;
  const Selection& selection_;
  Storage storage_;
  Rows all_;
  Index d_;
  double scale_;
  std::span<const Index> sampled_rows_;
  std::span<const Index> sampled_keys_;
  Index levels_;              // whose gradients were handed in: all or none
  std::vector<Index> place_;  // of a row in prepared_
  std::vector<GradientRow> prepared_;
  std::vector<RowVerdict> of_query_;
  std::vector<RowVerdict> of_routing_;  // [rows, N - 1]
  std::vector<RowVerdict> of_key_;
  std::vector<RowVerdict> of_value_;
  std::vector<RowVerdict> of_search_keys_;
};

template <class T>
void require_submitted(const SubmittedGradients<T>& submitted, std::span<const Index> rows,
                       std::span<const Index> keys) {
  const AttentionArgs<T>& args = submitted.attention;
  const Rows all(args.shape);
  require_attention(args, all);
  require(submitted.selection, "selection: a null pointer");
  const Selection& selection = *submitted.selection;
  const Index levels = args.plan->steps() - 1;
  require_given(all, selection, levels);
  for (Index row = 0; row < all.count(); ++row) {
    for (Index s = 0; s < selection.count[at(row)]; ++s) {
      const Span span = selection.spans[at(row * selection.top_k + s)];
      require(span.empty() || (span.begin >= all.start(row) && span.end <= all.position(row) + 1),
              "span [{}, {}) of query {}: start {} <= begin, end <= query + 1", span.begin,
              span.end, all.position(row), all.start(row));
    }
  }
  if (!submitted.routing_queries.empty()) {
    require_levels(submitted.routing_queries.size(), levels);
    for (const double* level : submitted.routing_queries) {
      require_array(level, "d routing queries", all.count());
    }
  }
  require(!submitted.search_keys || args.search_keys,
          "d search keys: a part of d key, where K is searched");
  const auto require_sample = [](std::string_view name, std::span<const Index> sample,
                                 Index count) {
    require(!sample.empty(), "{}: none to judge", name);
    require(std::is_sorted(sample.begin(), sample.end()), "{}: not ascending", name);
    for (const Index i : sample) require_within(name, i, 0, count - 1);
  };
  require_sample("rows", rows, all.count());
  require_sample("keys", keys, args.shape.batch * args.shape.num_kv_heads * args.shape.keys);
}

}  // namespace

Selection selection_of(const Submission& given, Index rows, Index top_k, Index levels) {
  Selection selection = no_paths(rows, top_k, levels);
  if (levels == 0) return selection;
  require(given.spans && given.scores && given.anchors,
          "spans, scores, anchors: all of a selection, for its gradients");
  for (Index row = 0; row < rows; ++row) {
    Index& count = selection.count[at(row)];
    while (count < top_k && given.anchors[(row * top_k + count) * levels] >= 0) ++count;
    const auto copy = [&](const auto* from, auto& to, Index width) {
      std::copy_n(from + row * top_k * width, count * width, to.begin() + row * top_k * width);
    };
    copy(given.spans, selection.spans, 1);
    copy(given.scores, selection.scores, 1);
    copy(given.anchors, selection.anchors, levels);
  }
  return selection;
}

template <class T>
JudgeReport judge_gradients(const SubmittedGradients<T>& submitted, Storage storage,
                            std::span<const Index> rows, std::span<const Index> keys,
                            const Progress& progress) {
  require_submitted(submitted, rows, keys);
  return GradientJudge<T>(submitted, storage, rows, keys).judge(progress);
}

JudgeReport with_gradients(JudgeReport values, const JudgeReport& gradients) {
  const auto append = [](const auto& from, auto& to) {
    to.insert(to.end(), from.begin(), from.end());
  };
  append(gradients.stages, values.stages);
  append(gradients.not_supplied, values.not_supplied);
  values.keys = gradients.keys;
  values.keys_of = gradients.keys_of;
  return values;
}

template JudgeReport judge_gradients(const SubmittedGradients<float>&, Storage,
                                     std::span<const Index>, std::span<const Index>,
                                     const Progress&);
template JudgeReport judge_gradients(const SubmittedGradients<double>&, Storage,
                                     std::span<const Index>, std::span<const Index>,
                                     const Progress&);

}  // namespace multistep
