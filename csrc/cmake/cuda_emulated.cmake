# CUDA's kernels for tests without a GPU: their sources compiled by the host compiler over the emulator of cuda/host/, as object library
# titan_cuda_kernels_emulated. The tests of kernels that name no level run on them, too. -fsanitize=thread has the compiler report each access; no
# sanitizer's library is linked, and another sanitizer cannot be had beside it. The emulator answers GCC's calls; Clang makes others. An emulator in
# an emulator of another processor would take hours.
if(TITAN_SANITIZE OR CMAKE_CROSSCOMPILING OR NOT CMAKE_SYSTEM_NAME STREQUAL Linux OR NOT CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  return()
endif()
file(GLOB emulated_kernels CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/ops/*.cu)
set(emulated_sources)
foreach(source ${emulated_kernels}) # under another name, as nvcc may compile the same files in this build
  get_filename_component(name ${source} NAME_WE)
  file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/cuda_emulated/${name}.cpp CONTENT "#include \"${source}\"\n")
  list(APPEND emulated_sources ${CMAKE_BINARY_DIR}/cuda_emulated/${name}.cpp)
endforeach()
add_library(titan_cuda_emulator OBJECT EXCLUDE_FROM_ALL cuda/host/emulator.cpp cuda/host/mma.cpp ${cuda_attention_sources} cuda/host/cudnn.cpp)
add_library(titan_cuda_kernels_emulated OBJECT EXCLUDE_FROM_ALL cuda/kernels.cpp ${emulated_sources})
target_include_directories(titan_cuda_kernels_emulated PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
# A shared array is a static one, which threads enter one after another: no guard, whose atomics the emulator does not answer.
target_compile_options(titan_cuda_kernels_emulated PRIVATE -fsanitize=thread -fno-threadsafe-statics)
# The engine over the played runtime and libraries.
add_library(titan_cuda_played OBJECT EXCLUDE_FROM_ALL ${cuda_engine_sources} ${cuda_played_sources})
target_compile_definitions(titan_cuda_played PRIVATE TITAN_PLAYED_RUNTIME)
foreach(part titan_cuda_emulator titan_cuda_kernels_emulated titan_cuda_played)
  target_compile_options(${part} PRIVATE -O2 -Wall -Wextra)
  set_target_properties(${part} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endforeach()

# The whole module over the played runtime and these kernels: with TITAN_CUDA=build/cmake/libtitan_cuda_emulated.so libtitan takes it for a GPU.
add_library(titan_cuda_emulated MODULE EXCLUDE_FROM_ALL ${cuda_module_sources})
target_compile_definitions(titan_cuda_emulated PRIVATE TITAN_PLAYED_RUNTIME)
target_compile_options(titan_cuda_emulated PRIVATE -Wall -Wextra)
target_link_libraries(titan_cuda_emulated PRIVATE titan_cuda_played titan_cuda_emulator titan_cuda_kernels_emulated Threads::Threads ${CMAKE_DL_LIBS})
target_link_options(titan_cuda_emulated PRIVATE -Wl,-z,nodelete)
set_target_properties(titan_cuda_emulated PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR} CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON SUFFIX .so)

add_executable(cuda_emulator_test EXCLUDE_FROM_ALL tests/cuda_emulator_test.cpp)
target_compile_options(cuda_emulator_test PRIVATE -fsanitize=thread -fno-threadsafe-statics -O1 -Wall -Wextra)
target_link_libraries(cuda_emulator_test PRIVATE titan_cuda_emulator)
add_dependencies(titan_tests cuda_emulator_test)
add_test(NAME cuda_emulator_test COMMAND cuda_emulator_test)
foreach(name adamw alignment attention bf16 copy cross_entropy cumsum embedding gemm integers map random reduce rmsnorm rope rows softmax top_k)
  add_executable(cuda_${name}_test EXCLUDE_FROM_ALL tests/${name}_test.cpp)
  target_compile_definitions(cuda_${name}_test PRIVATE TITAN_CUDA_EMULATED TITAN_LEVEL=portable)
  target_compile_options(cuda_${name}_test PRIVATE -O1 -Wall -Wextra)
  target_link_libraries(cuda_${name}_test PRIVATE titan_cuda_kernels_emulated titan_cuda_emulator titan_cuda_played ${titan_parts})
  add_dependencies(titan_tests cuda_${name}_test)
  add_test(NAME cuda_${name}_test COMMAND cuda_${name}_test)
endforeach()
add_executable(cuda_nvrtc_test EXCLUDE_FROM_ALL tests/cuda_nvrtc_test.cpp)
target_compile_definitions(cuda_nvrtc_test PRIVATE TITAN_PLAYED_RUNTIME)
target_compile_options(cuda_nvrtc_test PRIVATE -O1 -Wall -Wextra)
target_link_libraries(cuda_nvrtc_test PRIVATE titan_cuda_kernels_emulated titan_cuda_emulator titan_cuda_played ${titan_parts})
add_dependencies(titan_tests cuda_nvrtc_test)
add_test(NAME cuda_nvrtc_test COMMAND cuda_nvrtc_test)
