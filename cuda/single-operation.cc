#include "single-operation.h"

namespace parvis::cuda {

Status runSingle(const std::shared_ptr<Device>&, const Operation& operation, const OperationRun& run, const Cancel&, OperationResult&) {
  if (Status s = checkOperation(operation, run); !s.ok()) return s;
  return {Code::internal, "Not built yet."};
}

Status measureCeilings(const std::shared_ptr<Device>&, Ceilings&) { return {Code::internal, "Not built yet."}; }

}  // namespace parvis::cuda
