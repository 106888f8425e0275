# GPUs: libtitan_cuda, a module that libtitan opens on demand. The engine is C++, the kernels of cuda/ops are compiled by nvcc for each architecture.
# What the module shares with libtitan it has for itself: libtitan shows nothing but its C interface.
include(cmake/cuda_texts.cmake)
file(GLOB cuda_engine_sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cpp)
list(REMOVE_ITEM cuda_engine_sources cuda/open.cpp cuda/module.cpp cuda/kernels.cpp) # of libtitan; the module's entry, and its table of kernels
set(cuda_engine_test_sources ${cuda_engine_sources})
set(cuda_products_test_sources cuda/products.cpp)
set(cuda_collectives_test_sources ${cuda_engine_sources})
list(REMOVE_ITEM cuda_collectives_test_sources cuda/nccl.cpp) # which the test plays itself
set(cuda_nccl_test_sources cuda/nccl.cpp)
set(cuda_module_sources cuda/module.cpp access.cpp failure.cpp program.cpp signature.cpp comm/collective.cpp sha256.cpp)
file(GLOB cuda_played_sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/host/*.cpp)
list(REMOVE_ITEM cuda_played_sources cuda/host/emulator.cpp cuda/host/mma.cpp) # which run blocks
file(GLOB cuda_kernel_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/ops/*.cu)

if(NOT TITAN_CUDA STREQUAL none)
  set(CMAKE_CUDA_COMPILER ${TITAN_CUDA})
  set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90 100)
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
    message(FATAL_ERROR "${TITAN_CUDA} is of CUDA ${CMAKE_CUDA_COMPILER_VERSION}; expected: 12.8 or later")
  endif()
  message(STATUS "GPUs: CUDA ${CMAKE_CUDA_COMPILER_VERSION}, for the architectures ${CMAKE_CUDA_ARCHITECTURES}")
  include(cmake/cuda_libraries.cmake)
  add_library(titan_cuda MODULE ${cuda_engine_sources} ${cuda_module_sources} cuda/kernels.cpp ${cuda_kernel_sources})
  target_include_directories(titan_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_link_libraries(titan_cuda PRIVATE titan_cublaslt titan_cudnn titan_nccl titan_nvrtc)
  target_compile_options(titan_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra> $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-Werror=all-warnings;-Xptxas=-warn-spills>)
  set_target_properties(titan_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR} CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden SUFFIX .so BUILD_RPATH "${cuda_rpath}")
  # Nothing is undefined: had the host compiler taken the kernels, their emulator would be.
  target_link_options(titan_cuda PRIVATE -Wl,-z,nodelete -Wl,--no-undefined)
  add_dependencies(titan titan_cuda)
  # What is played declares by itself what it plays: it has to be what the toolkit and the libraries declare.
  add_library(titan_cuda_declarations OBJECT EXCLUDE_FROM_ALL ${cuda_played_sources})
  target_compile_definitions(titan_cuda_declarations PRIVATE TITAN_TOOLKIT_HEADER)
  target_include_directories(titan_cuda_declarations SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_link_libraries(titan_cuda_declarations PRIVATE titan_cublaslt titan_cudnn titan_nccl titan_nvrtc)
  add_dependencies(titan_cuda titan_cuda_declarations)
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/tests)
    add_executable(cublaslt_library EXCLUDE_FROM_ALL tests/cublaslt_library.cpp failure.cpp)
    target_include_directories(cublaslt_library SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
    target_link_libraries(cublaslt_library PRIVATE titan_cublaslt)
    set_source_files_properties(tests/cublaslt_library.cpp PROPERTIES LANGUAGE CUDA) # linked with the runtime
  endif()
endif()
