# Builds and runs the consumer project against the build tree BUILD, then against an installation.
# With CUDA the package has the kernels too; without a GPU what calls them is linked, not run.

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
endfunction()

set(scratch ${BUILD}/consumer)
file(REMOVE_RECURSE ${scratch})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${scratch}/prefix)
foreach(root IN ITEMS ${BUILD} ${scratch}/prefix)
  string(MD5 name ${root})
  run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR} -B ${scratch}/${name}
    -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_CXX_FLAGS=${FLAGS} -D CMAKE_BUILD_TYPE=Release
    -D CMAKE_PREFIX_PATH=${root} -D CMAKE_FIND_USE_PACKAGE_REGISTRY=OFF)
  file(STRINGS ${scratch}/${name}/CMakeCache.txt found REGEX "^multistep_DIR:PATH=${root}")
  if(NOT found)
    message(FATAL_ERROR "the package was not found under ${root}")
  endif()
  run(${CMAKE_COMMAND} --build ${scratch}/${name})
  run(${scratch}/${name}/consumer)
  if(CUDA)
    execute_process(COMMAND ${scratch}/${name}/consumer_gpu RESULT_VARIABLE code)
    if(code EQUAL 77)
      message(STATUS "consumer_gpu skipped: no CUDA device")
    elseif(NOT code EQUAL 0)
      message(FATAL_ERROR "consumer_gpu ended with ${code}")
    endif()
  endif()
endforeach()

# What is exported names no folder of the build.
file(GLOB exported ${scratch}/prefix/lib*/cmake/multistep/*.cmake
  ${scratch}/prefix/lib/*/cmake/multistep/*.cmake)
if(NOT exported)
  message(FATAL_ERROR "no package files under ${scratch}/prefix")
endif()
get_filename_component(source ${CMAKE_CURRENT_LIST_DIR}/../../.. ABSOLUTE)
foreach(file IN LISTS exported)
  file(READ ${file} text)
  foreach(folder IN ITEMS ${BUILD} ${source})
    string(FIND "${text}" "${folder}/" at)
    if(NOT at EQUAL -1)
      message(FATAL_ERROR "${file} names ${folder}")
    endif()
  endforeach()
endforeach()
