#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <initializer_list>
#include <memory>
#include <vector>

#include "multistep/count.hpp"
#include "support/error.hpp"

/// Arrays on the border: what comes in is looked at where it lies, what goes out is handed over.
namespace multistep::python {

namespace nb = nanobind;

/// An array in main memory, dense and row-major, that is only read.
using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using MaybeArray = std::optional<Array>;

template <class T>
bool holds(const Array& array) {
  return array.dtype() == nb::dtype<T>();
}

/// The elements of an array that must have `shape`; throws std::invalid_argument naming it.
template <class T>
const T* elements(const Array& array, const char* name, std::initializer_list<Index> shape) {
  require(holds<T>(array), "{}: another dtype than the arrays beside it", name);
  bool same = array.ndim() == shape.size();
  for (std::size_t i = 0; same && i < array.ndim(); ++i) {
    same = static_cast<Index>(array.shape(i)) == shape.begin()[i];
  }
  if (!same) {
    std::vector<Index> got;
    for (std::size_t i = 0; i < array.ndim(); ++i)
      got.push_back(static_cast<Index>(array.shape(i)));
    require(false, "{} of shape ({}): its shape is ({}) here", name, fmt::join(got, ", "),
            fmt::join(shape, ", "));
  }
  return static_cast<const T*>(array.data());
}

template <class T>
const T* elements(const MaybeArray& array, const char* name, std::initializer_list<Index> shape) {
  return array ? elements<T>(*array, name, shape) : nullptr;
}

/// The vector as a NumPy array, which keeps it alive.
template <class T>
nb::ndarray<nb::numpy, T> to_numpy(std::vector<T>&& values, std::initializer_list<Index> shape) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  std::vector<std::size_t> extents;
  for (const Index extent : shape) extents.push_back(static_cast<std::size_t>(extent));
  T* const data = owned->data();
  nb::capsule owner(owned.release(),
                    [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T>(data, extents.size(), extents.data(), owner);
}

/// The count as Python's integer, which has no end.
inline nb::object to_int(Count count) {
  return nb::steal(PyLong_FromString(to_string(count).c_str(), nullptr, 10));
}

/// Spans as pairs of integers in one more dimension.
inline std::vector<Index> flat(const std::vector<Span>& spans) {
  std::vector<Index> values;
  values.reserve(2 * spans.size());
  for (const Span& span : spans) {
    values.push_back(span.begin);
    values.push_back(span.end);
  }
  return values;
}

}  // namespace multistep::python
