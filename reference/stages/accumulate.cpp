#include "multistep/accumulation.hpp"

#include <Eigen/Core>
#include <cmath>

#include "multistep/power.hpp"
#include "stages/shape.hpp"
#include "support/parallel.hpp"
#include "support/watch.hpp"

namespace multistep {
namespace {

using ConstState = Eigen::Map<const Matrix>;
using State = Eigen::Map<Matrix>;

template <class T>
void require_accumulation(const AccumulationArgs<T>& args) {
  require_within("batch", args.batch, 1, 1 << 20);
  require_within("num_heads", args.num_heads, 1, 1 << 16);
  require_within("head_dim", args.head_dim, 1, 1 << 16);
  require_within("state", args.state, 1, 1 << 16);
  require_within("offset", args.offset, 0, kMaxLength);
  require_within("length", args.length, 0, kMaxLength - args.offset);
  require_array_size({args.batch, args.num_heads, args.length, args.head_dim});
  require_array_size({args.batch, args.num_heads, args.length, args.state});
  require_array_size({args.batch, args.num_heads, args.head_dim, args.state});
  for (Index b = 0; args.start && b < args.batch; ++b) {
    require_within("start", args.start[b], 0, kMaxLength);
  }
  const Index rows = args.batch * args.num_heads * args.length;
  require_array(args.x, "x", rows);
  require_array(args.a, "a", rows);
  require_array(args.b, "b", rows);
  require_array(args.c, "c", rows);
}

/// One head of one batch entry.
template <class T>
class Head {
 public:
  Head(const AccumulationArgs<T>& args, Index head, Watch& watch)
      : args_(args), head_(head), pulse_(&watch) {
    const Index start = args.start ? args.start[head / args.num_heads] : 0;
    first_ = std::clamp<Index>(start - args.offset, 0, args.length);
  }

  Index first() const { return first_; }  // rows [first, length) count
  Index row(Index t) const { return head_ * args_.length + t; }
  double a(Index t) const { return static_cast<double>(args_.a[row(t)]); }
  auto x(Index t) const { return vector_at(args_.x, row(t), args_.head_dim); }
  auto b(Index t) const { return vector_at(args_.b, row(t), args_.state); }
  auto c(Index t) const { return vector_at(args_.c, row(t), args_.state); }

  Matrix initial() const {
    if (!args_.initial) return Matrix::Zero(args_.head_dim, args_.state);
    return ConstState(args_.initial + head_ * args_.head_dim * args_.state, args_.head_dim,
                      args_.state);
  }

  State of(std::vector<double>& states) const {
    return {states.data() + head_ * args_.head_dim * args_.state, args_.head_dim, args_.state};
  }

  /// H_{t-1} becomes H_t.
  void step(Matrix& H, Index t) {
    pulse_.work(1 + H.size() / 1024);
    require(!(a(t) < 0 || a(t) > 1), "a {} at position {}: a decay in [0, 1]", a(t),
            args_.offset + t);
    const auto x_t = x(t);
    for (Index i = 0; i < H.rows(); ++i) H.row(i) = a(t) * H.row(i) + x_t[i] * b(t);
  }

 private:
  const AccumulationArgs<T>& args_;
  Index head_;
  Pulse pulse_;
  Index first_;
};

}  // namespace

template <class T>
AccumulationResult accumulate(const AccumulationArgs<T>& args, const Progress& progress) {
  require_accumulation(args);
  const Index heads = args.batch * args.num_heads;
  Watch watch(progress, heads * args.length);
  AccumulationResult result;
  result.output.assign(at(heads * args.length * args.head_dim), 0);
  result.final_state.assign(at(heads * args.head_dim * args.state), 0);
  parallel_blocks(heads, 1, [&] {
    return [&](Index index, Index) {
      Head<T> head(args, index, watch);
      Matrix H = head.initial();
      for (Index t = head.first(); t < args.length; ++t) {
        head.step(H, t);
        auto output = writable_at(result.output.data(), head.row(t), args.head_dim);
        for (Index i = 0; i < args.head_dim; ++i) output[i] = dot(H.row(i), head.c(t));
      }
      head.of(result.final_state) = H;
      watch.add(args.length);
    };
  });
  watch.finish();
  return result;
}

template <class T>
AccumulationGradients accumulate_backward(const AccumulationArgs<T>& args,
                                          const double* output_gradient,
                                          const double* final_state_gradient,
                                          const Progress& progress) {
  require_accumulation(args);
  const Index heads = args.batch * args.num_heads;
  const Index rows = heads * args.length;
  const Index d = args.head_dim;
  Watch watch(progress, rows);
  AccumulationGradients gradients;
  gradients.x.assign(at(rows * d), 0);
  gradients.a.assign(at(rows), 0);
  gradients.b.assign(at(rows * args.state), 0);
  gradients.c.assign(at(rows * args.state), 0);
  gradients.initial.assign(at(heads * d * args.state), 0);

  // States are recomputed from one kept every `stride` rows: the recurrence cannot run backwards
  // where a_t is 0.
  const auto stride = truncated(std::sqrt(static_cast<double>(args.length))) + 1;
  parallel_blocks(heads, 1, [&] {
    return [&](Index index, Index) {
      Head<T> head(args, index, watch);
      std::vector<Matrix> kept;  // H before rows first, first + stride, ...
      Matrix H = head.initial();
      for (Index t = head.first(); t < args.length; ++t) {
        if ((t - head.first()) % stride == 0) kept.push_back(H);
        head.step(H, t);
      }

      Matrix G = Matrix::Zero(d, args.state);  // derivative by H_t
      if (final_state_gradient) {
        G = ConstState(final_state_gradient + index * d * args.state, d, args.state);
      }
      std::vector<Matrix> states;  // H before and after each row of a stretch
      for (Index stretch = static_cast<Index>(kept.size()) - 1; stretch >= 0; --stretch) {
        const Index begin = head.first() + stretch * stride;
        const Index end = std::min(begin + stride, args.length);
        states.assign(1, kept[at(stretch)]);
        for (Index t = begin; t < end; ++t) {
          states.push_back(states.back());
          head.step(states.back(), t);
        }
        for (Index t = end - 1; t >= begin; --t) {
          const Matrix& before = states[at(t - begin)];
          const Matrix& after = states[at(t - begin) + 1];
          const auto x = head.x(t);
          auto d_x = writable_at(gradients.x.data(), head.row(t), d);
          auto d_b = writable_at(gradients.b.data(), head.row(t), args.state);
          auto d_c = writable_at(gradients.c.data(), head.row(t), args.state);
          for (Index i = 0; i < d; ++i) {
            if (output_gradient) {
              const double d_output = output_gradient[head.row(t) * d + i];
              d_c += d_output * after.row(i);
              G.row(i) += d_output * head.c(t);
            }
            d_x[i] = dot(G.row(i), head.b(t));
            d_b += x[i] * G.row(i);
            gradients.a[at(head.row(t))] += dot(G.row(i), before.row(i));
          }
          G *= head.a(t);
        }
      }
      head.of(gradients.initial) = G;
      watch.add(args.length);
    };
  });
  watch.finish();
  return gradients;
}

template AccumulationResult accumulate(const AccumulationArgs<float>&, const Progress&);
template AccumulationResult accumulate(const AccumulationArgs<double>&, const Progress&);
template AccumulationGradients accumulate_backward(const AccumulationArgs<float>&, const double*,
                                                   const double*, const Progress&);
template AccumulationGradients accumulate_backward(const AccumulationArgs<double>&, const double*,
                                                   const double*, const Progress&);

}  // namespace multistep
