// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
// The draw for a token depends on (seed, sequence index) alone, so a picture does not depend on the batch it is
// in, on the number of threads or on how steps are scheduled. Plain integer code: the same on every backend.
#pragma once

#include <cstdint>

#include "host-device.h"

// Functions are static: cpu/isa compiles them once for each instruction set, and the linker must not choose one for
// all.
namespace parvis {

struct Philox {
  uint32_t word[4];
};

// counter, key -> 128 random bits.
PARVIS_HOST_DEVICE static inline Philox philox(uint64_t counterLow, uint64_t counterHigh, uint64_t key) {
  uint32_t c0 = static_cast<uint32_t>(counterLow), c1 = static_cast<uint32_t>(counterLow >> 32);
  uint32_t c2 = static_cast<uint32_t>(counterHigh), c3 = static_cast<uint32_t>(counterHigh >> 32);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c0 = n0;
    c1 = static_cast<uint32_t>(p1);
    c2 = n2;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// 64 random bits for the token at `index` of the sequence with this seed.
PARVIS_HOST_DEVICE static inline uint64_t drawBits(uint64_t seed, uint32_t index) {
  const Philox r = philox(index, 0, seed);
  return static_cast<uint64_t>(r.word[1]) << 32 | r.word[0];
}

// 128 random bits for tokens 4 group to 4 group + 3 of the vocabulary, 32 each, at `index` of the sequence. Word 2 of
// the counter is the purpose: 0 of drawBits, 1 of orders of tokens (lib/decoding/random.ts), 2 here.
PARVIS_HOST_DEVICE static inline Philox raceBits(uint64_t seed, uint32_t index, uint32_t group) {
  return philox(index, 2 | static_cast<uint64_t>(group) << 32, seed);
}

// A number in [0, total): the high half of bits * total, without 128-bit arithmetic.
PARVIS_HOST_DEVICE static inline uint64_t scaleBits(uint64_t bits, uint64_t total) {
  const uint64_t a = bits >> 32, b = bits & 0xffffffffu, c = total >> 32, d = total & 0xffffffffu;
  const uint64_t low = b * d, mid1 = a * d + (low >> 32), mid2 = b * c + (mid1 & 0xffffffffu);
  return a * c + (mid1 >> 32) + (mid2 >> 32);
}

}  // namespace parvis
