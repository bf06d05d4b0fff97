// Layer normalization. A row stays in the first cache meanwhile.

#include <algorithm>
#include <limits>

#include "scratch.h"
#include "simd.h"

namespace mmattn {
namespace {

// Sums that do not wait for each other.
constexpr Index kSums = 4;

// The sum of `value(c)`, a vector, over the channels c of a row: a multiple of
// a vector's width.
template <typename T, typename Value>
inline T sum_row(Index channels, Value value) {
  constexpr Index width = Simd<T>::width;
  Vector<T> sums[kSums] = {};
  Index c = 0;
  for (; c + kSums * width <= channels; c += kSums * width)
#pragma GCC unroll 4
    for (Index i = 0; i < kSums; ++i) sums[i] += value(c + i * width);
  for (; c < channels; c += width) sums[0] += value(c);
  return sum_of<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// The square root of the largest number.
template <typename T>
const T kMost = std::sqrt(std::numeric_limits<T>::max());

// Whether the square of a value overflows. PyTorch's variance may be NaN then.
template <typename T>
__attribute__((noinline)) bool overflows(const T* x, Index channels) {
  return std::any_of(x, x + channels,
                     [](T value) { return std::abs(value) > kMost<T>; });
}

template <typename T>
void normalize(const T* x, const T* weight, const T* bias, T* out, Index rows,
               Index channels, T eps, Index threads) {
  // If mean and variance are below, no value is near kMost.
  const T large = kMost<T> / 4;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index row = 0; row < rows; ++row) {
    const T* from = x + row * channels;
    T* to = out + row * channels;
    const T mean =
        sum_row<T>(channels, [&](Index c) { return vector_at(from + c); }) /
        channels;
    const T variance = sum_row<T>(channels,
                                  [&](Index c) {
                                    const Vector<T> away =
                                        vector_at(from + c) - mean;
                                    return away * away;
                                  }) /
                       channels;
    T factor = 1 / std::sqrt(variance + eps);
    if (!(std::abs(mean) < large && variance < large) &&
        overflows(from, channels))
      factor = std::numeric_limits<T>::quiet_NaN();
    for (Index c = 0; c < channels; c += Simd<T>::width) {
      Vector<T> value = factor * (vector_at(from + c) - mean);
      if (weight) value *= vector_at(weight + c);
      if (bias) value += vector_at(bias + c);
      vector_at(to + c) = value;
    }
  }
}

}  // namespace
}  // namespace mmattn

#define MMATTN_DEFINE(T, SUFFIX)                                              \
  extern "C" MMATTN_EXPORT mmattn::Index mmattn_layer_norm_##SUFFIX(          \
      const T* x, const T* weight, const T* bias, T* out, mmattn::Index rows, \
      mmattn::Index channels, double eps, mmattn::Index threads) {            \
    return mmattn::guarded([&] {                                              \
      mmattn::normalize<T>(x, weight, bias, out, rows, channels, T(eps),      \
                           threads);                                          \
    });                                                                       \
  }

MMATTN_DEFINE(float, f32)
MMATTN_DEFINE(double, f64)
