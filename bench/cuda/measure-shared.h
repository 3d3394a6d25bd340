// What the parts of bench/cuda/measure.cc share: the device at hand, and ways into a session. Each of these headers is
// a part of that one program.
#pragma once

#include <cstring>
#include <memory>

#include "../../cuda/session.h"
#include "../../cuda/transformer.h"
#include "../../test/cuda/official.h"
#include "measuring.h"

using namespace measuring;
using namespace parvis::cuda;
using parvis::Row;
using parvis::Status;

namespace {

// A step is measured as the session enqueues it, not as a copy of its code here: an explicit instantiation may name
// what is private, and hands it on.
struct EnqueueOf {};
struct WorkspaceOf {};
struct PlansOf {};
auto reach(EnqueueOf);
auto reach(WorkspaceOf);
auto reach(PlansOf);
template <class Tag, auto member>
struct Reach {
  friend auto reach(Tag) { return member; }
};
template struct Reach<EnqueueOf, &CudaSession::enqueue>;
template struct Reach<WorkspaceOf, &CudaSession::w_>;
template struct Reach<PlansOf, &Workspace::captured_>;

std::shared_ptr<Device> device;  // the one that the part at hand works with
cudaStream_t stream() { return device->stream(); }
StepStream steps() { return device->steps(); }  // where kernels overlap as in a session
size_t l2Bytes = 0;
double ceiling = 0;  // bytes a second of a large read
Results results;

bool succeeded(Checked& check, const Status& s) {
  if (!s.ok()) check.fail(s.message);
  return s.ok();
}

cudaError_t readAll(const void* from, size_t bytes, uint4* out, int blocksEach = 8) {
  return parvis::cuda::readAll(from, bytes, out, device->processors(), blocksEach, stream());
}

bool fill(Checked& check, void* to, size_t bytes) {
  if (!check.ok() || bytes < 4) return check.ok();
  return check(fillWithNumbers(to, bytes, stream()), "filling");
}

}  // namespace
