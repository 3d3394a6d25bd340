// What the host knows of passes that the device puts together (compose.cu). It enqueues one after the other without
// waiting for what they draw, so it knows bounds only: each pass does one step of a sequence at least, and as many as
// it holds at most. A pass gets places for the rows that it has wherever its sequences stand within those bounds.
#pragma once

#include <deque>
#include <vector>

#include "../common/passes.h"
#include "sizes.h"
#include "workspace.h"

namespace parvis::cuda {

class Ahead {
 public:
  Ahead() = default;
  Ahead(const SessionOptions& options, int sharedHeads, bool crosses);

  // The passes of the seat are put together by the device from now on; it is done with so many steps.
  void begin(int seat, int done);
  void end(int seat) { at(seat).begun = false; }
  bool has(int seat) const { return at(seat).begun; }
  // Passes of it are enqueued that it is not known to be done with.
  bool waits(int seat) const { return has(seat) && !at(seat).inFlight.empty(); }
  // What the device has told of the seat: passes that it has looked at << 32 | steps that were done by then.
  void hear(int seat, uint64_t progress);

  // Steps that are surely done, and those that may be, once all that is enqueued has run.
  struct Bounds {
    int least, most;
  };
  Bounds bounds(int seat, const Passes& passes) const;

  // The next pass of sequences that are not at their end, as entries of the device and what launches need to know.
  // False: their rows may be more than there is room for. Each of `parts` gets as many steps as fit.
  bool compose(std::vector<PassPart>& parts, const Passes& passes, int chunk);
  const std::vector<PassEntry>& entries() const { return entries_; }
  const StepPlan& plan() const { return plan_; }
  int rows() const { return rows_; }
  // It is enqueued.
  void enqueued(const std::vector<PassPart>& parts);

 private:
  struct Seat {
    bool begun = false, fresh = false;  // fresh: no pass was put together since it has begun
    int done = 0;                       // as the device knew when it had looked at so many passes:
    uint32_t looked = 0, enqueued = 0;
    std::deque<int> inFlight;  // of those that it has not looked at: the most steps that each can have
  };
  struct Places {
    int rows[2] = {};  // [kind]
    int steps = 1;     // that a pass can have there
    int all() const { return rows[0] + rows[1]; }
  };
  const Seat& at(int seat) const { return seats_[static_cast<size_t>(seat)]; }
  Seat& at(int seat) { return seats_[static_cast<size_t>(seat)]; }
  static Places placesOf(int seat, const Passes& passes, Bounds bounds, int steps);

  SessionOptions o_;
  int shared_ = 1;  // heads that share a key
  bool crosses_ = false;
  std::vector<Seat> seats_;
  // Of the pass that was composed last.
  std::vector<Places> places_;  // of each part
  std::vector<PassEntry> entries_;
  StepPlan plan_;
  int rows_ = 0;
};

}  // namespace parvis::cuda
