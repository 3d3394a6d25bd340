# Toolchain: Windows on 64-bit x86, compiled elsewhere (Debian: g++-mingw-w64-x86-64-posix). scripts/release uses it.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
# GCC takes the stack of 64-bit Windows for aligned to 32 and 64 bytes, and it is aligned to 16: moves of vectors must not
# need more. The assembler (binutils 2.38 or newer) makes all of them unaligned, which costs nothing where they are not.
set(CMAKE_C_FLAGS_INIT -Wa,-muse-unaligned-vector-move)
set(CMAKE_CXX_FLAGS_INIT -Wa,-muse-unaligned-vector-move)
