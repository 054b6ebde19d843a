# Warnings are errors. Headers of other projects are SYSTEM and stay out of this.
add_library(ourfs_warnings INTERFACE)
target_compile_options(ourfs_warnings INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Woverloaded-virtual
  -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(ourfs_warnings INTERFACE -Wthread-safety)
endif()
# In a unity build every file is an "included" one, so gcc takes types of an unnamed namespace in a
# class of the same file for a mistake of a header.
if(CMAKE_UNITY_BUILD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(ourfs_warnings INTERFACE -Wno-subobject-linkage)
endif()
if(OURFS_SANITIZE)
  add_compile_options(-fsanitize=${OURFS_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${OURFS_SANITIZE})
endif()
