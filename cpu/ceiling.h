// What the machine can do at most, measured.
#pragma once

#include "parvis/backend.h"
#include "threads.h"

namespace parvis::cpu {

Status measureCeilings(Threads& threads, Ceilings& out);

}  // namespace parvis::cpu
