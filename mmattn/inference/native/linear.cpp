// A linear layer for many tokens.
//
// Names: C channels of the input, E of the result.

#include <omp.h>

#include "matrix.h"
#include "scratch.h"

namespace mmattn {
namespace {

// Takes so many columns of the matrix at a time that they fill `bytes` and
// stay in a core's second cache.
template <typename T>
void linear(const T* x, const T* weight, const T* bias, T* out, Index rows,
            Index C, Index E, Index bytes, Index threads) {
  const Index most = columns_that_fit<T>(bytes, C, E);
  Buffer<T> memory(2 * most * C);
#pragma omp parallel num_threads(threads)
  {
    for (Index first = 0; first < E; first += most) {
      const Index size = std::min(most, E - first);
      // The other half than before, which some thread may still read.
      T* packed = memory.data() + first / most % 2 * most * C;
#pragma omp for schedule(static)
      for (Index i = 0; i < panels<T>(size); ++i)
        pack_panel(weight + first * C, C, size, C, i, packed);
#pragma omp for schedule(static) nowait
      for (Index row = 0; row < rows; row += kBlockRows) {
        const Index n = std::min<Index>(kBlockRows, rows - row);
        T* to = out + row * E + first;
        multiply_panels<T, false>(n, size, C, x + row * C, C, packed, to, E);
        if (bias) add_to_rows(n, size, bias + first, to, E);
      }
    }
  }
}

}  // namespace
}  // namespace mmattn

// The kernels read channels in whole vectors of so many bytes.
extern "C" MMATTN_EXPORT mmattn::Index mmattn_vector_bytes() {
  return mmattn::kVectorBytes;
}

#define MMATTN_DEFINE(T, SUFFIX)                                              \
  extern "C" MMATTN_EXPORT mmattn::Index mmattn_linear_##SUFFIX(              \
      const T* x, const T* weight, const T* bias, T* out, mmattn::Index rows, \
      mmattn::Index C, mmattn::Index E, mmattn::Index bytes,                  \
      mmattn::Index threads) {                                                \
    return mmattn::guarded([&] {                                              \
      mmattn::linear<T>(x, weight, bias, out, rows, C, E, bytes, threads);    \
    });                                                                       \
  }

MMATTN_DEFINE(float, f32)
MMATTN_DEFINE(double, f64)
