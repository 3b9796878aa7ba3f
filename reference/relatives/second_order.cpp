#include <Eigen/Core>

#include "multistep/recurrences.hpp"
#include "relatives/rows.hpp"
#include "relatives/stretch.hpp"

namespace multistep {
namespace {

/// One head: what the three ways of computing it read and how they end.
class Head {
 public:
  Head(const SecondOrderArgs& args, Index head)
      : symmetric(args.form == SecondOrderForm::symmetric),
        q(rows_at(args.q, head, args.length, args.head_dim)),
        k(rows_at(args.k, head, args.length, args.head_dim)),
        v(args.length, args.value_dim + (args.epsilon ? 1 : 0)),
        inner(decays_at(args.inner, "inner", head, args.length)),
        outer(decays_at(args.outer, "outer", head, args.length)),
        epsilon_(args.epsilon) {
    v.leftCols(args.value_dim) = rows_at(args.v, head, args.length, args.value_dim);
    if (epsilon_) v.rightCols(1).setOnes();
  }

  const bool symmetric;
  const ConstRows q;
  const ConstRows k;
  Matrix v;  // with a column of 1 behind it where there are denominators
  const Vector inner;
  const Vector outer;

  /// The rows, divided by their denominators where there are any.
  Matrix finished(const Matrix& rows) const {
    if (!epsilon_) return rows;
    const Eigen::ArrayXd denominators = rows.col(rows.cols() - 1).array() + *epsilon_;
    return rows.leftCols(rows.cols() - 1).array().colwise() / denominators;
  }

 private:
  std::optional<double> epsilon_;
};

template <class Compute>
std::vector<double> each_finished(const SecondOrderArgs& args, Compute compute) {
  require_recurrence(args);
  return each_head(args, [&](Index index) {
    const Head head(args, index);
    return head.finished(compute(head));
  });
}

}  // namespace

std::vector<double> second_order(const SecondOrderArgs& args) {
  return each_finished(args, [](const Head& head) {
    const Matrix& read = head.symmetric ? Matrix(head.k) : head.v;
    Matrix first = Matrix::Zero(head.k.cols(), read.cols());     // S or P
    Matrix second = Matrix::Zero(head.k.cols(), head.v.cols());  // N or E
    Matrix output(head.v.rows(), head.v.cols());
    for (Index t = 0; t < output.rows(); ++t) {
      const Vector q = head.q.row(t), k = head.k.row(t), v = head.v.row(t);
      first = head.inner[t] * first + k.transpose() * read.row(t);
      const Vector gathered = q * first;
      if (head.symmetric) {
        second = head.outer[t] * second + gathered.transpose() * v;
      } else {
        second = head.outer[t] * second + k.transpose() * gathered;
      }
      output.row(t) = q * second;
    }
    return output;
  });
}

std::vector<double> second_order_dense(const SecondOrderArgs& args) {
  return each_finished(args, [](const Head& head) -> Matrix {
    const Matrix A = head.q * head.k.transpose();
    const Matrix inner = decay_mask(head.inner).cwiseProduct(A);
    const Matrix outer = decay_mask(head.outer);
    if (head.symmetric) return outer.cwiseProduct(A * inner.transpose()) * head.v;
    return outer.cwiseProduct(A) * (inner * head.v);
  });
}

std::vector<double> second_order_scan(const SecondOrderArgs& args) {
  return each_finished(args, [&](const Head& head) {
    std::vector<Stretch> seen;  // by each row; at first itself alone
    for (Index t = 0; t < head.v.rows(); ++t) {
      seen.push_back(row_stretch(args.form, head.q.row(t), head.k.row(t), head.v.row(t),
                                 head.inner[t], head.outer[t]));
    }
    // In blocks of 2 w rows, those of the second half come to see the first half too.
    for (Index w = 1; w < head.v.rows(); w *= 2) {
      for (Index t = 0; t < head.v.rows(); ++t) {
        if (t & w) seen[at(t)] = join(seen[at((t & ~(w - 1)) - 1)], seen[at(t)]);
      }
    }
    Matrix output(head.v.rows(), head.v.cols());
    for (Index t = 0; t < output.rows(); ++t) {
      output.row(t) = read_stretch(args.form, seen[at(t)], head.q.row(t));
    }
    return output;
  });
}

}  // namespace multistep
