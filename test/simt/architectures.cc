// Which devices a build has code for, and the words for it: what the driver's answers become, without a driver.
#include "../../cuda/architectures.h"

#include "cases.h"

using namespace parvis;
using namespace parvis::cuda;
using cases::check;

static void covering(const char* architectures, int major, int minor, bool translated, bool expected) {
  check(covers(architectures, major, minor, translated) == expected, "'%s' %s %d.%d%s", architectures,
        expected ? "covers" : "does not cover", major, minor, translated ? "" : ", nothing translated");
}

static void says(const char* what, const std::string& found, const std::string& expected) {
  check(found == expected, "%s: %s%s%s", what, expected.c_str(),
        found == expected ? "" : ", but found: ", found == expected ? "" : found.c_str());
}

static CudaDevice device(const char* name, int major, int minor) {
  CudaDevice d;
  d.name = name;
  d.major = major;
  d.minor = minor;
  return d;
}

int main() {
  // ---- binaries: the same major version, the same or a later minor one
  const char* const binaries = "80 90";
  for (const bool translated : {true, false}) {
    covering(binaries, 8, 0, translated, true);
    covering(binaries, 8, 6, translated, true);
    covering(binaries, 8, 9, translated, true);
    covering(binaries, 9, 0, translated, true);
    covering(binaries, 7, 5, translated, false);
    covering(binaries, 10, 0, translated, false);
    covering(binaries, 12, 0, translated, false);
    covering("86", 8, 0, translated, false);
    covering("103", 10, 0, translated, false);
    covering("120", 12, 1, translated, true);
    covering("120", 1, 2, translated, false);
    covering("90a", 9, 0, translated, true);
    covering("100a", 10, 3, translated, false);
    covering("100f", 10, 3, translated, true);
    covering("", 3, 5, translated, true);  // nothing known of the build
  }
  // ---- PTX: that version and all later ones, where the driver translates it
  covering("80 90 90+PTX", 12, 0, true, true);
  covering("80 90 90+PTX", 12, 0, false, false);
  covering("80 90 90+PTX", 9, 0, false, true);
  covering("90+PTX", 9, 0, true, true);
  covering("90+PTX", 9, 0, false, false);
  covering("90+PTX", 8, 9, true, false);
  covering("120+PTX", 10, 0, true, false);
  covering("90a+PTX", 10, 0, true, false);

  // ---- words
  says("versions", versionText(13000) + " " + versionText(12040) + " " + versionText(11080), "13.0 12.4 11.8");
  says("one", capabilitiesText("90"), "9.0");
  says("two", capabilitiesText("80 90"), "8.0 and 9.0");
  says("with PTX", capabilitiesText("80 86 120 120+PTX"), "8.0, 8.6, 12.0 and newer ones");
  says("arch-specific", capabilitiesText("90a"), "9.0");

  CudaProbe probe;
  probe.compiled = true;
  probe.runtime = 12080;
  probe.driver = 12080;
  probe.architectures = "80 90";
  says("too old", deviceProblem(0, device("Tesla V100", 7, 0), probe),
       "GPU 0 (Tesla V100) has compute capability 7.0; this build has 8.0 and 9.0");
  says("not built in", deviceProblem(1, device("NVIDIA B200", 10, 0), probe),
       "GPU 1 (NVIDIA B200) has compute capability 10.0; this build has 8.0 and 9.0");
  says("covered", deviceProblem(0, device("NVIDIA H200", 9, 0), probe), "");
  probe.architectures = "80 90 90+PTX";
  says("by PTX", deviceProblem(0, device("NVIDIA B200", 10, 0), probe), "");
  probe.driver = 12020;
  says("by PTX that the driver cannot translate", deviceProblem(0, device("NVIDIA B200", 10, 0), probe),
       "GPU 0 (NVIDIA B200) has compute capability 10.0; this build has only code for it that the driver must "
       "translate, for which the driver supports CUDA 12.2 and needs 12.8");
  says("a binary needs no translation", deviceProblem(0, device("NVIDIA H200", 9, 0), probe), "");

  says("no device", noDevice(probe), "the NVIDIA driver shows no GPU");
  probe.devices = {device("a", 7, 0), device("b", 7, 5)};
  probe.devices[0].problem = "GPU 0 (a) is old";
  probe.devices[1].problem = "GPU 1 (b) is old too";
  says("all have problems", noDevice(probe), "GPU 0 (a) is old; GPU 1 (b) is old too");
  probe.devices[1].problem = "";
  says("one has none", noDevice(probe), "");
  return cases::failures > 0;
}
