// The real main of the programs for a device: where none can be used it says why, in the words of `parvis doctor`, and
// fails. What has not run must not count as passed.
#include <cstdio>

#include "parvis/cuda.h"

int programMain(int count, char** arguments);  // the program's own, renamed by CMakeLists.txt

int main(int count, char** arguments) {
  const parvis::CudaProbe probe = parvis::probeCuda();
  if (!probe.reason.empty()) {
    std::printf("not ok no CUDA device can be used: %s\n", probe.reason.c_str());
    return 1;
  }
  char order[] = "1";  // programs of test/simt take an order of threads, which means nothing here
  char* alone[] = {arguments[0], order, nullptr};
  const bool cases = count < 2;
  return programMain(cases ? 1 : count, cases ? alone : arguments);
}
