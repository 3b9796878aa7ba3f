#pragma once

#include "multistep/recurrences.hpp"
#include "stages/shape.hpp"

namespace multistep {

/// What a stretch of rows does to the two states of second-order linear attention. Let the stretch
/// be (e, t], started with X and Z of the rows before it; it leaves
///   inner X + (its own X)   and   outer Z + Y X + (its own Z).
/// Three matrices and two numbers, whatever its length. For the symmetric form X = S and Z = N^T;
/// for the asymmetric one X = P and Z = E.
struct Stretch {
  double inner = 1;  // product of the stretch's inner decays
  double outer = 1;
  Matrix X;
  Matrix Y;  // symmetric: sum of v_j q_j^T, asymmetric: sum of k_j q_j^T, j in (e, t], each times
             // the inner decays of (e, j] and the outer ones of (j, t]
  Matrix Z;
};

/// One row: q, k of head_dim values, v of value_dim.
inline Stretch row_stretch(SecondOrderForm form, const Vector& q, const Vector& k, const Vector& v,
                           double inner, double outer) {
  const bool symmetric = form == SecondOrderForm::symmetric;
  const Vector& read = symmetric ? k : v;   // what a query gathers for its own row
  const Vector& given = symmetric ? v : k;  // what the row is gathered with
  const Matrix X = k.transpose() * read;
  const Matrix Y = given.transpose() * q;
  return {inner, outer, X, inner * Y, Y * X};
}

/// The older stretch and the one behind it as one. Associative, as composing maps is.
inline Stretch join(const Stretch& older, const Stretch& newer) {
  return {newer.inner * older.inner, newer.outer * older.outer, newer.inner * older.X + newer.X,
          newer.outer * older.Y + older.inner * newer.Y,
          newer.outer * older.Z + newer.Y * older.X + newer.Z};
}

/// The output of a query that sees the rows of a stretch.
inline Vector read_stretch(SecondOrderForm form, const Stretch& seen, const Vector& q) {
  if (form == SecondOrderForm::symmetric) return q * seen.Z.transpose();
  return q * seen.Z;
}

}  // namespace multistep
