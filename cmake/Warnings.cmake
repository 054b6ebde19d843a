# Warnings are errors. Headers of other projects are SYSTEM and stay out of this.
add_library(ourfs_warnings INTERFACE)
target_compile_options(ourfs_warnings INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Woverloaded-virtual
  -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(ourfs_warnings INTERFACE -Wthread-safety)
endif()
if(OURFS_SANITIZE)
  add_compile_options(-fsanitize=${OURFS_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${OURFS_SANITIZE})
endif()
