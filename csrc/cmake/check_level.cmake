# Fails where an object of a level defines a symbol that the linker may share with code of another level: cmake -DNM=nm -DLEVEL=avx2
# -DOBJECTS="a.o;b.o" -P check_level.cmake. A template of the C++ library that was compiled with a level's instructions, as a weak symbol,
# could be the one that all the library uses, and end the process on a machine without them. Kernels that need such a template inline it.
string(LENGTH ${LEVEL} length)
foreach(object ${OBJECTS})
  execute_process(COMMAND ${NM} --defined-only --format=posix ${object} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+ [VWuvw] [^\n]*" weak "${symbols}")
  # What the level's namespace is part of is its own; DW.ref.* are pointers of the exception tables, the same everywhere; Clang's own function
  # that ends a process is two calls at any level.
  list(FILTER weak EXCLUDE REGEX "5titan3cpu${length}${LEVEL}|^DW\\.ref\\.|^__clang_call_terminate ")
  list(TRANSFORM weak REPLACE " .*" "" OUTPUT_VARIABLE names)
  foreach(name ${names})
    message(SEND_ERROR "${object} defines the weak symbol ${name}\n  expected: none outside of the namespace titan::cpu::${LEVEL}\n  "
                       "fix: leave what needs it out of the kernels, or inline it")
  endforeach()
endforeach()
