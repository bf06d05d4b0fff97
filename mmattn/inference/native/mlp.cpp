// An MLP: a linear layer, the GELU, another linear layer.
//
// Takes some hidden channels at a time, so many that both their matrices stay
// in a core's second cache, and a few tokens through both layers while their
// hidden values stay in the first. It writes nothing as large as a map but
// the result.
//
// Names: C channels of the input, D hidden ones, E of the result.

#include <omp.h>

#include "matrix.h"
#include "scratch.h"

namespace mmattn {
namespace {

// Takes so many hidden channels at a time that both matrices fill `bytes`.
template <typename T>
void mlp(const T* x, const T* weight1, const T* bias1, const T* weight2,
         const T* bias2, T* out, Index rows, Index C, Index D, Index E,
         Index bytes, Index threads) {
  const Index most = columns_that_fit<T>(bytes, C + E, D);
  const Index room = most * (C + E), tile = kBlockRows * most;
  Buffer<T> memory(2 * room + threads * tile);
#pragma omp parallel num_threads(threads)
  {
    T* hidden = memory.data() + 2 * room + omp_get_thread_num() * tile;
    for (Index first = 0; first < D; first += most) {
      const Index size = std::min(most, D - first);
      // The other half than before, which some thread may still read.
      T* packed1 = memory.data() + first / most % 2 * room;
      T* packed2 = packed1 + size * C;
      const Index panels1 = panels<T>(size);
#pragma omp for schedule(static)
      for (Index i = 0; i < panels1 + panels<T>(E); ++i)
        if (i < panels1)
          pack_panel(weight1 + first * C, C, size, C, i, packed1);
        else
          pack_panel(weight2 + first, D, E, size, i - panels1, packed2);
#pragma omp for schedule(static) nowait
      for (Index row = 0; row < rows; row += kBlockRows) {
        const Index n = std::min<Index>(kBlockRows, rows - row);
        multiply_panels<T, false>(n, size, C, x + row * C, C, packed1, hidden,
                                  size);
        if (bias1) add_to_rows(n, size, bias1 + first, hidden, size);
        activate_rows(n, size, hidden, size);
        T* to = out + row * E;
        if (first)
          multiply_panels<T, true>(n, E, size, hidden, size, packed2, to, E);
        else
          multiply_panels<T, false>(n, E, size, hidden, size, packed2, to, E);
        if (bias2 && first + size == D) add_to_rows(n, E, bias2, to, E);
      }
    }
  }
}

}  // namespace
}  // namespace mmattn

#define MMATTN_DEFINE(T, SUFFIX)                                              \
  extern "C" MMATTN_EXPORT mmattn::Index mmattn_mlp_##SUFFIX(                 \
      const T* x, const T* weight1, const T* bias1, const T* weight2,         \
      const T* bias2, T* out, mmattn::Index rows, mmattn::Index C,            \
      mmattn::Index D, mmattn::Index E, mmattn::Index bytes,                  \
      mmattn::Index threads) {                                                \
    return mmattn::guarded([&] {                                              \
      mmattn::mlp<T>(x, weight1, bias1, weight2, bias2, out, rows, C, D, E,   \
                     bytes, threads);                                         \
    });                                                                       \
  }

MMATTN_DEFINE(float, f32)
MMATTN_DEFINE(double, f64)
