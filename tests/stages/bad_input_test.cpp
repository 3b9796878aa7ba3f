#include "multistep/accumulation.hpp"
#include "multistep/gradients.hpp"
#include "support/catch.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::at;
using inputs::Problem;

namespace {

/// The message that f() is refused with; "nothing thrown" where it is not.
template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing thrown";
}

void check_null(const std::string& message, const std::string& name) {
  CHECK_THAT(message, ContainsSubstring(name) && ContainsSubstring("a null pointer"));
}

Shape good_sizes() { return inputs::grouped_sizes(2, 3, 5, 1); }

Problem<double> good_problem() {
  return inputs::random_problem(preset_schedule("nstep", 3), good_sizes(), 91);
}

/// What every stage says to a shape; the arrays are never reached.
std::vector<std::string> refusals(const Shape& shape) {
  const Problem<double> problem = good_problem();
  auto search = problem.search();
  auto attend = problem.attention();
  search.shape = attend.shape = shape;
  const std::vector<Span> spans(1000);
  const std::vector<double> gradient(1000);
  const SpanAttentionArgs<double> span_args{
      shape, problem.query.data(), problem.key.data(), problem.value.data(), 1, spans.data()};
  return {refusal([&] { span_search(search); }),
          refusal([&] { span_attention(span_args); }),
          refusal([&] { attention(attend); }),
          refusal([&] { span_attention_backward(span_args, gradient.data()); }),
          refusal([&] { span_search_backward(search, {}, gradient.data()); }),
          refusal([&] { attention_backward(attend, {gradient.data()}); })};
}

struct BadShape {
  Index Shape::*member;
  Index value;
  std::string name, range;
};

struct Attend {
  Problem<double> problem = good_problem();
  std::vector<Span> spans = std::vector<Span>(24 * 2);
  std::vector<Span> windows = problem.windows();
  std::vector<double> gradient = std::vector<double>(24 * 2 * 2);

  SpanAttentionArgs<double> args() const {
    return {problem.shape(), problem.query.data(), problem.key.data(), problem.value.data(), 2,
            spans.data(),    windows.data()};
  }
  /// What both directions say, which is the same.
  std::string message(const SpanAttentionArgs<double>& with) const {
    const std::string forward = refusal([&] { span_attention(with); });
    CHECK(refusal([&] { span_attention_backward(with, gradient.data()); }) == forward);
    return forward;
  }
};

}  // namespace

TEST_CASE("A good problem is not refused", "[search][attention][gradients]") {
  const auto messages = refusals(good_sizes());
  for (const std::size_t stage : {0U, 1U, 2U, 3U, 5U}) CHECK(messages[stage] == "nothing thrown");
}

TEST_CASE("Every stage refuses a bad shape and says what is wrong with it",
          "[search][attention][gradients]") {
  const std::vector<BadShape> cases{
      {&Shape::batch, 0, "batch 0", "[1, "},
      {&Shape::batch, -1, "batch -1", "[1, "},
      {&Shape::num_heads, 0, "num_heads 0", "[1, "},
      {&Shape::num_kv_heads, 0, "num_kv_heads 0", "[1, 4]"},
      {&Shape::num_kv_heads, 3, "num_kv_heads 3", "num_heads 4"},
      {&Shape::num_kv_heads, 8, "num_kv_heads 8", "[1, 4]"},
      {&Shape::head_dim, 0, "head_dim 0", "[1, "},
      {&Shape::head_dim, -64, "head_dim -64", "[1, "},
      {&Shape::query_offset, -1, "query_offset -1", "[0, "},
      {&Shape::queries, -2, "queries -2", "[0, "},
      {&Shape::queries, 5, "keys 9", "[10, "},
      {&Shape::keys, 7, "keys 7", "[8, "},
      {&Shape::keys, kMaxLength + 1, "keys 281474976710657", "281474976710656]"},
  };
  for (const BadShape& bad : cases) {
    Shape shape = good_sizes();
    shape.*bad.member = bad.value;
    for (const std::string& message : refusals(shape)) {
      CHECK_THAT(message, ContainsSubstring(bad.name) && ContainsSubstring(bad.range));
    }
  }
}

TEST_CASE("A start below 0 is refused", "[search][attention][gradients]") {
  Shape shape = good_sizes();
  const std::vector<Index> start{0, -3};
  shape.start = start.data();
  for (const std::string& message : refusals(shape)) {
    CHECK_THAT(message, ContainsSubstring("start -3") && ContainsSubstring("[0, "));
  }
}

TEST_CASE("A length outside the keys is refused", "[search][attention][gradients]") {
  Shape shape = good_sizes();
  for (const auto& [length, name] :
       {std::pair<Index, std::string>{-1, "length -1"}, {shape.keys + 1, "length 10"}}) {
    const std::vector<Index> lengths{0, length};
    shape.length = lengths.data();
    for (const std::string& message : refusals(shape)) {
      CHECK_THAT(message, ContainsSubstring(name) && ContainsSubstring("[0, 9]"));
    }
  }
}

TEST_CASE("Span-search refuses a missing or short plan", "[search]") {
  const auto problem = good_problem();
  auto search = problem.search();
  auto attend = problem.attention();
  search.plan = attend.plan = nullptr;
  const std::vector<double> gradient(1000);
  const auto messages = [&] {
    return std::vector<std::string>{
        refusal([&] { span_search(search); }), refusal([&] { attention(attend); }),
        refusal([&] { attention_backward(attend, {gradient.data()}); })};
  };
  for (const std::string& message : messages()) {
    check_null(message, "plan");
  }
  const StripePlan shorter(preset_schedule("nstep", 3), 7);  // the last query stands at 7: 8 keys
  search.plan = attend.plan = &shorter;
  for (const std::string& message : messages()) {
    CHECK_THAT(message, ContainsSubstring("plan") && ContainsSubstring("up to 7") &&
                            ContainsSubstring("at 7"));
  }
  const StripePlan enough(preset_schedule("nstep", 3), 8);
  search.plan = attend.plan = &enough;
  for (const std::string& message : messages()) CHECK(message == "nothing thrown");

  const std::vector<Index> lengths{2, 7};
  search.shape.length = attend.shape.length = lengths.data();
  search.plan = attend.plan = &shorter;
  for (const std::string& message : messages()) CHECK(message == "nothing thrown");
  const StripePlan too_short(preset_schedule("nstep", 3), 6);
  search.plan = attend.plan = &too_short;
  for (const std::string& message : messages()) CHECK_THAT(message, ContainsSubstring("up to 6"));
}

TEST_CASE("Span-search refuses the wrong number of routing queries", "[search]") {
  const auto problem = good_problem();
  const std::vector<double> gradient(1000);
  for (const std::size_t count : {0U, 1U, 3U}) {
    auto search = problem.search();
    auto attend = problem.attention();
    search.routing_queries.resize(count, problem.query.data());
    attend.routing_queries = search.routing_queries;
    for (const std::string& message :
         {refusal([&] { span_search(search); }), refusal([&] { attention(attend); }),
          refusal([&] { attention_backward(attend, {gradient.data()}); })}) {
      CHECK_THAT(message, ContainsSubstring("routing_queries " + std::to_string(count)) &&
                              ContainsSubstring("2"));
    }
  }
}

TEST_CASE("Every stage refuses a null pointer and names it", "[search][attention][gradients]") {
  const auto problem = good_problem();
  const std::vector<double> gradient(1000);
  for (const std::size_t m : {0U, 1U}) {
    auto search = problem.search();
    search.routing_queries[m] = nullptr;
    check_null(refusal([&] { span_search(search); }), "routing_queries");
    auto attend = problem.attention();
    attend.routing_queries[m] = nullptr;
    check_null(refusal([&] { attention(attend); }), "routing_queries");
    check_null(refusal([&] { attention_backward(attend, {gradient.data()}); }), "routing_queries");
  }
  auto search = problem.search();
  search.search_keys = nullptr;
  check_null(refusal([&] { span_search(search); }), "search_keys");

  const std::vector<std::pair<const double * AttentionArgs<double>::*, std::string>> arrays{
      {&AttentionArgs<double>::query, "query"},
      {&AttentionArgs<double>::key, "key"},
      {&AttentionArgs<double>::value, "value"}};
  for (const auto& [array, name] : arrays) {
    auto attend = problem.attention();
    attend.*array = nullptr;
    check_null(refusal([&] { attention(attend); }), name);
    check_null(refusal([&] { dense_attention(attend); }), name);
    check_null(refusal([&] { attention_backward(attend, {gradient.data()}); }), name);
  }
}

TEST_CASE("Null keys are named as keys where they would be searched too", "[attention]") {
  auto problem = good_problem();
  problem.search_keys.clear();
  auto attend = problem.attention();
  attend.key = nullptr;
  const std::vector<double> gradient(1000);
  for (const std::string& message : {refusal([&] { attention(attend); }), refusal([&] {
                                       attention_backward(attend, {gradient.data()});
                                     })}) {
    CHECK_THAT(message, ContainsSubstring("null") && !ContainsSubstring("search_keys"));
  }
}

TEST_CASE("Span attention refuses null pointers, and names them", "[attention]") {
  const Attend good;
  CHECK(good.message(good.args()) == "nothing thrown");
  const auto without = [&](auto change) {
    auto args = good.args();
    change(args);
    return good.message(args);
  };
  check_null(without([](auto& args) { args.query = nullptr; }), "query");
  check_null(without([](auto& args) { args.key = nullptr; }), "key");
  check_null(without([](auto& args) { args.value = nullptr; }), "value");
  check_null(without([](auto& args) { args.spans = nullptr; }), "spans");
  check_null(refusal([&] { span_attention_backward(good.args(), nullptr); }), "gradient");
  for (const Index slots : {-1, 0, 65}) {
    CHECK_THAT(without([slots](auto& args) { args.slots = slots; }),
               ContainsSubstring("slots " + std::to_string(slots)) && ContainsSubstring("[1, 64]"));
  }
}

TEST_CASE("Span attention refuses a span outside the eligible keys", "[attention]") {
  Attend bad;
  bad.problem.start = {0, 2};
  bad.windows = bad.problem.windows();
  // Slot 1 of the second entry's last head and query 1, at position 6.
  const std::size_t slot = (12 + 3 * 3 + 1) * 2 + 1;
  for (const Span span : {Span{1, 4}, Span{0, 7}, Span{3, 8}, Span{6, 100}, Span{-1, 3}}) {
    bad.spans[slot] = span;
    CHECK_THAT(bad.message(bad.args()), ContainsSubstring("span [" + std::to_string(span.begin) +
                                                          ", " + std::to_string(span.end) + ")") &&
                                            ContainsSubstring("query 6") &&
                                            ContainsSubstring("start 2"));
  }
  for (const Span span : {Span{2, 7}, Span{6, 7}, Span{0, 0}, Span{9, 3}}) {
    bad.spans[slot] = span;
    CHECK(bad.message(bad.args()) == "nothing thrown");
  }
}

TEST_CASE("Span attention refuses a window that is not the newest eligible keys", "[attention]") {
  Attend bad;
  bad.problem.start = {0, 2};
  bad.windows = bad.problem.windows();
  for (const Span window : {Span{1, 7}, Span{3, 6}, Span{3, 8}, Span{-1, 7}}) {
    bad.windows[3 + 1] = window;  // the second entry's query 1, at position 6
    CHECK_THAT(bad.message(bad.args()),
               ContainsSubstring("window [" + std::to_string(window.begin) + ", " +
                                 std::to_string(window.end) + ")") &&
                   ContainsSubstring("query 6") && ContainsSubstring("start 2"));
  }
  for (const Span window : {Span{2, 7}, Span{6, 7}, Span{7, 7}, Span{0, 0}}) {
    bad.windows[3 + 1] = window;
    CHECK(bad.message(bad.args()) == "nothing thrown");
  }
}

TEST_CASE("Combination refuses bad sizes, counts and null pointers", "[combine]") {
  const std::vector<Index> count{2, 1};
  const std::vector<double> scores(2 * 3), outputs(2 * 3 * 4), lses(2 * 3), gradient(2 * 4);
  const CombineArgs good{2, 3, 4, count.data(), scores.data(), outputs.data(), lses.data()};
  const auto messages = [&](const CombineArgs& args) {
    return std::vector<std::string>{refusal([&] { path_gates(args); }),
                                    refusal([&] { combine(args); }),
                                    refusal([&] { combine_backward(args, gradient.data()); })};
  };
  for (const std::string& message : messages(good)) CHECK(message == "nothing thrown");

  const auto check = [&](const CombineArgs& args, const std::string& offender,
                         const std::string& range) {
    for (const std::string& message : messages(args)) {
      CHECK_THAT(message, ContainsSubstring(offender) && ContainsSubstring(range));
    }
  };
  check({-1, 3, 4, count.data(), scores.data(), outputs.data(), lses.data()}, "-1 rows",
        "rows >= 0");
  check({2, 0, 4, count.data(), scores.data(), outputs.data(), lses.data()}, "0 slots",
        "slots >= 1");
  check({2, 3, 0, count.data(), scores.data(), outputs.data(), lses.data()}, "head_dim 0",
        "head_dim >= 1");
  check({2, 3, 4, nullptr, scores.data(), outputs.data(), lses.data()}, "count", "null");
  check({2, 3, 4, count.data(), nullptr, outputs.data(), lses.data()}, "scores", "null");
  for (const Index wrong : {-1, 4}) {
    const std::vector<Index> counts{2, wrong};
    check({2, 3, 4, counts.data(), scores.data(), outputs.data(), lses.data()},
          "count " + std::to_string(wrong) + " of row 1", "slots 3");
  }
  CombineArgs no_outputs = good;
  no_outputs.outputs = nullptr;
  CombineArgs no_lses = good;
  no_lses.lses = nullptr;
  for (const auto& [args, name] : {std::pair(no_outputs, "outputs"), {no_lses, "lses"}}) {
    CHECK(path_gates(args).size() == 6);
    check_null(refusal([&, &given = args] { combine(given); }), name);
    check_null(refusal([&, &given = args] { combine_backward(given, gradient.data()); }), name);
  }
  check_null(refusal([&] { combine_backward(good, nullptr); }), "gradient");
}

TEST_CASE("Derivatives of the search refuse a selection of another problem", "[gradients]") {
  const auto problem = good_problem();
  const Selection selection = span_search(problem.search());
  const std::vector<double> gradient(24 * 2);
  const auto message = [&](const Selection& with) {
    return refusal([&] { span_search_backward(problem.search(), with, gradient.data()); });
  };
  CHECK(message(selection) == "nothing thrown");
  CHECK(message({}) == "routing_queries 2: one array per search level, 0");
  const auto two_steps = inputs::random_problem(preset_schedule("nstep", 2), good_sizes(), 91);
  CHECK(message(span_search(two_steps.search())) ==
        "routing_queries 2: one array per search level, 1");
  const auto decoded = problem.chunk(2, 1);
  CHECK_THAT(message(span_search(decoded.search())),
             ContainsSubstring("selection of 8 counts") && ContainsSubstring("24"));
  const auto changed = [&](auto change) {
    Selection wrong = selection;
    change(wrong);
    return message(wrong);
  };
  const std::string top_k = std::to_string(selection.top_k);
  CHECK(changed([](Selection& wrong) { wrong.count[3] = 99; }) ==
        "count 99 of row 3: an integer in [0, " + top_k + "]");
  CHECK(changed([](Selection& wrong) { wrong.count[3] = -1; }) ==
        "count -1 of row 3: an integer in [0, " + top_k + "]");
  const std::size_t last = selection.count.size() - 1;
  REQUIRE(selection.count[last] > 0);
  const auto anchor = last * static_cast<std::size_t>(selection.top_k * selection.levels);
  for (const Index key : {-1, 1000}) {
    CHECK_THAT(changed([&](Selection& wrong) { wrong.anchors[anchor] = key; }),
               ContainsSubstring("anchor " + std::to_string(key) + " of query"));
  }
  auto null_keys = problem.search();
  null_keys.search_keys = nullptr;
  check_null(refusal([&] { span_search_backward(null_keys, selection, gradient.data()); }),
             "search_keys");
  check_null(refusal([&] { span_search_backward(problem.search(), selection, nullptr); }),
             "gradient");
}

TEST_CASE("Accumulation refuses bad sizes and null pointers", "[accumulation]") {
  const std::vector<double> array(1000, 0.5);
  AccumulationArgs<double> good;
  good.length = 4;
  good.head_dim = 3;
  good.state = 2;
  good.x = good.a = good.b = good.c = array.data();
  const auto messages = [](const AccumulationArgs<double>& args) {
    return std::vector<std::string>{refusal([&] { accumulate(args); }),
                                    refusal([&] { accumulate_backward(args, nullptr); })};
  };
  for (const std::string& message : messages(good)) CHECK(message == "nothing thrown");

  using Args = AccumulationArgs<double>;
  const std::vector<std::tuple<Index Args::*, Index, std::string>> sizes{
      {&Args::batch, 0, "batch"},       {&Args::num_heads, 0, "num_heads"},
      {&Args::head_dim, 0, "head_dim"}, {&Args::state, 0, "state"},
      {&Args::length, -1, "length"},    {&Args::offset, -5, "offset"}};
  for (const auto& [member, value, name] : sizes) {
    Args bad = good;
    bad.*member = value;
    for (const std::string& message : messages(bad)) {
      CHECK_THAT(message, ContainsSubstring(name + " " + std::to_string(value)) &&
                              ContainsSubstring("integer in ["));
    }
  }
  const std::vector<std::pair<const double * Args::*, std::string>> arrays{
      {&Args::x, "x"}, {&Args::a, "a"}, {&Args::b, "b"}, {&Args::c, "c"}};
  for (const auto& [member, name] : arrays) {
    Args bad = good;
    bad.*member = nullptr;
    for (const std::string& message : messages(bad)) {
      CHECK_THAT(message, ContainsSubstring(name + ": a null pointer"));
    }
  }
}
