#include "single-operation.h"

namespace parvis::cpu {

Status runSingle(Threads&, const Operation& operation, const OperationRun& run, const Cancel&, OperationResult&) {
  if (Status s = checkOperation(operation, run); !s.ok()) return s;
  return {Code::internal, "Not built yet."};
}

}  // namespace parvis::cpu
