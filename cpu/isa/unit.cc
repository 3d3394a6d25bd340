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

#if defined(PARVIS_BF16_PRODUCTS)
using Low = bf16;
constexpr Element low = Element::bfloat16;
#else
using Low = float;
constexpr Element low = Element::float32;
#endif

extern const Kernels PARVIS_JOIN(kernels_, PARVIS_ISA);
const Kernels PARVIS_JOIN(kernels_, PARVIS_ISA) = {
    PARVIS_TEXT(PARVIS_ISA),
    low,
    {matmul<float, float>, matmul<bf16, Low>, matmul<int8, Low>},
    {attend<float, float>, attend<bf16, Low>},
    {convolve<float>, convolve<Low>},
    {attendPlain<float>, attendPlain<Low>},
    {norm<float>, norm<Low>},
    {stage<float>, stage<Low>},
    sums,
    readAll,
    {multiplyInCache<float>, multiplyInCache<Low>},
    {productsInCache<float>, productsInCache<Low>},
    {toElements<float>, toElements<Low>},
    multiplyRows,
};

}  // namespace parvis::cpu
