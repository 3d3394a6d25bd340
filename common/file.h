// Positioned reads of a checkpoint file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "parvis/model.h"
#include "parvis/status.h"

namespace parvis {

class File {
 public:
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();
  // Refuses what is no regular file, without waiting for anybody, and another file than the one that was described.
  Status open(const CheckpointFile& file);
  // After the last read: was it written to meanwhile?
  Status unchanged() const;
  // Any thread. Exactly `bytes`, or a Status that says how much was missing.
  Status read(void* to, size_t bytes, uint64_t offset) const;
  const std::string& path() const { return path_; }

 private:
  Status identify(CheckpointFile& out) const;
  std::string path_;
  CheckpointFile opened_;
  intptr_t handle_ = -1;
};

}  // namespace parvis
