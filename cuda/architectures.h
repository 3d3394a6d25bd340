// Which devices a build has code for, and how that is said. No CUDA in here: the tests ask it on machines without.
#pragma once

#include <cctype>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "parvis/cuda.h"

namespace parvis::cuda {

// One word of a build's architectures: 80, 120, 90a (of this device alone), 100f (of its family), 90+PTX.
struct Architecture {
  int major = 0, minor = 0;
  bool exact = false, ptx = false;
};

inline std::vector<Architecture> architecturesOf(const std::string& text) {
  std::vector<Architecture> all;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    char* end = nullptr;
    const long number = std::strtol(word.c_str(), &end, 10);
    if (number < 10) continue;
    all.push_back({static_cast<int>(number / 10), static_cast<int>(number % 10), *end == 'a',
                   word.find("PTX") != std::string::npos});
  }
  return all;
}

// A binary runs on devices of its own major version and the same or a later minor one; PTX, which the driver
// translates, on any device from its version on. Nothing known of the build: true.
inline bool covers(const std::string& architectures, int major, int minor, bool translated = true) {
  const std::vector<Architecture> all = architecturesOf(architectures);
  for (const Architecture& a : all) {
    if (a.exact ? major == a.major && minor == a.minor : major == a.major && minor >= a.minor) {
      if (!a.ptx || translated) return true;
    } else if (a.ptx && translated && !a.exact && major > a.major) {
      return true;
    }
  }
  return all.empty();
}

// "8.0 and 9.0", "8.0, 9.0 and newer ones"
inline std::string capabilitiesText(const std::string& architectures) {
  std::vector<std::string> words;
  bool newer = false;
  for (const Architecture& a : architecturesOf(architectures)) {
    const std::string word = std::to_string(a.major) + "." + std::to_string(a.minor);
    if (words.empty() || words.back() != word) words.push_back(word);
    newer |= a.ptx && !a.exact;
  }
  if (newer) words.push_back("newer ones");
  std::string text;
  for (size_t i = 0; i < words.size(); i++) text += (i == 0 ? "" : i + 1 < words.size() ? ", " : " and ") + words[i];
  return text;
}

// 12040 -> "12.4"
inline std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

inline std::string deviceText(int index, const std::string& name) {
  return "GPU " + std::to_string(index) + (name.empty() ? "" : " (" + name + ")");
}

// Why this build cannot use a device; empty: it can.
inline std::string deviceProblem(int index, const CudaDevice& device, const CudaProbe& probe) {
  if (covers(probe.architectures, device.major, device.minor, probe.driver >= probe.runtime)) return "";
  const std::string has = deviceText(index, device.name) + " has compute capability " + std::to_string(device.major) +
                          "." + std::to_string(device.minor) + "; ";
  if (covers(probe.architectures, device.major, device.minor))
    return has + "this build has only code for it that the driver must translate, for which the driver supports CUDA " +
           versionText(probe.driver) + " and needs " + versionText(probe.runtime);
  return has + "this build has " + capabilitiesText(probe.architectures);
}

// Why no device can be used, of a probe whose devices are all there; empty: one can.
inline std::string noDevice(const CudaProbe& probe) {
  if (probe.devices.empty()) return "the NVIDIA driver shows no GPU";
  std::string all;
  for (const CudaDevice& device : probe.devices) {
    if (device.problem.empty()) return "";
    all += (all.empty() ? "" : "; ") + device.problem;
  }
  return all;
}

}  // namespace parvis::cuda
