// What a session or a tokenizer records while it is profiled: one entry a launch. On the CPU a launch is a pass of all
// threads over an operation's input, on CUDA it is one kernel or a few that belong together.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace parvis {

struct LaunchRecord {
  const char* name = "";  // a literal, such as "convolution"
  std::string shape;      // sizes in a few words, such as "3x3, 512 -> 256, 24 x 24"
  double ms = 0;
  double bytes = 0;  // read or written at least once; elements count in the precision of the model
  double flops = 0;  // multiplications and additions of matrix products
};

using Profile = std::vector<LaunchRecord>;

// Base of what can be profiled. All calls come from the backend's thread.
class Profiled {
 public:
  // Records every launch from now on, or none. Returns what was recorded since the last call.
  Profile profile(bool on) {
    on_ = on;
    return std::exchange(records_, {});
  }

 protected:
  ~Profiled() = default;
  Profile* recording() { return on_ ? &records_ : nullptr; }  // null: launches are not recorded

 private:
  bool on_ = false;
  Profile records_;
};

}  // namespace parvis
