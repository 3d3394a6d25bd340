# The GPUs that kernels are compiled for: -DPARVIS_ARCHITECTURES=dev, release, or a list such as "86-real;90-real". The
# environment variable of that name is the default.
# `-real` is machine code, which also runs on later GPUs of the same generation (first digits); `-virtual` is PTX, which
# the driver of any later GPU compiles when the addon first uses it, for minutes' worth of patience at worst. So the
# newest has PTX beside it, and no GPU from A100 on is left out.
set(architectures_dev 80-real 90-real 90-virtual)
set(architectures_release
  80-real    # A100
  86-real    # A10, A40, RTX 30
  89-real    # L4, L40, RTX 40
  90-real    # H100, H200
  100-real   # B200
  120-real   # RTX 50, RTX PRO Blackwell
  120-virtual)

set(architectures_default dev)
if(DEFINED ENV{PARVIS_ARCHITECTURES})
  set(architectures_default $ENV{PARVIS_ARCHITECTURES})
endif()
set(PARVIS_ARCHITECTURES ${architectures_default} CACHE STRING "GPUs to compile kernels for: dev, release, or a list in CMake's form")
if(PARVIS_ARCHITECTURES MATCHES "^(dev|release)$")
  set(architectures ${architectures_${PARVIS_ARCHITECTURES}})
else()
  string(REPLACE "," ";" architectures "${PARVIS_ARCHITECTURES}")
endif()

# As text for whom a GPU is refused: "80 90 90+PTX".
set(architectures_text "")
foreach(architecture ${architectures})
  if(architecture MATCHES "^([0-9]+[af]?)(-real|-virtual)?$")
    if(NOT CMAKE_MATCH_2 STREQUAL "-virtual")
      string(APPEND architectures_text " ${CMAKE_MATCH_1}")
    endif()
    if(NOT CMAKE_MATCH_2 STREQUAL "-real")
      string(APPEND architectures_text " ${CMAKE_MATCH_1}+PTX")
    endif()
  else()
    message(FATAL_ERROR "PARVIS_ARCHITECTURES: '${architecture}' is not dev, release, or an architecture such as 90-real.")
  endif()
endforeach()
string(STRIP "${architectures_text}" architectures_text)
if(architectures_text STREQUAL "")
  message(FATAL_ERROR "PARVIS_ARCHITECTURES is empty: dev, release, or a list such as 86-real;90-real")
endif()
