// Types of numbers, in a header of its own because cpu/isa/ includes it, which takes nothing of the standard library.
#pragma once

#include <cstddef>

#include "host-device.h"

namespace parvis {

// What users ask for: how large numbers are kept. int8 is bfloat16 but for the matrices of transformers. What products
// are made in is a matter of the device. Sums are float32.
enum class Precision { float32, bfloat16, int8 };

// How the matrices that are multiplied with activations are kept. int8: integers of -127..127, each row in groups of
// scaleInputs inputs that share a scale.
enum class WeightFormat { float32, bfloat16, int8 };
constexpr int weightFormats = 3;
constexpr int scaleInputs = 64;
// Scales of a row of so many inputs. Static, as in random.h.
template <class Count>
PARVIS_HOST_DEVICE static constexpr Count scaleGroups(Count inputs) {
  return (inputs + scaleInputs - 1) / scaleInputs;
}

// What a model that runs in this precision keeps its matrices in.
constexpr WeightFormat formatFor(Precision precision) {
  return precision == Precision::float32    ? WeightFormat::float32
         : precision == Precision::bfloat16 ? WeightFormat::bfloat16
                                            : WeightFormat::int8;
}

}  // namespace parvis
