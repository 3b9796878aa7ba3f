#include "multistep/accumulation.hpp"

#include "arrays.hpp"
#include "core.hpp"
#include "fields.hpp"
#include "interrupt.hpp"
#include "problem.hpp"

namespace multistep::python {
namespace {

struct Recurrence {
  Array x;             // [batch, num_heads, length, head_dim]
  Array a;             // [batch, num_heads, length]
  Array b;             // [batch, num_heads, length, state]
  Array c;             // the same
  MaybeArray initial;  // [batch, num_heads, head_dim, state], float64
  MaybeArray start;    // [batch], int64
  Index offset = 0;

  template <class T>
  AccumulationArgs<T> args() const {
    require(x.ndim() == 4, "x with {} dimensions: it has 4", x.ndim());
    require(b.ndim() == 4, "b with {} dimensions: it has 4", b.ndim());
    const auto extent = [](const Array& array, std::size_t i) {
      return static_cast<Index>(array.shape(i));
    };
    AccumulationArgs<T> args;
    args.batch = extent(x, 0);
    args.num_heads = extent(x, 1);
    args.length = extent(x, 2);
    args.head_dim = extent(x, 3);
    args.state = extent(b, 3);
    args.offset = offset;
    args.x = elements<T>(x, "x", {args.batch, args.num_heads, args.length, args.head_dim});
    args.a = elements<T>(a, "a", {args.batch, args.num_heads, args.length});
    args.b = elements<T>(b, "b", {args.batch, args.num_heads, args.length, args.state});
    args.c = elements<T>(c, "c", {args.batch, args.num_heads, args.length, args.state});
    args.initial = elements<double>(initial, "initial",
                                    {args.batch, args.num_heads, args.head_dim, args.state});
    args.start = elements<Index>(start, "start", {args.batch});
    require_within("head_dim", args.head_dim, 1, 1 << 16);
    require_within("state", args.state, 1, 1 << 16);
    return args;
  }
};

template <class T>
bool is_short_walk(const AccumulationArgs<T>& args) {
  return args.batch * args.num_heads * args.length * args.head_dim * args.state <= 1 << 22;
}

nb::tuple accumulate_of(const Recurrence& recurrence) {
  return with_type(recurrence.x, [&](auto zero) {
    using T = decltype(zero);
    const AccumulationArgs<T> args = recurrence.args<T>();
    AccumulationResult result =
        interruptible(is_short_walk(args), nb::handle(),
                      [&](Errand& errand) { return accumulate(args, errand.progress()); });
    return nb::make_tuple(to_numpy(std::move(result.output),
                                   {args.batch, args.num_heads, args.length, args.head_dim}),
                          to_numpy(std::move(result.final_state),
                                   {args.batch, args.num_heads, args.head_dim, args.state}));
  });
}

/// Derivatives by x, a, b, c and the initial state, from those by the output and the final state.
nb::tuple accumulate_gradients(const Recurrence& recurrence, const MaybeArray& by_output,
                               const MaybeArray& by_state) {
  return with_type(recurrence.x, [&](auto zero) {
    using T = decltype(zero);
    const AccumulationArgs<T> args = recurrence.args<T>();
    const double* output = elements<double>(
        by_output, "by_output", {args.batch, args.num_heads, args.length, args.head_dim});
    const double* state = elements<double>(by_state, "by_state",
                                           {args.batch, args.num_heads, args.head_dim, args.state});
    AccumulationGradients g = interruptible(is_short_walk(args), nb::handle(), [&](Errand& errand) {
      return accumulate_backward(args, output, state, errand.progress());
    });
    const auto rows = [&](std::vector<double>& values, Index width) {
      return to_numpy(std::move(values), {args.batch, args.num_heads, args.length, width});
    };
    return nb::make_tuple(
        rows(g.x, args.head_dim),
        to_numpy(std::move(g.a), {args.batch, args.num_heads, args.length}), rows(g.b, args.state),
        rows(g.c, args.state),
        to_numpy(std::move(g.initial), {args.batch, args.num_heads, args.head_dim, args.state}));
  });
}

}  // namespace

void bind_accumulation(nb::module_& core) {
  auto recurrence = bind_arguments<Recurrence>(core, "Recurrence");
  bind_field(recurrence, "x", &Recurrence::x);
  bind_field(recurrence, "a", &Recurrence::a);
  bind_field(recurrence, "b", &Recurrence::b);
  bind_field(recurrence, "c", &Recurrence::c);
  bind_field(recurrence, "initial", &Recurrence::initial);
  bind_field(recurrence, "start", &Recurrence::start);
  bind_field(recurrence, "offset", &Recurrence::offset);
  core.def("accumulate", &accumulate_of);
  core.def("accumulate_backward", &accumulate_gradients, nb::arg(), nb::arg().noconvert().none(),
           nb::arg().noconvert().none());
}

}  // namespace multistep::python
