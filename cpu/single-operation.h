// One operation by itself, and the machine's ceilings: what tests and benchmarks ask of the backend.
#pragma once

#include "parvis/backend.h"
#include "threads.h"

namespace parvis::cpu {

Status runSingle(Threads& threads, const Operation& operation, const OperationRun& run, const Cancel& cancel, OperationResult& out);
Status measureCeilings(Threads& threads, Ceilings& out);

}  // namespace parvis::cpu
