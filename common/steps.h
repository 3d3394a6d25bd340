// What every backend checks before it runs a step, and the numbers that no backend may choose for itself.
#pragma once

#include <string>
#include <vector>

#include "parvis/model.h"
#include "parvis/status.h"
#include "parvis/step.h"

namespace parvis {

constexpr int maxPosition = 1 << 14;  // rotation cells lie below

Status checkSession(const TransformerModel& model, const SessionOptions& options);

// Caches of a stream: one a layer, and the one that cross layers share.
inline int cacheCount(const TransformerModel& m) { return m.layers + (m.crossLayers > 0 ? 1 : 0); }

// Rows of a step that run through the layers; those behind them run through the cross layers.
int layerRows(const TransformerModel& model, const Step& step);

// Rows of one stream in a step, which follow each other.
struct Group {
  int32_t stream, first, count;
};
// The groups of rows [begin, end) of a step that was checked, counted from `begin`.
void groupsOf(const Step& step, int begin, int end, std::vector<Group>& out);

// The seats of a session as the host knows them: who sits where, which tokens are known, which slots are written. A
// backend may draw tokens later than it is told of them here.
class Seats {
 public:
  Seats() = default;
  Seats(const TransformerModel& model, const SessionOptions& options);

  // Each checks its arguments; enter and leave also note the change.
  Status enter(int seat, const Sequence& sequence);
  Status leave(int seat);
  Status taken(int seat) const;
  Status check(const Step& step);
  // A step that was checked last has run, or is sure to.
  void ran(const Step& step);
  // A step ended in its middle: what its rows have written is of no use.
  void broke(const Step& step);

  int seatOf(int stream) const { return stream / o_.streamsEach; }
  const Sequence& sequence(int seat) const { return all_[static_cast<size_t>(seat)].sequence; }
  // A pass reads this token before it is drawn.
  void guessed(int seat, int token) { all_[static_cast<size_t>(seat)].known[static_cast<size_t>(token)] = true; }
  void fail(int seat) { all_[static_cast<size_t>(seat)].failed = true; }
  bool failed(int seat) const { return all_[static_cast<size_t>(seat)].failed; }
  std::vector<int32_t> failed() const;
  // The caches of the seat may hold numbers that are not finite, which a product with zero does not hide.
  bool dirty(int seat) const { return all_[static_cast<size_t>(seat)].dirty; }
  void cleaned(int seat) { all_[static_cast<size_t>(seat)].dirty = false; }
  void soil(int seat) { all_[static_cast<size_t>(seat)].dirty = true; }

 private:
  struct Seat {
    bool taken = false, failed = false, dirty = false;
    Sequence sequence;        // without its known tokens
    std::vector<bool> known;  // [tokens]
    std::vector<bool> text;   // [tokens]: text stands there; empty where the model has none
  };
  struct Stream {
    std::vector<bool> written;  // [slots]
    int filled = 0;             // the longest prefix of slots that are all written
    bool verified = true;       // logits were looked at that depend on everything written
  };
  Status checkRow(const Step& step, int i) const;
  Status checkRows(const Step& step, int begin, int end, std::vector<uint32_t>& seen);
  Status checkPrediction(const Step& step, int i);
  int fill(int stream) const;

  TransformerModel model_;
  SessionOptions o_;
  std::vector<Seat> all_;
  std::vector<Stream> streams_;
  // Marks of the step that is being checked, so that nothing has to be cleared between steps.
  uint32_t now_ = 0;
  std::vector<uint32_t> seen_, queried_;  // [streams]
  std::vector<uint32_t> slots_, tokens_;  // [streams, slots], [seats, tokens]
  std::vector<uint32_t> predicting_;      // rows of a step
};

// Angle of pair `pair` of a head at a position along the axis that the pair belongs to. Computed in double precision
// from float32 factors, as the published implementation rounds them. rotationAxis: 0 frame, 1 row, 2 column; -1: not
// rotated.
struct Angle {
  float cosine, sine;
};
int rotationAxis(const TransformerModel& model, int pair);
Angle rotationAngle(const TransformerModel& model, int position, int pair);
// Pairs of a head that are rotated: the first ones.
inline int rotatedPairs(const TransformerModel& m) {
  return m.rotationPairs[0] + m.rotationPairs[1] + m.rotationPairs[2];
}

// The status of logits that no token can be drawn from.
Status notFinite();

}  // namespace parvis
