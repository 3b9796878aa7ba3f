# Whether the kernels are built. MULTISTEP_CUDA asks for it:
#   AUTO  where an nvcc that can compile them is found
#   ON    else it is an error
#   OFF   never
# and is ON or OFF from here on. MULTISTEP_NO_CUDA_REASON says in one line why not; empty: they are.
#
# nvcc is what CMAKE_CUDA_COMPILER or CUDACXX name; else the first on PATH, in CUDA_HOME, in
# CUDA_PATH, in /usr/local/cuda.

set(MULTISTEP_OLDEST_CUDA 12.5)  # the first with cudaGetDriverEntryPointByVersion

# What went wrong, of a program's output: its first line that speaks of an error, else its first.
# Kept to characters that every shell and compiler passes on.
function(multistep_first_error output code result)
  string(REGEX MATCH "[^\n]*[Ee]rror[^\n]*" line "${output}")
  if(NOT line)
    string(REGEX MATCH "[^\n]+" line "${output}")
  endif()
  if(NOT line AND code MATCHES "^[0-9]+$")
    set(line "ended with ${code}")
  elseif(NOT line)
    set(line "${code}")
  endif()
  string(REGEX REPLACE "[\"`]" "'" line "${line}")
  string(REGEX REPLACE "[^]A-Za-z0-9 ,.:/()_+=<>?!'[-]" "" line "${line}")
  string(STRIP "${line}" line)
  set(${result} "${line}" PARENT_SCOPE)
endfunction()

function(multistep_find_nvcc result arguments)
  foreach(given IN ITEMS "${CMAKE_CUDA_COMPILER}" "$ENV{CUDACXX}")
    if(given)
      get_filename_component(program "${given}" PROGRAM PROGRAM_ARGS rest)
      if(NOT program)
        set(program "${given}")
      endif()
      set(${result} "${program}" PARENT_SCOPE)
      set(${arguments} "${rest}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  find_program(nvcc nvcc NO_CACHE NO_CMAKE_SYSTEM_PATH PATH_SUFFIXES bin
    PATHS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda)
  set(${result} "${nvcc}" PARENT_SCOPE)
  set(${arguments} "" PARENT_SCOPE)
endfunction()

# Why `nvcc` cannot build the kernels; empty where it can compile and link a program of them.
function(multistep_try_nvcc nvcc arguments why)
  execute_process(COMMAND "${nvcc}" --version TIMEOUT 60
    RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT output MATCHES "release ([0-9]+\\.[0-9]+)")
    multistep_first_error("${output}" "${code}" line)
    set(${why} "${nvcc} does not tell its version: ${line}" PARENT_SCOPE)
    return()
  endif()
  if(CMAKE_MATCH_1 VERSION_LESS MULTISTEP_OLDEST_CUDA)
    set(${why} "${nvcc} is of CUDA ${CMAKE_MATCH_1}: ${MULTISTEP_OLDEST_CUDA} or later is needed"
      PARENT_SCOPE)
    return()
  endif()
  set(folder ${CMAKE_BINARY_DIR}/CMakeFiles/multistep_nvcc)
  file(MAKE_DIRECTORY ${folder})
  file(WRITE ${folder}/test.cu
    "#include <vector>\n__global__ void kernel() {}\nint main() { kernel<<<1, 1>>>(); }\n")
  # As CMake does: the environment is looked at the first time alone.
  set(given "$ENV{CUDAFLAGS}")
  if(DEFINED CMAKE_CUDA_FLAGS)
    set(given "${CMAKE_CUDA_FLAGS}")
  endif()
  separate_arguments(flags UNIX_COMMAND "${arguments} ${given}")
  foreach(host IN ITEMS "${CMAKE_CUDA_HOST_COMPILER}" "$ENV{CUDAHOSTCXX}")
    if(host)
      list(APPEND flags -ccbin "${host}")
      break()
    endif()
  endforeach()
  execute_process(COMMAND "${nvcc}" ${flags} -std=c++20 test.cu -o test
    WORKING_DIRECTORY ${folder} TIMEOUT 300
    RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    multistep_first_error("${output}" "${code}" line)
    set(${why} "${nvcc} does not compile: ${line}" PARENT_SCOPE)
    return()
  endif()
  set(${why} "" PARENT_SCOPE)
endfunction()

set(MULTISTEP_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (where nvcc can), ON or OFF")
set_property(CACHE MULTISTEP_CUDA PROPERTY STRINGS AUTO ON OFF)
option(MULTISTEP_CUDA_FAULTS "Build a copy of the kernels that can be told to go wrong" OFF)

string(TOUPPER "${MULTISTEP_CUDA}" MULTISTEP_CUDA)
if(NOT MULTISTEP_CUDA MATCHES "^(AUTO|ON|OFF|TRUE|FALSE|YES|NO|1|0)$")
  message(FATAL_ERROR "MULTISTEP_CUDA=${MULTISTEP_CUDA}: AUTO, ON or OFF")
endif()
set(reason "")
if(MULTISTEP_CUDA STREQUAL "AUTO" OR MULTISTEP_CUDA)
  multistep_find_nvcc(nvcc nvcc_arguments)
  if(nvcc)
    multistep_try_nvcc("${nvcc}" "${nvcc_arguments}" reason)
  else()
    set(reason
      "nvcc is not on PATH, nor named by CUDACXX, nor in CUDA_HOME, CUDA_PATH or /usr/local/cuda")
  endif()
  if(reason AND NOT MULTISTEP_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "MULTISTEP_CUDA=${MULTISTEP_CUDA}: ${reason}")
  elseif(reason AND nvcc)
    message(WARNING "No CUDA kernels are built: ${reason}")
  elseif(reason)
    message(STATUS "No CUDA kernels are built: ${reason}")
  endif()
else()
  set(reason "MULTISTEP_CUDA=${MULTISTEP_CUDA}")
endif()
set(MULTISTEP_NO_CUDA_REASON "${reason}" CACHE INTERNAL "Why there are no kernels; empty: there are")
if(reason)
  set(MULTISTEP_CUDA OFF)
  return()
endif()
set(MULTISTEP_CUDA ON)

# Hopper has kernels of its own (90a). All other chips from Ampere on run the code for 80; what is
# newer than this compiler compiles it anew, from PTX. CUDAARCHS, where it is set, names others.
if(NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES 80 90a-real CACHE STRING "GPU architectures to build for")
endif()
if(NOT CMAKE_CUDA_COMPILER AND NOT nvcc_arguments)
  set(CMAKE_CUDA_COMPILER "${nvcc}")
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
# CMake 3.25 has not heard that nvcc knows C++20.
foreach(kind IN ITEMS STANDARD EXTENSION)
  if(NOT CMAKE_CUDA20_${kind}_COMPILE_OPTION)
    set(CMAKE_CUDA20_${kind}_COMPILE_OPTION -std=c++20)
  endif()
endforeach()
