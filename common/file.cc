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
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace parvis {

static Status replaced(const std::string& path) {
  return {Code::badCheckpoint,
          path + " was replaced or written to while it was being loaded. Load it again when it is complete."};
}

Status File::open(const CheckpointFile& file) {
  const std::string& path = path_ = file.path;
#if defined(_WIN32)
  const int length = MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, nullptr, 0);
  std::wstring wide(length, L'\0');
  MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, wide.data(), length);
  HANDLE h =
      CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING, 0, nullptr);
  if (h == INVALID_HANDLE_VALUE) return {Code::fileNotFound, "Cannot open " + path + "."};
  handle_ = reinterpret_cast<intptr_t>(h);
#else
  // O_NONBLOCK: opening a pipe would wait for a writer. It changes nothing about regular files.
  handle_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (handle_ < 0) return {Code::fileNotFound, "Cannot open " + path + ": " + std::strerror(errno) + "."};
#endif
  if (Status s = identify(opened_); !s.ok()) return s;
  // Deno tells times in milliseconds.
  constexpr uint64_t millisecond = 1'000'000;
  const uint64_t modified =
      file.modified % millisecond == 0 ? opened_.modified / millisecond * millisecond : opened_.modified;
  const bool same = opened_.device == file.device && opened_.inode == file.inode && opened_.size == file.size &&
                    modified == file.modified;
  return file.known && !same ? replaced(path) : Status{};
}

Status File::unchanged() const {
  if (handle_ == -1) return {};
  CheckpointFile now;
  if (Status s = identify(now); !s.ok()) return s;
  return now.size == opened_.size && now.modified == opened_.modified ? Status{} : replaced(path_);
}

// As Node.js tells it, from which `file.known` comes.
Status File::identify(CheckpointFile& out) const {
#if defined(_WIN32)
  BY_HANDLE_FILE_INFORMATION info;
  if (!GetFileInformationByHandle(reinterpret_cast<HANDLE>(handle_), &info))
    return {Code::fileNotFound, "Cannot read " + path_ + "."};
  const auto whole = [](DWORD high, DWORD low) { return static_cast<uint64_t>(high) << 32 | low; };
  out.device = info.dwVolumeSerialNumber;
  out.inode = whole(info.nFileIndexHigh, info.nFileIndexLow);
  out.size = whole(info.nFileSizeHigh, info.nFileSizeLow);
  out.modified =
      (whole(info.ftLastWriteTime.dwHighDateTime, info.ftLastWriteTime.dwLowDateTime) - 116444736000000000ull) * 100;
#else
  struct stat info;
  if (fstat(static_cast<int>(handle_), &info) != 0)
    return {Code::fileNotFound, "Cannot read " + path_ + ": " + std::strerror(errno) + "."};
  if (!S_ISREG(info.st_mode)) return {Code::fileNotFound, "Cannot read " + path_ + ": it is no regular file."};
#if defined(__APPLE__)
  const timespec modified = info.st_mtimespec;
#else
  const timespec modified = info.st_mtim;
#endif
  out.device = static_cast<uint64_t>(info.st_dev);
  out.inode = static_cast<uint64_t>(info.st_ino);
  out.size = static_cast<uint64_t>(info.st_size);
  out.modified = static_cast<uint64_t>(modified.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(modified.tv_nsec);
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
    const int64_t got =
        ReadFile(reinterpret_cast<HANDLE>(handle_), at, static_cast<DWORD>(piece), &done, &where) ? done : 0;
#else
    const int64_t got = ::pread(static_cast<int>(handle_), at, piece, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
#endif
    if (got <= 0)
      return {Code::badCheckpoint, path_ + " ends early: " + std::to_string(left) + " of " + std::to_string(bytes) +
                                       " bytes at offset " + std::to_string(offset) +
                                       " are missing. Copy or download it again."};
    at += got;
    left -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

}  // namespace parvis
