# include/parvis/limits.json is the one table of limits: lib/machine/limits.ts reads it as it is, native code as parvis/limits.h,
# which is made of it here. In `limits_include` afterwards: the folder to include from.
set(limits_json ${PROJECT_SOURCE_DIR}/include/parvis/limits.json)
set(limits_include ${PROJECT_BINARY_DIR}/limits)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${limits_json})
file(READ ${limits_json} limits)
string(JSON count LENGTH ${limits})
math(EXPR last "${count} - 1")
set(constants "")
foreach(i RANGE ${last})
  string(JSON name MEMBER ${limits} ${i})
  string(JSON value GET ${limits} ${name})
  string(APPEND constants "constexpr int ${name} = ${value};\n")
endforeach()
file(CONFIGURE OUTPUT ${limits_include}/parvis/limits.h CONTENT
"// Made of include/parvis/limits.json by cmake/limits.cmake.
#pragma once

namespace parvis::limits {

@constants@
}  // namespace parvis::limits
" @ONLY)
