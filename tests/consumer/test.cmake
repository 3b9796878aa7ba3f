# Builds and runs the consumer project against the build tree BUILD, then against an installation.

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
endforeach()
