// The GELU and its gradient in one pass.

#include "gelu.h"

#include <algorithm>

#include "scratch.h"

namespace mmattn {
namespace {

template <typename T>
void gelu_back(const T* x, const T* grad, T* active, T* grad_x, Index count,
               Index threads) {
  constexpr int width = Simd<T>::width;
  constexpr Index piece = 64 * width;
  const Index pieces = (count + piece - 1) / piece;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index i = 0; i < pieces; ++i) {
    const Index end = std::min((i + 1) * piece, count);
    Index at = i * piece;
    for (; at + width <= end; at += width) {
      const Gelu<T> found = gelu(vector_at(x + at));
      vector_at(active + at) = found.value;
      vector_at(grad_x + at) = vector_at(grad + at) * found.slope;
    }
    for (; at < end; ++at) {
      const Gelu<T> found = gelu(Vector<T>{x[at]});
      active[at] = found.value[0];
      grad_x[at] = grad[at] * found.slope[0];
    }
  }
}

}  // namespace
}  // namespace mmattn

#define MMATTN_DEFINE(T, SUFFIX)                                            \
  extern "C" MMATTN_EXPORT mmattn::Index mmattn_gelu_back_##SUFFIX(         \
      const T* x, const T* grad, T* active, T* grad_x, mmattn::Index count, \
      mmattn::Index threads) {                                              \
    return mmattn::guarded([&] {                                            \
      mmattn::gelu_back<T>(x, grad, active, grad_x, count, threads);        \
    });                                                                     \
  }

MMATTN_DEFINE(float, f32)
MMATTN_DEFINE(double, f64)
