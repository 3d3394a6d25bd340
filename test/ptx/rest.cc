// Kernels that no family's program runs, out of PTX and as C++ on the same inputs: the same bits.
#include "../../cuda/kernels.cuh"
#include "../simt/cases.h"

using namespace parvis::cuda;
using cases::Array;

namespace {

// `work` fills what it is given.
template <class T, class F>
void same(const char* name, size_t count, F&& work) {
  const simt::Interpret interpret = simt::interpret;
  Array<T> ours(count), theirs(count);
  const cudaError_t first = work(ours.data());
  simt::interpret = nullptr;
  const cudaError_t second = work(theirs.data());
  simt::interpret = interpret;
  cases::check(interpret && first == cudaSuccess && second == cudaSuccess &&
                   std::memcmp(ours.data(), theirs.data(), count * sizeof(T)) == 0,
               "%s", name);
}

}  // namespace

int main() {
  Array<uint16_t> all(1 << 16);
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<uint16_t>(i);
  same<uint32_t>("every half to float32", all.size(), [&](uint32_t* out) {
    return convert(all.data(), Element::float16, out, Element::float32, all.size(), 128, nullptr);
  });
  same<uint16_t>("every half to bfloat16", all.size(), [&](uint16_t* out) {
    return convert(all.data(), Element::float16, out, Element::bfloat16, all.size(), 128, nullptr);
  });
  same<uint32_t>("every bfloat16 to float32", all.size(), [&](uint32_t* out) {
    return convert(all.data(), Element::bfloat16, out, Element::float32, all.size(), 96, nullptr);
  });
  return cases::failures > 0;
}
