#include "ahead.h"

#include <algorithm>
#include <numeric>

#include "layout.h"

namespace parvis::cuda {

Ahead::Ahead(const SessionOptions& options, int sharedHeads, bool crosses)
    : o_(options), shared_(sharedHeads), crosses_(crosses), seats_(static_cast<size_t>(options.seats)) {}

void Ahead::begin(int seat, int done) {
  Seat& s = at(seat);
  s.begun = s.fresh = true;
  s.done = done;
  s.looked = s.enqueued;  // what was in flight is that of the sequence before
  s.inFlight.clear();
}

void Ahead::hear(int seat, uint64_t progress) {
  Seat& s = at(seat);
  const uint32_t looked = static_cast<uint32_t>(progress >> 32), more = looked - s.looked;
  if (!s.begun || more == 0 || more > s.inFlight.size()) return;  // nothing new, or of the sequence before
  s.inFlight.erase(s.inFlight.begin(), s.inFlight.begin() + static_cast<ptrdiff_t>(more));
  s.looked = looked;
  s.done = static_cast<int>(static_cast<uint32_t>(progress));
}

Ahead::Bounds Ahead::bounds(int seat, const Passes& passes) const {
  const Seat& s = at(seat);
  if (!s.begun) return {passes.done(seat), passes.done(seat)};
  const int steps = passes.planned(seat).steps();
  return {std::min(steps, s.done + static_cast<int>(s.inFlight.size())),
          std::min(steps, std::accumulate(s.inFlight.begin(), s.inFlight.end(), s.done))};
}

// The most rows of either kind that a pass has which begins anywhere within the bounds.
Ahead::Places Ahead::placesOf(int seat, const Passes& passes, Bounds bounds, int steps) {
  const PlannedSequence& s = passes.planned(seat);
  Places most;
  for (int base = bounds.least; base <= std::min(bounds.most, s.steps() - 1); base++) {
    const int end = passes.endOf(seat, base, steps), all = s.rowsUpTo(end) - s.rowsUpTo(base);
    const int queries = s.queries[static_cast<size_t>(end)] - s.queries[static_cast<size_t>(base)];
    most.rows[0] = std::max(most.rows[0], all - queries);
    most.rows[1] = std::max(most.rows[1], queries);
    most.steps = std::max(most.steps, end - base);
  }
  return most;
}

bool Ahead::compose(std::vector<PassPart>& parts, const Passes& passes, int chunk) {
  int free = o_.maxRows;
  std::vector<Places>& places = places_;
  places.clear();
  for (const PassPart& p : parts) {
    places.push_back(placesOf(p.seat, passes, bounds(p.seat, passes), 1));
    free -= places.back().all() * passes.planned(p.seat).streams();
  }
  if (free < 0) return false;
  for (size_t i = 0; i < parts.size(); i++) {
    PassPart& p = parts[i];
    const int streams = passes.planned(p.seat).streams(), alone = places[i].all();
    for (p.steps = std::min(p.steps, passes.planned(p.seat).steps()); p.steps > 1; p.steps--) {
      const Places more = placesOf(p.seat, passes, bounds(p.seat, passes), p.steps);
      if ((more.all() - alone) * streams > free) continue;
      free -= (more.all() - alone) * streams;
      places[i] = more;
      break;
    }
  }

  entries_.clear();
  plan_ = {};
  int rows[2] = {}, groups[2] = {}, tiles[2] = {}, small[2] = {}, large[2] = {}, drawings = 0, logits = 0;
  for (size_t i = 0; i < parts.size(); i++) {
    const int seat = parts[i].seat, streams = passes.planned(seat).streams();
    PassEntry e{};
    e.seat = seat;
    e.base = at(seat).fresh ? at(seat).done : -1;
    e.steps = parts[i].steps;
    for (int kind = 0; kind < 2; kind++) {
      const int count = places[i].rows[kind], queries = count * shared_, split = std::min(queries, maxSplitQueries);
      e.places[kind] = count;
      for (int k = 0; k < streams && count > 0; k++) {
        e.first[kind][k] = rows[kind];
        e.group[kind][k] = groups[kind]++;
        e.tile[kind][k] = tiles[kind];
        rows[kind] += count;
        tiles[kind] += (split + tileQueries - 1) / tileQueries;
      }
      small[kind] = std::max(small[kind], split);
      if (queries > maxSplitQueries) large[kind] = std::max(large[kind], queries);
    }
    const int predicting = places[i].rows[crosses_ ? 1 : 0];
    e.drawing = drawings;
    drawings += predicting;
    e.logits = logits = (logits + streams - 1) / streams * streams;
    logits += predicting * streams;
    entries_.push_back(e);
    const Mode mode = passes.planned(seat).plan.rule.mode;
    (mode == Mode::sample ? plan_.sampled : mode == Mode::gumbel ? plan_.raced : plan_.scored) = true;
  }
  plan_.composed = roundedCount(static_cast<int>(entries_.size()));
  entries_.resize(static_cast<size_t>(plan_.composed), PassEntry{-1, 0, 0, {}, {}, {}, {}, 0, 0, 0});
  for (const int kind : {0, 1})
    (kind == 0 ? plan_.layers : plan_.crossLayers) = {roundedCount(rows[kind]), roundedCount(groups[kind]),
                                                      (small[kind] + tileQueries - 1) / tileQueries * tileQueries,
                                                      roundedCount(large[kind])};
  plan_.predictions = roundedCount(drawings);
  const int predicting = crosses_ ? plan_.crossLayers.rows : plan_.layers.rows;
  plan_.logitRows = predicting <= chunk ? 0 : roundedCount(logits);
  rows_ = rows[0] + rows[1];
  return true;
}

void Ahead::enqueued(const std::vector<PassPart>& parts) {
  for (size_t i = 0; i < parts.size(); i++) {
    Seat& s = at(parts[i].seat);
    s.fresh = false;
    s.enqueued++;
    s.inFlight.push_back(places_[i].steps);
  }
}

}  // namespace parvis::cuda
