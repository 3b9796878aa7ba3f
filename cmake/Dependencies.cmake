# Libraries that multistep is built from.
#
# An installed package is used when one is found. Otherwise a pinned source is
# fetched and checked against its hash. Fetched libraries are never installed.
#   -DCMAKE_DISABLE_FIND_PACKAGE_<name>=ON         fetch this library
#   -DFETCHCONTENT_TRY_FIND_PACKAGE_MODE=NEVER     fetch all of them
#   -DFETCHCONTENT_SOURCE_DIR_<NAME>=<directory>   use these unpacked sources
#
# SOURCE_SUBDIR names a directory that does not exist. This keeps
# FetchContent_MakeAvailable from adding the fetched project by itself.

include(FetchContent)

# Defines a header-only target when the library was fetched. The extra arguments
# are compile definitions. Headers of imported targets are system headers.
function(multistep_header_target name target include_dir)
  string(TOLOWER ${name} lower)
  set(source_dir "${${lower}_SOURCE_DIR}")
  if(source_dir AND NOT TARGET ${target})
    add_library(${target} INTERFACE IMPORTED GLOBAL)
    target_include_directories(${target} INTERFACE ${source_dir}/${include_dir})
    target_compile_definitions(${target} INTERFACE ${ARGN})
  endif()
endfunction()

# Turns off warnings in fetched code, and from its headers in our code.
function(multistep_silence)
  foreach(target IN LISTS ARGN)
    get_target_property(headers ${target} INTERFACE_INCLUDE_DIRECTORIES)
    set_target_properties(${target} PROPERTIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${headers}")
    target_compile_options(${target} PRIVATE -w)
  endforeach()
endfunction()

# The library

find_package(OpenMP REQUIRED COMPONENTS CXX)
FetchContent_Declare(Eigen3 SOURCE_SUBDIR none
  URL https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.bz2
  URL_HASH SHA256=b4c198460eba6f28d34894e3a5710998818515104d6e74e5cc331ce31e46e626
  FIND_PACKAGE_ARGS 3.4)
FetchContent_Declare(Boost SOURCE_SUBDIR none
  URL https://github.com/boostorg/multiprecision/archive/refs/tags/boost-1.90.0.tar.gz
  URL_HASH SHA256=b28a20f95712e596b3eb8aa4ae2264363016a609a63ebc3d84ee8cb49831de67
  FIND_PACKAGE_ARGS 1.74 CONFIG)
FetchContent_Declare(fmt SOURCE_SUBDIR none
  URL https://github.com/fmtlib/fmt/releases/download/10.2.1/fmt-10.2.1.zip
  URL_HASH SHA256=312151a2d13c8327f5c9c586ac6cf7cddc1658e8f53edae0ec56509c8fa516c9
  FIND_PACKAGE_ARGS 9)
FetchContent_Declare(nlohmann_json SOURCE_SUBDIR none
  URL https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
  URL_HASH SHA256=d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d
  FIND_PACKAGE_ARGS 3.11)
FetchContent_MakeAvailable(Eigen3 Boost fmt nlohmann_json)
multistep_header_target(Eigen3 Eigen3::Eigen "")
multistep_header_target(fmt fmt::fmt-header-only include FMT_HEADER_ONLY=1)
multistep_header_target(nlohmann_json nlohmann_json::nlohmann_json include)

if(NOT TARGET Boost::headers)
  # On their own, Boost.Multiprecision and Boost.Math need only Boost.Config of the same release.
  FetchContent_Declare(boost_config SOURCE_SUBDIR none
    URL https://github.com/boostorg/config/archive/refs/tags/boost-1.90.0.tar.gz
    URL_HASH SHA256=1390bd79fbf270e40cfe5ac6b899f4a9c4e47139b6e17b4c1f7f78822adaa9fc)
  FetchContent_Declare(boost_math SOURCE_SUBDIR none
    URL https://github.com/boostorg/math/archive/refs/tags/boost-1.90.0.tar.gz
    URL_HASH SHA256=7d043e9ef0ac4b2242debc55a6fcd63fdcee1f09e8b695d19a73fbc23506356d)
  FetchContent_MakeAvailable(boost_config boost_math)
  multistep_header_target(Boost Boost::headers include BOOST_MP_STANDALONE BOOST_MATH_STANDALONE)
  target_include_directories(Boost::headers INTERFACE
    ${boost_config_SOURCE_DIR}/include ${boost_math_SOURCE_DIR}/include)
endif()

# The program and the tests

if(MULTISTEP_BUILD_PROGRAM)
  FetchContent_Declare(CLI11 SOURCE_SUBDIR none
    URL https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.4.2.tar.gz
    URL_HASH SHA256=f2d893a65c3b1324c50d4e682c0cdc021dd0477ae2c048544f39eed6654b699a
    FIND_PACKAGE_ARGS 2.1)
  FetchContent_MakeAvailable(CLI11)
  multistep_header_target(CLI11 CLI11::CLI11 include)
endif()

if(MULTISTEP_BUILD_TESTS)
  # Catch2 2.13 and Catch2 3 are both accepted, so no version is asked for.
  FetchContent_Declare(Catch2 SOURCE_SUBDIR none
    URL https://github.com/catchorg/Catch2/archive/refs/tags/v3.7.1.tar.gz
    URL_HASH SHA256=c991b247a1a0d7bb9c39aa35faf0fe9e19764213f28ffba3109388e62ee0269c
    FIND_PACKAGE_ARGS)
  # RapidCheck has no releases. Its submodules are not needed.
  FetchContent_Declare(rapidcheck SOURCE_SUBDIR none
    GIT_REPOSITORY https://github.com/emil-e/rapidcheck.git
    GIT_TAG ff6af6fc683159deb51c543b065eba14dfcf329b
    GIT_SUBMODULES ""
    FIND_PACKAGE_ARGS)
  FetchContent_MakeAvailable(Catch2 rapidcheck)
  if(catch2_SOURCE_DIR AND NOT TARGET Catch2::Catch2WithMain)
    add_subdirectory(${catch2_SOURCE_DIR} ${catch2_BINARY_DIR} EXCLUDE_FROM_ALL)
    multistep_silence(Catch2 Catch2WithMain)
    list(APPEND CMAKE_MODULE_PATH ${catch2_SOURCE_DIR}/extras)
  endif()
  if(NOT TARGET rapidcheck)
    file(GLOB_RECURSE rapidcheck_sources ${rapidcheck_SOURCE_DIR}/src/*.cpp)
    add_library(rapidcheck STATIC EXCLUDE_FROM_ALL ${rapidcheck_sources})
    target_include_directories(rapidcheck PUBLIC ${rapidcheck_SOURCE_DIR}/include)
    multistep_silence(rapidcheck)
  endif()
endif()

# The benchmarks

if(MULTISTEP_BUILD_BENCHMARKS)
  FetchContent_Declare(benchmark SOURCE_SUBDIR none
    URL https://github.com/google/benchmark/archive/refs/tags/v1.9.1.tar.gz
    URL_HASH SHA256=32131c08ee31eeff2c8968d7e874f3cb648034377dfc32a4c377fa8796d84981
    FIND_PACKAGE_ARGS 1.7)
  FetchContent_MakeAvailable(benchmark)
  if(benchmark_SOURCE_DIR AND NOT TARGET benchmark::benchmark)
    foreach(feature IN ITEMS TESTING GTEST_TESTS INSTALL WERROR)
      set(BENCHMARK_ENABLE_${feature} OFF)
    endforeach()
    add_subdirectory(${benchmark_SOURCE_DIR} ${benchmark_BINARY_DIR} EXCLUDE_FROM_ALL)
    multistep_silence(benchmark)
  endif()
endif()
