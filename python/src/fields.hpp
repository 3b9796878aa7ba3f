#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

/// Arguments travel in structs: Python makes one empty and sets its fields by their names, which
/// are those of the records in _problem.py and _recurrence.py. A new argument is one line here and
/// there.
namespace multistep::python {

namespace nb = nanobind;

/// A struct whose fields follow.
template <class Args>
nb::class_<Args> bind_arguments(nb::module_& core, const char* name) {
  return nb::class_<Args>(core, name).def(nb::init<>());
}

template <class Args, class T>
T& member_at(Args& args, T Args::*member) {
  return args.*member;
}

template <class Args, class Inner, class... Rest>
auto& member_at(Args& args, Inner Args::*member, Rest... rest) {
  return member_at(args.*member, rest...);
}

/// A field, or one of a struct in it. Nothing is converted: Python has done that.
template <class Args, class... Path>
void bind_field(nb::class_<Args>& bound, const char* name, Path... path) {
  using T = std::remove_reference_t<decltype(member_at(std::declval<Args&>(), path...))>;
  bound.def_prop_rw(
      name, nullptr,
      [path...](Args& args, T value) { member_at(args, path...) = std::move(value); },
      nb::for_setter(nb::arg().noconvert().none()));
}

/// A field that points to a bound object, which lives as long as the struct.
template <class Args, class T>
void bind_object(nb::class_<Args>& bound, const char* name, const T* Args::*member) {
  bound.def_prop_rw(
      name, nullptr, [member](Args& args, const T* object) { args.*member = object; },
      nb::for_setter(nb::keep_alive<1, 2>()));
}

using Address = std::uintptr_t;  // of device memory

template <class T>
T at_address(std::optional<Address> address) {
  return reinterpret_cast<T>(address.value_or(0));
}

/// A field that points to device memory: an address, None for null.
template <class Args, class... Path>
void bind_address(nb::class_<Args>& bound, const char* name, Path... path) {
  using T = std::remove_reference_t<decltype(member_at(std::declval<Args&>(), path...))>;
  bound.def_prop_rw(
      name, nullptr,
      [path...](Args& args, std::optional<Address> address) {
        member_at(args, path...) = at_address<T>(address);
      },
      nb::for_setter(nb::arg().noconvert().none()));
}

/// A list of them.
template <class Args, class T>
void bind_addresses(nb::class_<Args>& bound, const char* name, std::vector<T> Args::*member) {
  bound.def_prop_rw(name, nullptr, [member](Args& args, const std::vector<Address>& addresses) {
    (args.*member).clear();
    for (const Address one : addresses) (args.*member).push_back(at_address<T>(one));
  });
}

}  // namespace multistep::python
