// Records how long a piece of work takes, where there is a profile to record it in.
#pragma once

#include <chrono>

#include "parvis/profile.h"

namespace parvis::cpu {

// Does work(). `describe` returns a LaunchRecord without its time, and is called only where `profile` is not null.
template <class Describe, class Work>
void timed(Profile* profile, Describe&& describe, Work&& work) {
  if (!profile) return work();
  const auto start = std::chrono::steady_clock::now();
  work();
  const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
  LaunchRecord record = describe();
  record.ms = taken.count();
  profile->push_back(std::move(record));
}

}  // namespace parvis::cpu
