# NVIDIA's libraries that the module for GPUs calls: targets titan_cublaslt, titan_cudnn (with its frontend's headers), titan_nccl and titan_nvrtc.
# A library and its header are taken from one place, the first that has both: TITAN_CUDA_PARTS, where `deno task setup --cuda` unpacks NVIDIA's wheels;
# the toolkit; the folders that CUDNN_ROOT, NCCL_ROOT and CMAKE_PREFIX_PATH name, as modules of clusters set them; the system. That setup asks
# the same question by cmake -DTITAN_CUDA=NVCC -P cuda_libraries.cmake, which prints "toolkit VERSION" and a line "NAME FOLDER" for each, without the
# folder where it is missing.
if(NOT TITAN_CUDA_PARTS)
  get_filename_component(TITAN_CUDA_PARTS "${CMAKE_CURRENT_LIST_DIR}/../../build/cuda_parts" ABSOLUTE)
endif()
execute_process(COMMAND ${TITAN_CUDA} --version OUTPUT_VARIABLE nvcc_version ERROR_QUIET)
if(NOT nvcc_version MATCHES "release (([0-9]+)\\.[0-9]+)")
  message(FATAL_ERROR "${TITAN_CUDA} --version does not say its release; expected: NVIDIA's nvcc; fix: name it by -DTITAN_CUDA=PATH, or CUDA_HOME")
endif()
set(toolkit_version ${CMAKE_MATCH_1})
set(toolkit_major ${CMAKE_MATCH_2})
execute_process(COMMAND ${TITAN_CUDA} --dryrun -x cu -E /dev/null OUTPUT_QUIET ERROR_VARIABLE nvcc_plan) # it may be a script that calls nvcc elsewhere
if(nvcc_plan MATCHES "TOP=([^\n]+)")
  get_filename_component(toolkit_root ${CMAKE_MATCH_1} ABSOLUTE)
else()
  get_filename_component(toolkit_root ${TITAN_CUDA}/../.. ABSOLUTE)
endif()

# Name, library and header. The frontend of cuDNN is headers alone.
set(cuda_libraries
  "cublaslt libcublasLt.so.${toolkit_major} cublasLt.h"
  "cudnn libcudnn.so.9 cudnn.h"
  "cudnn_frontend none cudnn_frontend.h"
  "nccl libnccl.so.2 nccl.h"
  "nvrtc libnvrtc.so.${toolkit_major} nvrtc.h")
file(GLOB cuda_roots ${TITAN_CUDA_PARTS}/nvidia/*)
string(REPLACE ":" ";" cuda_prefixes "$ENV{CUDNN_ROOT}:$ENV{NCCL_ROOT}:$ENV{CMAKE_PREFIX_PATH}")
list(APPEND cuda_roots ${TITAN_CUDA_PARTS} ${toolkit_root} ${cuda_prefixes} /usr/local /usr)

set(cuda_missing)
foreach(line ${cuda_libraries})
  string(REPLACE " " ";" line ${line})
  list(GET line 0 name)
  list(GET line 1 library)
  list(GET line 2 header)
  set(cuda_root_${name})
  foreach(root ${cuda_roots})
    file(GLOB cuda_found ${root}/lib/${library} ${root}/lib64/${library} ${root}/lib/*-linux-gnu/${library} ${root}/targets/*-linux/lib/${library})
    file(GLOB cuda_headers ${root}/include/${header} ${root}/include/*-linux-gnu/${header} ${root}/targets/*-linux/include/${header})
    if(cuda_headers AND (cuda_found OR library STREQUAL none))
      set(cuda_root_${name} ${root})
      break()
    endif()
  endforeach()
  if(NOT cuda_root_${name})
    list(APPEND cuda_missing ${name})
    continue()
  elseif(CMAKE_SCRIPT_MODE_FILE)
    continue()
  endif()
  list(GET cuda_headers 0 cuda_headers)
  get_filename_component(cuda_headers ${cuda_headers} DIRECTORY)
  if(library STREQUAL none)
    target_include_directories(titan_cudnn SYSTEM INTERFACE ${cuda_headers})
    continue()
  endif()
  list(GET cuda_found 0 cuda_found)
  add_library(titan_${name} SHARED IMPORTED)
  set_target_properties(titan_${name} PROPERTIES IMPORTED_LOCATION ${cuda_found})
  target_include_directories(titan_${name} SYSTEM INTERFACE ${cuda_headers})
  message(STATUS "GPUs: ${cuda_found}")
  # The module finds a library of build/ beside itself, wherever the checkout is moved. CMake adds the path as it is now.
  get_filename_component(folder ${cuda_found} DIRECTORY)
  get_filename_component(build ${CMAKE_CURRENT_SOURCE_DIR}/../build ABSOLUTE)
  file(RELATIVE_PATH folder ${build} ${folder})
  if(NOT folder MATCHES "^\\.\\./")
    list(APPEND cuda_rpath "$ORIGIN/${folder}")
  endif()
endforeach()

if(CMAKE_SCRIPT_MODE_FILE)
  set(report "toolkit ${toolkit_version}")
  foreach(line ${cuda_libraries})
    string(REGEX REPLACE " .*" "" name ${line})
    set(report "${report}\n${name} ${cuda_root_${name}}")
  endforeach()
  execute_process(COMMAND ${CMAKE_COMMAND} -E echo "${report}") # message() would write to the standard error
elseif(cuda_missing)
  list(JOIN cuda_missing ", " cuda_missing)
  message(FATAL_ERROR "The module for GPUs needs ${cuda_missing}, missing here; expected: in ${TITAN_CUDA_PARTS}, the toolkit of ${TITAN_CUDA}, or the system; fix: npx -y deno task setup --cuda")
endif()
