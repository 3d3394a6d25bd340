// Positioned reads of a checkpoint file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "parvis/status.h"

namespace parvis {

class File {
 public:
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();
  Status open(const std::string& path);
  // Any thread. Exactly `bytes`, or a Status that says how much was missing.
  Status read(void* to, size_t bytes, uint64_t offset) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  intptr_t handle_ = -1;
};

}  // namespace parvis
