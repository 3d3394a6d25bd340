// Types of numbers, in a header of its own because cpu/isa/ includes it, which takes nothing of the standard library.
#pragma once

#include <cstddef>

namespace parvis {

// Of activations, norms and tables of vectors, and what products are made in. Sums are float32.
enum class Precision { float32, bfloat16 };

// How the matrices that are multiplied with activations are kept. For a third format: one here and in `formatFor`, how
// loaders pack it and fill the scales of its matrices (cpu/weights.cc, cuda/loader.cc), and what multiplies it
// (Kernels::matmul, Kernels::convolve; Launcher::multiply, vq::convolve).
enum class WeightFormat { float32, bfloat16 };
constexpr int weightFormats = 2;

// What a model that runs in this precision keeps its matrices in.
constexpr WeightFormat formatFor(Precision precision) {
  return precision == Precision::float32 ? WeightFormat::float32 : WeightFormat::bfloat16;
}

}  // namespace parvis
