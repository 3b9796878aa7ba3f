#pragma once

#include <optional>
#include <vector>

#include "multistep/types.hpp"

/// Recurrences of other attentions, each as a stream, as a dense masked product and, where there is
/// one, as an associative scan. Everything in double. A decay is in [0, 1] or NaN; below, a product
/// of decays over (s, t] is a_{s+1} ... a_t, and 1 where t = s.
namespace multistep {

/// Higher-order linear attention of second order: Zhang, Qin, Wang, Gu, arXiv 2510.27258. Terms
/// (q_t . k_i)(q_j . k_i) v_j with i <= j <= t are the symmetric form (section 3), terms
/// (q_t . k_i)(q_i . k_j) v_j with j <= i <= t the asymmetric one (section 6).
enum class SecondOrderForm { symmetric, asymmetric };

struct SecondOrderArgs {
  SecondOrderForm form = SecondOrderForm::symmetric;
  Index batch = 1;
  Index num_heads = 1;
  Index length = 0;
  Index head_dim = 0;
  Index value_dim = 0;
  const double* q = nullptr;      // [batch, num_heads, length, head_dim]
  const double* k = nullptr;      // the same
  const double* v = nullptr;      // [batch, num_heads, length, value_dim]
  const double* inner = nullptr;  // [batch, num_heads, length], decays of the state that a query
                                  // reads to make its own row; null: 1
  const double* outer = nullptr;  // the same, of the state that gathers these rows; null: 1
  /// Divide by the same sum with 1 for v, plus epsilon; none: do not.
  std::optional<double> epsilon = {};
};

/// A row at a time, for one head, q, k and v columns, with s = inner_t and r = outer_t:
///   symmetric    S = s S + k k^T,   N = r N + (S q) v^T,     o = N^T q
///   asymmetric   P = s P + k v^T,   E = r E + k (P^T q)^T,   o = E^T q
/// Gives o: [batch, num_heads, length, value_dim]. All of these throw std::invalid_argument for a
/// bad shape, a missing array or a decay outside [0, 1].
std::vector<double> second_order(const SecondOrderArgs& args);

/// The same as matrices, O(length^2) memory. A = Q K^T; I and R hold the products of the inner and
/// outer decays over (column, row], and 0 above the diagonal; o is entry by entry
///   symmetric    (R * (A (I * A)^T)) V
///   asymmetric   (R * A) (I * A) V
std::vector<double> second_order_dense(const SecondOrderArgs& args);

/// The same by a parallel prefix scan (Sklansky's) over stretches that are joined associatively,
/// O(length) stretches in memory: see relatives/stretch.hpp.
std::vector<double> second_order_scan(const SecondOrderArgs& args);

/// Log-linear attention: Guo, Yang, Goel, Xing, Dao, Kim, arXiv 2506.04761, section 3.
struct LogLinearArgs {
  Index batch = 1;
  Index num_heads = 1;
  Index length = 0;
  Index head_dim = 0;
  Index value_dim = 0;
  Index levels = 0;                 // >= 1 + the bits of length - 1
  const double* q = nullptr;        // [batch, num_heads, length, head_dim]
  const double* k = nullptr;        // the same
  const double* v = nullptr;        // [batch, num_heads, length, value_dim]
  const double* weights = nullptr;  // [batch, num_heads, length, levels], the paper's lambda
  const double* a = nullptr;        // [batch, num_heads, length], decays; null: 1
};

/// The level of a key for a query, key <= query: 0 for the query's own, otherwise the bit length of
/// query xor key. So each set bit b of the query has a bucket of a Fenwick tree, its level b + 1:
/// the 2^b keys from c on, c the query with its bits <= b cleared.
Index log_linear_level(Index query, Index key);

/// A row at a time: at t > 0 with lowest set bit b the states of the levels <= b fold into that of
/// level b + 1; then all decay by a_t, level 0 becomes k v^T, and o is the sum over levels of
/// weights[t, level] S[level]^T q. Gives o: [batch, num_heads, length, value_dim].
std::vector<double> log_linear(const LogLinearArgs& args);

/// The same as a masked product: o_t is the sum over keys s <= t of
/// weights[t, level of s] (product of a over (s, t]) (q_t . k_s) v_s.
std::vector<double> log_linear_dense(const LogLinearArgs& args);

}  // namespace multistep
