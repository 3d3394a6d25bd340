#include "file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <fcntl.h>
#include <unistd.h>
#endif

namespace parvis {

Status File::open(const std::string& path) {
  path_ = path;
#if defined(_WIN32)
  const int length = MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, nullptr, 0);
  std::wstring wide(length, L'\0');
  MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, wide.data(), length);
  HANDLE h = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING, 0, nullptr);
  if (h == INVALID_HANDLE_VALUE) return {Code::fileNotFound, "Cannot open " + path + "."};
  handle_ = reinterpret_cast<intptr_t>(h);
#else
  handle_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (handle_ < 0) return {Code::fileNotFound, "Cannot open " + path + ": " + std::strerror(errno) + "."};
#endif
  return {};
}

File::~File() {
  if (handle_ == -1) return;
#if defined(_WIN32)
  CloseHandle(reinterpret_cast<HANDLE>(handle_));
#else
  ::close(static_cast<int>(handle_));
#endif
}

Status File::read(void* to, size_t bytes, uint64_t offset) const {
  uint8_t* at = static_cast<uint8_t*>(to);
  size_t left = bytes;
  while (left > 0) {
    const size_t piece = std::min<size_t>(left, 1u << 30);
#if defined(_WIN32)
    OVERLAPPED where{};
    where.Offset = static_cast<DWORD>(offset);
    where.OffsetHigh = static_cast<DWORD>(offset >> 32);
    DWORD done = 0;
    const int64_t got = ReadFile(reinterpret_cast<HANDLE>(handle_), at, static_cast<DWORD>(piece), &done, &where) ? done : 0;
#else
    const int64_t got = ::pread(static_cast<int>(handle_), at, piece, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
#endif
    if (got <= 0)
      return {Code::badCheckpoint, path_ + " ends early: " + std::to_string(left) + " of " + std::to_string(bytes) +
                                       " bytes at offset " + std::to_string(offset) + " are missing. Copy or download it again."};
    at += got;
    left -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

}  // namespace parvis
