// One translation unit, compiled once for each instruction set: CMake passes PARVIS_ISA (a name) and the flags.
#include "attend.h"
#include "ceiling.h"
#include "convolve.h"
#include "matmul.h"
#include "products.h"

#define PARVIS_TEXT2(x) #x
#define PARVIS_TEXT(x) PARVIS_TEXT2(x)
#define PARVIS_JOIN2(a, b) a##b
#define PARVIS_JOIN(a, b) PARVIS_JOIN2(a, b)

namespace parvis::cpu {

extern const Kernels PARVIS_JOIN(kernels_, PARVIS_ISA);
const Kernels PARVIS_JOIN(kernels_, PARVIS_ISA) = {
    PARVIS_TEXT(PARVIS_ISA),
    {matmul<float>, matmul<bf16>},
    {convolve<float>, convolve<bf16>},
    {attend<float>, attend<bf16>},
    {attendPlain<float>, attendPlain<bf16>},
    {norm<float>, norm<bf16>},
    {stage<float>, stage<bf16>},
    sums,
    readAll,
    {multiplyInCache<float>, multiplyInCache<bf16>},
    tileRows,
    {toElements<float>, toElements<bf16>},
    multiplyRows,
};

}  // namespace parvis::cpu
