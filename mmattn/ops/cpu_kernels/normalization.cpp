// Layer normalisation: each row less its mean, over its standard deviation,
// times a weight, plus a bias. A row stays in the nearest cache meanwhile.

#include <omp.h>

#include <algorithm>
#include <vector>

#include "simd.h"

namespace mmattn {
namespace {

// Sums that do not wait for each other.
constexpr Index kSums = 4;

// The sum of `value(c)`, a vector, over the channels c of a row.
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
  constexpr Index width = Simd<T>::width;
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> deviations(padded<T>(channels));
    T* apart = deviations.data();
#pragma omp for schedule(static)
    for (Index row = 0; row < rows; ++row) {
      const T* from = x + row * channels;
      T* to = out + row * channels;
      const T mean =
          sum_row<T>(channels,
                     [&](Index c) { return load(from + c, channels - c); }) /
          channels;
      const T variance =
          sum_row<T>(channels,
                     [&](Index c) {
                       vector_at(apart + c) =
                           load(from + c, channels - c) - mean;
                       for (Index i = channels; i < c + width; ++i)
                         apart[i] = 0;
                       return vector_at(apart + c) * vector_at(apart + c);
                     }) /
          channels;
      const T factor = 1 / std::sqrt(variance + eps);
      for (Index c = 0; c < channels; c += width) {
        const Index left = channels - c;
        Vector<T> value = factor * vector_at(apart + c);
        if (weight) value *= load(weight + c, left);
        if (bias) value += load(bias + c, left);
        store(to + c, value, left);
      }
      if (moments) {
        moments[2 * row] = mean;
        moments[2 * row + 1] = factor;
      }
    }
  }
}

// Gradients, with those of weight and bias summed by each thread by itself:
// (threads, 2, channels).
template <typename T>
void differentiate(const T* x, const T* weight, const T* moments,
                   const T* grad, T* grad_x, T* sums, Index rows,
                   Index channels, Index threads) {
  constexpr Index width = Simd<T>::width;
  const Index end = padded<T>(channels);
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> memory(4 * end, T(0));
    T* normal = memory.data();  // the row, normalised
    T* upstream = normal + end;
    T* of_weight = upstream + end;
    T* of_bias = of_weight + end;
#pragma omp for schedule(static)
    for (Index row = 0; row < rows; ++row) {
      const Index start = row * channels;
      const T mean = moments[2 * row], factor = moments[2 * row + 1];
      const T slope =
          sum_row<T>(channels,
                     [&](Index c) {
                       const Index left = channels - c;
                       const Vector<T> g = load(grad + start + c, left);
                       const Vector<T> value =
                           factor * (load(x + start + c, left) - mean);
                       const Vector<T> up =
                           weight ? g * load(weight + c, left) : g;
                       vector_at(normal + c) = value;
                       vector_at(upstream + c) = up;
                       vector_at(of_weight + c) += g * value;
                       vector_at(of_bias + c) += g;
                       return up * value;
                     }) /
          channels;
      const T shift =
          sum_row<T>(channels,
                     [&](Index c) { return vector_at(upstream + c); }) /
          channels;
      for (Index c = 0; c < channels; c += width)
        store(grad_x + start + c,
              factor * (vector_at(upstream + c) - shift -
                        slope * vector_at(normal + c)),
              channels - c);
    }
    T* own = sums + omp_get_thread_num() * 2 * channels;
    std::copy_n(of_weight, channels, own);
    std::copy_n(of_bias, channels, own + channels);
  }
}

}  // namespace
}  // namespace mmattn

#define MMATTN_DEFINE(T, SUFFIX)                                           \
  extern "C" MMATTN_EXPORT void mmattn_normalize_##SUFFIX(                 \
      const T* x, const T* weight, const T* bias, T* out, T* moments,      \
      mmattn::Index rows, mmattn::Index channels, double eps,              \
      mmattn::Index threads) {                                             \
    mmattn::normalize<T>(x, weight, bias, out, moments, rows, channels,    \
                         T(eps), threads);                                 \
  }                                                                        \
  extern "C" MMATTN_EXPORT void mmattn_normalize_gradients_##SUFFIX(       \
      const T* x, const T* weight, const T* moments, const T* grad,        \
      T* grad_x, T* sums, mmattn::Index rows, mmattn::Index channels,      \
      mmattn::Index threads) {                                             \
    mmattn::differentiate<T>(x, weight, moments, grad, grad_x, sums, rows, \
                             channels, threads);                           \
  }

MMATTN_DEFINE(float, f32)
MMATTN_DEFINE(double, f64)
