// Layer normalisation: each row less its mean, over its standard deviation,
// times a weight, plus a bias. A row stays in the nearest cache meanwhile.

#include <algorithm>

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

template <typename T>
void normalize(const T* x, const T* weight, const T* bias, T* out, T* moments,
               Index rows, Index channels, T eps, Index threads) {
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
    const T factor = 1 / std::sqrt(variance + eps);
    for (Index c = 0; c < channels; c += Simd<T>::width) {
      Vector<T> value = factor * (vector_at(from + c) - mean);
      if (weight) value *= vector_at(weight + c);
      if (bias) value += vector_at(bias + c);
      vector_at(to + c) = value;
    }
    if (moments) {
      moments[2 * row] = mean;
      moments[2 * row + 1] = factor;
    }
  }
}

// Gradients, with those of weight and bias summed by each thread by itself:
// (threads, 2, channels).
template <typename T>
void differentiate(const T* x, const T* weight, const T* moments,
                   const T* grad, T* grad_x, T* sums, Index rows,
                   Index channels, Index threads) {
  share(rows, threads, [&](Index thread, Index first, Index end) {
    Buffer<T> memory(2 * channels, T(0));
    T* of_weight = memory.data();
    T* of_bias = of_weight + channels;
    for (Index row = first; row < end; ++row) {
      const T* own = x + row * channels;
      const T* from = grad + row * channels;
      T* to = grad_x + row * channels;
      const T mean = moments[2 * row], factor = moments[2 * row + 1];
      const auto normal = [&](Index c) {
        return factor * (vector_at(own + c) - mean);
      };
      const auto upstream = [&](Index c) {
        const Vector<T> g = vector_at(from + c);
        return weight ? g * vector_at(weight + c) : g;
      };
      const T shift = sum_row<T>(channels, upstream) / channels;
      const T slope = sum_row<T>(channels,
                                 [&](Index c) {
                                   vector_at(of_weight + c) +=
                                       vector_at(from + c) * normal(c);
                                   vector_at(of_bias + c) +=
                                       vector_at(from + c);
                                   return upstream(c) * normal(c);
                                 }) /
                      channels;
      for (Index c = 0; c < channels; c += Simd<T>::width)
        vector_at(to + c) = factor * (upstream(c) - shift - slope * normal(c));
    }
    std::copy_n(of_weight, 2 * channels, sums + thread * 2 * channels);
  });
}

}  // namespace
}  // namespace mmattn

#define MMATTN_DEFINE(T, SUFFIX)                                              \
  extern "C" MMATTN_EXPORT mmattn::Index mmattn_normalize_##SUFFIX(           \
      const T* x, const T* weight, const T* bias, T* out, T* moments,         \
      mmattn::Index rows, mmattn::Index channels, double eps,                 \
      mmattn::Index threads) {                                                \
    return mmattn::guarded([&] {                                              \
      mmattn::normalize<T>(x, weight, bias, out, moments, rows, channels,     \
                           T(eps), threads);                                  \
    });                                                                       \
  }                                                                           \
  extern "C" MMATTN_EXPORT mmattn::Index mmattn_normalize_gradients_##SUFFIX( \
      const T* x, const T* weight, const T* moments, const T* grad,           \
      T* grad_x, T* sums, mmattn::Index rows, mmattn::Index channels,         \
      mmattn::Index threads) {                                                \
    return mmattn::guarded([&] {                                              \
      mmattn::differentiate<T>(x, weight, moments, grad, grad_x, sums, rows,  \
                               channels, threads);                            \
    });                                                                       \
  }

MMATTN_DEFINE(float, f32)
MMATTN_DEFINE(double, f64)
