# GPUs: libtitan_cuda, a module that libtitan opens on demand. The engine is C++, the kernels of cuda/ops are compiled by nvcc for each architecture.
# What the module shares with libtitan it has for itself: libtitan shows nothing but its C interface.
include(cmake/cuda_texts.cmake)
file(GLOB cuda_engine_sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cpp)
set(cuda_attention_sources cuda/attention_by_cudnn.cpp cuda/cudnn_rules.cpp) # which kernels.cpp calls
list(REMOVE_ITEM cuda_engine_sources cuda/open.cpp cuda/module.cpp cuda/kernels.cpp cuda/cudnn.cpp ${cuda_attention_sources}) # of libtitan; the module's entry, and its table of kernels
set(cuda_module_sources cuda/module.cpp access.cpp failure.cpp program.cpp signature.cpp comm/collective.cpp sha256.cpp)
file(GLOB cuda_played_sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/host/*.cpp)
list(REMOVE_ITEM cuda_played_sources cuda/host/emulator.cpp cuda/host/mma.cpp cuda/host/cudnn.cpp) # which run blocks and kernels
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
  # cuDNN's frontend is templates that run once for a plan: they compile twice as fast without being made fast.
  add_library(titan_cudnn_plans OBJECT cuda/cudnn.cpp cuda/cudnn_rules.cpp)
  target_include_directories(titan_cudnn_plans SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_link_libraries(titan_cudnn_plans PUBLIC titan_cudnn titan_nvrtc)
  target_compile_options(titan_cudnn_plans PRIVATE -Wall -Wextra -O0)
  set_target_properties(titan_cudnn_plans PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  add_library(titan_cuda MODULE ${cuda_engine_sources} comm/nccl/nccl.cpp ${cuda_module_sources} cuda/kernels.cpp cuda/attention_by_cudnn.cpp ${cuda_kernel_sources})
  target_link_libraries(titan_cuda PRIVATE titan_cudnn_plans)
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
    add_executable(nvrtc_sources EXCLUDE_FROM_ALL tests/nvrtc_sources.cpp cuda/nvrtc.cpp failure.cpp sha256.cpp)
    target_include_directories(nvrtc_sources SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
    target_link_libraries(nvrtc_sources PRIVATE titan_nvrtc Threads::Threads ${CMAKE_DL_LIBS})
    add_executable(cublaslt_library EXCLUDE_FROM_ALL tests/cublaslt_library.cpp failure.cpp)
    target_include_directories(cublaslt_library SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
    target_link_libraries(cublaslt_library PRIVATE titan_cublaslt)
    set_source_files_properties(tests/cublaslt_library.cpp tests/nvrtc_sources.cpp PROPERTIES LANGUAGE CUDA) # linked with the runtime
    # cuDNN itself makes plans for GPUs that are not here, with a driver that runs nothing, which only this program has.
    add_library(cuda_driver SHARED EXCLUDE_FROM_ALL tests/cuda_driver.cpp)
    target_compile_options(cuda_driver PRIVATE -Wall -Wextra)
    set_target_properties(cuda_driver PROPERTIES OUTPUT_NAME cuda SOVERSION 1 LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/no_gpu)
    add_executable(cudnn_plans EXCLUDE_FROM_ALL tests/cudnn_plans.cpp failure.cpp)
    set_source_files_properties(tests/cudnn_plans.cpp PROPERTIES LANGUAGE CUDA) # linked with the runtime
    target_link_options(cudnn_plans PRIVATE -Wl,--no-as-needed)
    target_link_libraries(cudnn_plans PRIVATE titan_cudnn_plans cuda_driver)
  endif()
endif()
