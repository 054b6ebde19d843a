# The include rule: a layer is one static library with one public include directory.
# It sees its own headers and those of the layers that it names in BELOW, because nothing else is on
# its include path. Libraries of other projects go into PRIVATE, so that they do not leak upwards.
function(ourfs_layer name)
  cmake_parse_arguments(L "" "" "BELOW;PRIVATE;PUBLIC" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/*.cc)
  add_library(ourfs_${name} STATIC ${sources})
  target_include_directories(ourfs_${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/include
                                           PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  foreach(below ${L_BELOW})
    target_link_libraries(ourfs_${name} PUBLIC ourfs_${below})
  endforeach()
  target_link_libraries(ourfs_${name} PUBLIC Threads::Threads ${L_PUBLIC} PRIVATE ourfs_warnings ${L_PRIVATE})
endfunction()
