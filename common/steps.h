// What every backend checks before it runs a step, and the numbers that no backend may choose for itself.
#pragma once

#include <vector>

#include "parvis/model.h"
#include "parvis/status.h"
#include "parvis/step.h"

namespace parvis {

constexpr int maxPosition = 1 << 14;  // rows and columns of rotation cells lie below

Status checkSession(const TransformerModel& model, const SessionOptions& options);

// Which tokens are known: given at the start, or predicted by a step since. A backend may draw them later than it is told.
class Known {
 public:
  Known() = default;
  explicit Known(const SessionOptions& options);
  bool all(int token) const { return missing_[static_cast<size_t>(token)] == 0; }  // in every sequence
  void predicted(int token) { missing_[static_cast<size_t>(token)] = 0; }

 private:
  std::vector<int> missing_;  // sequences without it
};

Status checkRule(const StepRule& rule);
Status checkStep(const TransformerModel& model, const SessionOptions& options, const Known& known, const Row* rows, int count, const StepRule& rule);

// Pair k of the first or second half of a head, k < headSize / 4, at a row or column of the grid. Computed in double
// precision from float32 factors, as the published implementation rounds them.
struct Angle {
  float cosine, sine;
};
Angle rotationAngle(const TransformerModel& model, int position, int k);

// The status of logits that no token can be drawn from.
Status notFinite();

}  // namespace parvis
