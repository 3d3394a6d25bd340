// What lanes of a warp or threads of a block do together: matrix products, shuffles, votes, barriers. Lanes meet by the
// SIMT layer; the last to come computes for all. Layouts of fragments, lane = 4 g + t, from the manual:
//   A [16, 16], 4 registers of two bfloat16: rows g, g+8, g, g+8; columns 2t, 2t, 2t+8, 2t+8 and the next one
//   B [16, 8], 2 registers: rows 2t and 2t+8 and the next one, column g
//   C and D [16, 8], 4 registers: rows g, g, g+8, g+8; columns 2t, 2t+1, 2t, 2t+1
#include "program.h"

namespace ptx {
namespace {

constexpr uint32_t everyone = 0xffffffffu;

struct Lane {
  const Instruction* i;
  Slot* r;
};
const Lane& lane(void* const* lanes, int which) { return *static_cast<const Lane*>(lanes[which]); }

// ---- matrix products ----------------------------------------------------------------------------------------

// Products of bfloat16 are exact in double precision, and their sums nearly so; rounded once.
__attribute__((optimize("O3"))) void multiply(void* const* lanes, uint32_t) {
  double A[16][16], B[16][8], C[16][8];
  const auto halves = [](uint32_t pair, double& first, double& second) {
    first = static_cast<double>(std::bit_cast<float>(pair << 16));
    second = static_cast<double>(std::bit_cast<float>(pair & 0xffff0000u));
  };
  for (int which = 0; which < 32; which++) {
    const auto& [i, r] = lane(lanes, which);
    const uint32_t* const a = i->more + 4;
    const uint32_t* const b = i->more + 8;
    const uint32_t* const c = i->more + 10;
    const int g = which / 4, t = which % 4;
    for (int pair = 0; pair < 4; pair++) {
      const int row = pair == 0 || pair == 2 ? g : g + 8, column = pair < 2 ? 2 * t : 2 * t + 8;
      halves(get<uint32_t>(r, a[pair]), A[row][column], A[row][column + 1]);
    }
    for (int pair = 0; pair < 2; pair++)
      halves(get<uint32_t>(r, b[pair]), B[2 * t + 8 * pair][g], B[2 * t + 8 * pair + 1][g]);
    for (int k = 0; k < 4; k++) C[k < 2 ? g : g + 8][2 * t + (k & 1)] = static_cast<double>(get<float>(r, c[k]));
  }
  for (int row = 0; row < 16; row++)
    for (int k = 0; k < 16; k++)
      for (int column = 0; column < 8; column++) C[row][column] += A[row][k] * B[k][column];
  for (int which = 0; which < 32; which++) {
    const auto& [i, r] = lane(lanes, which);
    for (int k = 0; k < 4; k++)
      put(r, i->more[k], static_cast<float>(C[k < 2 ? which / 4 : which / 4 + 8][2 * (which % 4) + (k & 1)]));
  }
}
const Instruction* mma(const Instruction* i, Slot* r, Thread& t) {
  Lane mine{i, r};
  simt::meet(everyone, "mma.sync", &mine, multiply, where(i, t));
  return i + 1;
}

// Lanes 8k .. 8k+7 bring the addresses of matrix k's rows; each lane gets two neighbours of a row, or of a column.
struct Row {
  const Instruction* i;
  Slot* r;
  const uint8_t* row;
};
template <bool transposed>
void distribute(void* const* lanes, uint32_t) {
  for (int which = 0; which < 32; which++) {
    const Row& to = *static_cast<const Row*>(lanes[which]);
    const int g = which / 4, t = which % 4;
    for (int matrix = 0; matrix < 4; matrix++) {
      const auto element = [&](int row, int column) {
        uint16_t value;
        std::memcpy(&value, static_cast<const Row*>(lanes[8 * matrix + row])->row + 2 * column, 2);
        return static_cast<uint32_t>(value);
      };
      const uint32_t first = transposed ? element(2 * t, g) : element(g, 2 * t),
                     second = transposed ? element(2 * t + 1, g) : element(g, 2 * t + 1);
      put(to.r, to.i->more[matrix], first | second << 16);
    }
  }
}
template <bool transposed>
const Instruction* loadMatrices(const Instruction* i, Slot* r, Thread& t) {
  Row mine{i, r, sharedAt(i, t, static_cast<uint32_t>(r[i->a] + static_cast<uint64_t>(i->value)), 16)};
  simt::meet(everyone, transposed ? "ldmatrix.trans" : "ldmatrix", &mine, distribute<transposed>, where(i, t));
  return i + 1;
}

// ---- shuffles and votes -------------------------------------------------------------------------------------

enum class Way { up, down, butterfly, index };
template <Way way>
struct Shuffle {
  // The lane that `self` reads, and whether that is in range: c has the last lane of a segment and which bits choose
  // it.
  static int source(int self, uint32_t b, uint32_t c, bool& inRange) {
    const int by = static_cast<int>(b & 31), segment = static_cast<int>(c >> 8 & 31), clamp = static_cast<int>(c & 31);
    const int lowest = self & segment, limit = lowest | (clamp & ~segment);
    const int from = way == Way::up          ? self - by
                     : way == Way::down      ? self + by
                     : way == Way::butterfly ? self ^ by
                                             : lowest | (by & ~segment);
    inRange = way == Way::up ? from >= limit : from <= limit;
    return inRange ? from : self;
  }
  struct Brought {
    uint32_t value, got;
    int from;
    bool outside;
  };
  static void exchange(void* const* lanes, uint32_t mask) {
    for (int which = 0; which < 32; which++) {
      if (!(mask >> which & 1)) continue;
      Brought& to = *static_cast<Brought*>(lanes[which]);
      const Brought* from = static_cast<const Brought*>(lanes[to.from]);
      to.outside = !from;
      if (from) to.got = from->value;
    }
  }
  static const Instruction* run(const Instruction* i, Slot* r, Thread& t) {
    bool inRange = false;
    const int self = static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
    Brought mine{get<uint32_t>(r, i->a), 0, source(self, get<uint32_t>(r, i->b), get<uint32_t>(r, i->c), inRange),
                 false};
    simt::meet(get<uint32_t>(r, i->more[1]), "shfl.sync", &mine, exchange, where(i, t));
    if (mine.outside) fail(i, t, "shfl.sync reads lane " + std::to_string(mine.from) + ", which its mask leaves out");
    put(r, i->d, mine.got);
    r[i->more[0]] = inRange;
    return i + 1;
  }
};

struct Ballot {
  bool value;
  uint32_t all;
};
uint32_t ballot(const Instruction* i, Slot* r, Thread& t) {
  Ballot mine{holds(r, i->a), 0};
  simt::meet(
      get<uint32_t>(r, i->b), "vote.sync", &mine,
      [](void* const* lanes, uint32_t mask) {
        uint32_t all = 0;
        for (int which = 0; which < 32; which++)
          if (mask >> which & 1 && static_cast<Ballot*>(lanes[which])->value) all |= 1u << which;
        for (int which = 0; which < 32; which++)
          if (mask >> which & 1) static_cast<Ballot*>(lanes[which])->all = all;
      },
      where(i, t));
  return mine.all;
}
const Instruction* voteBallot(const Instruction* i, Slot* r, Thread& t) {
  put(r, i->d, ballot(i, r, t));
  return i + 1;
}
const Instruction* voteAny(const Instruction* i, Slot* r, Thread& t) {
  r[i->d] = ballot(i, r, t) != 0;
  return i + 1;
}
const Instruction* voteAll(const Instruction* i, Slot* r, Thread& t) {
  r[i->d] = ballot(i, r, t) == get<uint32_t>(r, i->b);
  return i + 1;
}

// ---- barriers -----------------------------------------------------------------------------------------------

const Instruction* awaitDependencies(const Instruction* i, Slot*, Thread& t) {
  simt::awaitDependencies(where(i, t));
  return i + 1;
}
const Instruction* releaseDependents(const Instruction* i, Slot*, Thread&) {
  simt::releaseDependents();
  return i + 1;
}
const Instruction* blockBarrier(const Instruction* i, Slot*, Thread& t) {
  simt::meetBlock("bar.sync", false, where(i, t));
  return i + 1;
}
const Instruction* blockOr(const Instruction* i, Slot* r, Thread& t) {
  r[i->d] = simt::meetBlock("bar.red.or", holds(r, i->a), where(i, t)) > 0;
  return i + 1;
}
const Instruction* blockAnd(const Instruction* i, Slot* r, Thread& t) {
  r[i->d] = simt::meetBlock("bar.red.and", !holds(r, i->a), where(i, t)) == 0;
  return i + 1;
}
const Instruction* blockCount(const Instruction* i, Slot* r, Thread& t) {
  put(r, i->d, static_cast<uint32_t>(simt::meetBlock("bar.red.popc", holds(r, i->a), where(i, t))));
  return i + 1;
}
// Who has come may go on to the wait; nothing between the two touches memory here, so they are one.
const Instruction* clusterArrive(const Instruction* i, Slot*, Thread&) { return i + 1; }
const Instruction* clusterWait(const Instruction* i, Slot*, Thread& t) {
  simt::meetCluster(where(i, t));
  return i + 1;
}
const Instruction* warpBarrier(const Instruction* i, Slot* r, Thread& t) {
  simt::meet(get<uint32_t>(r, i->a), "bar.warp.sync", nullptr, nullptr, where(i, t));
  return i + 1;
}

}  // namespace

void addWarp(Forms& f) {
  f.add("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", mma, "vvvv");
  f.add("ldmatrix.sync.aligned.m8n8.x4.shared.b16", loadMatrices<false>, "vm");
  f.add("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", loadMatrices<true>, "vm");
  f.add("shfl.sync.up.b32", Shuffle<Way::up>::run, "qabcx");
  f.add("shfl.sync.down.b32", Shuffle<Way::down>::run, "qabcx");
  f.add("shfl.sync.bfly.b32", Shuffle<Way::butterfly>::run, "qabcx");
  f.add("shfl.sync.idx.b32", Shuffle<Way::index>::run, "qabcx");
  f.add("vote.sync.ballot.b32", voteBallot, "dab");
  f.add("vote.sync.any.pred", voteAny, "dab");
  f.add("vote.sync.all.pred", voteAll, "dab");
  f.add("griddepcontrol.wait", awaitDependencies, "", Touch::wait);
  f.add("griddepcontrol.launch_dependents", releaseDependents, "");
  f.add("bar.sync", blockBarrier, "0");
  f.add("bar.red.or.pred", blockOr, "d0a");
  f.add("bar.red.and.pred", blockAnd, "d0a");
  f.add("bar.red.popc.u32", blockCount, "d0a");
  f.add("barrier.cluster.arrive.release.aligned", clusterArrive, "");
  f.add("barrier.cluster.wait.acquire.aligned", clusterWait, "");
  f.add("bar.warp.sync", warpBarrier, "a");
}

}  // namespace ptx
