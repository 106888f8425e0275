# The headers that sources for NVRTC include, as texts in cuda/nvrtc.cpp: these files themselves, so that a kernel from source rounds as all others do.
# Of the standard library, which NVRTC does not have, they need three types and a name.
set(texts_folder ${CMAKE_BINARY_DIR}/cuda_texts)
set(texts "namespace titan::cuda {\nconstexpr std::pair<const char*, const char*> NVRTC_HEADERS[] = {\n")
string(APPEND texts "  {\"cstddef\", \"using size_t = decltype(sizeof(0));\\n\"},\n")
string(APPEND texts "  {\"cstdint\", \"using int32_t = int; using int64_t = long; using uint8_t = unsigned char; using uint16_t = unsigned short; using uint32_t = unsigned; using uint64_t = unsigned long;\\n\"},\n")
string(APPEND texts "  {\"string\", \"namespace std { class string; }\\n\"},\n")
foreach(header backend.h element_types.h element_types.def cuda/map_formulas.h)
  get_filename_component(name ${header} NAME)
  file(READ ${CMAKE_CURRENT_SOURCE_DIR}/${header} contents)
  string(APPEND texts "  {\"${name}\", R\"titan(${contents})titan\"},\n")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${header})
endforeach()
string(APPEND texts "};\n}  // namespace titan::cuda\n")
file(GENERATE OUTPUT ${texts_folder}/nvrtc_headers.h CONTENT "${texts}")
set_source_files_properties(cuda/nvrtc.cpp PROPERTIES INCLUDE_DIRECTORIES ${texts_folder})
set_source_files_properties(cuda/host/nvrtc.cpp PROPERTIES
  COMPILE_DEFINITIONS "TITAN_PLAYED_NVRTC_COMPILER=\"${CMAKE_CXX_COMPILER}\";TITAN_PLAYED_NVRTC_BUILTIN=\"${CMAKE_CURRENT_SOURCE_DIR}/cuda/host/nvrtc_builtin.h\"")
