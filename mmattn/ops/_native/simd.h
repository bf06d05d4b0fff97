// Vectors, and products of small matrices that lie in the caches.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace mmattn {

using Index = std::int64_t;

#define MMATTN_EXPORT __attribute__((visibility("default")))

// Shared memory is read and written by types of one element; a vector may
// start at any of them.
template <typename T>
struct Simd;

// All of AVX-512: products of matrices take half the time on current CPUs, and
// no longer on others.
#ifdef __AVX512F__
constexpr int kVectorBytes = 64;
#else
constexpr int kVectorBytes = 32;
#endif

template <>
struct Simd<float> {
  static constexpr int width = kVectorBytes / 4;
  typedef float Vector
      __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef std::int32_t Bits
      __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};

template <>
struct Simd<double> {
  static constexpr int width = kVectorBytes / 8;
  typedef double Vector
      __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef std::int64_t Bits
      __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};

template <typename T>
using Vector = typename Simd<T>::Vector;

template <typename T>
inline Vector<T>& vector_at(T* x) {
  return *reinterpret_cast<Vector<T>*>(x);
}

template <typename T>
inline const Vector<T>& vector_at(const T* x) {
  return *reinterpret_cast<const Vector<T>*>(x);
}

// The next multiple of a vector's width.
template <typename T>
inline Index padded(Index n) {
  constexpr Index width = Simd<T>::width;
  return (n + width - 1) / width * width;
}

// A vector of which what lies beyond `lanes` may not be there. What is rare
// stays out of line: inline, it would keep all vectors in memory.
template <typename T>
__attribute__((noinline)) Vector<T> load_part(const T* x, Index lanes) {
  Vector<T> out{};
  if (lanes > 0) std::memcpy(&out, x, lanes * sizeof(T));
  return out;
}

template <typename T>
inline Vector<T> load(const T* x, Index lanes) {
  return lanes >= Simd<T>::width ? vector_at(x) : load_part(x, lanes);
}

template <typename T>
__attribute__((noinline)) void store_part(T* x, Vector<T> value, Index lanes) {
  if (lanes > 0) std::memcpy(x, &value, lanes * sizeof(T));
}

template <typename T>
inline void store(T* x, Vector<T> value, Index lanes) {
  if (lanes >= Simd<T>::width)
    vector_at(x) = value;
  else
    store_part<T>(x, value, lanes);
}

template <typename T>
inline Vector<T> larger(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

// The numbers of a vector, moved by some places, in a circle.
template <typename T, int PLACES>
inline Vector<T> turned(Vector<T> x) {
  constexpr int last = Simd<T>::width - 1;
  using Places = typename Simd<T>::Bits;
  Places from;
#pragma GCC unroll 8
  for (int i = 0; i <= last; ++i) from[i] = (i + PLACES) & last;
  return __builtin_shuffle(x, from);
}

// The result of a function of two vectors, over all numbers of one.
template <typename T, int PLACES = Simd<T>::width / 2, typename Function>
inline T reduce(Vector<T> x, Function function) {
  x = function(x, turned<T, PLACES>(x));
  if constexpr (PLACES > 1)
    return reduce<T, PLACES / 2>(x, function);
  else
    return x[0];
}

template <typename T>
inline T sum_of(Vector<T> x) {
  return reduce<T>(x, [](Vector<T> a, Vector<T> b) { return a + b; });
}

template <typename T>
inline T largest_of(Vector<T> x) {
  return reduce<T>(x, larger<T>);
}

// Writes the transpose of a square of numbers, one vector a row.
template <typename T>
inline void transpose_square(Vector<T>* rows, T* to, Index step) {
  constexpr int width = Simd<T>::width;
  using Places = typename Simd<T>::Bits;
  Places low, high;
  for (int i = 0; i < width; ++i) {
    low[i] = i / 2 + i % 2 * width;
    high[i] = low[i] + width / 2;
  }
  // Each round interleaves the first half of the rows with the second.
  for (int round = 1; round < width; round *= 2) {
    Vector<T> mixed[width];
#pragma GCC unroll 16
    for (int i = 0; i < width / 2; ++i) {
      mixed[2 * i] = __builtin_shuffle(rows[i], rows[i + width / 2], low);
      mixed[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + width / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) rows[i] = mixed[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < width; ++i) vector_at(to + i * step) = rows[i];
}

// Powers of two of what is not above 127, relative error below 2e-7; nearly
// zero below the normal numbers, and zero from -127 on.
inline Vector<float> power_of_two(Vector<float> x) {
  using Bits = Simd<float>::Bits;
  x = larger<float>(Vector<float>{} - 127.0f, x);  // keeps NaN
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, which
  // the low bits of the sum hold.
  const Vector<float> shifted = x + 12582912.0f;
  const Vector<float> f = x - (shifted - 12582912.0f);
  // The polynomial of 2^f for |f| <= 1/2 with the least relative error,
  // 2e-8; in two halves, since what waits for each other takes most time.
  const Vector<float> f2 = f * f;
  const Vector<float> low = 1.0f + 6.9314720283e-1f * f +
                            f2 * (2.4022648005e-1f + 5.5503323479e-2f * f);
  const Vector<float> high =
      9.6184293337e-3f + 1.3398935183e-3f * f + f2 * 1.5355155295e-4f;
  const Vector<float> p = low + f2 * f2 * high;
  // The integer goes to the exponent. The bits of NaN may add up to a number.
  const Vector<float> power = (Vector<float>)((Bits)p + ((Bits)shifted << 23));
  return x == x ? power : x;
}

inline Vector<double> power_of_two(Vector<double> x) {
  for (int i = 0; i < Simd<double>::width; ++i) x[i] = std::exp2(x[i]);
  return x;
}

// One block of a product, in registers. `ROWS` rows by `COLUMNS` vectors.
template <typename T, int ROWS, int COLUMNS, bool ADD>
inline void multiply_block(Index depth, const T* a, Index row, Index step,
                           const T* b, Index b_row, T* c, Index c_row) {
  constexpr int width = Simd<T>::width;
  Vector<T> sums[ROWS][COLUMNS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < COLUMNS; ++j)
      sums[i][j] = ADD ? vector_at(c + i * c_row + j * width) : Vector<T>{};
  for (Index k = 0; k < depth; ++k) {
    Vector<T> right[COLUMNS];
#pragma GCC unroll 16
    for (int j = 0; j < COLUMNS; ++j)
      right[j] = vector_at(b + k * b_row + j * width);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const T left = a[i * row + k * step];
#pragma GCC unroll 16
      for (int j = 0; j < COLUMNS; ++j) sums[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < COLUMNS; ++j)
      vector_at(c + i * c_row + j * width) = sums[i][j];
}

#ifdef __AVX512VL__  // twice as many registers
constexpr int kBlockColumns = 4;
#else
constexpr int kBlockColumns = 2;
#endif
constexpr int kBlockRows = 6;

template <typename T, int COLUMNS, bool ADD, int LESS = 1>
inline void multiply_last_rows(Index rows, Index depth, const T* a, Index row,
                               Index step, const T* b, Index b_row, T* c,
                               Index c_row) {
  if constexpr (LESS < kBlockRows) {
    if (rows == kBlockRows - LESS)
      multiply_block<T, kBlockRows - LESS, COLUMNS, ADD>(depth, a, row, step,
                                                         b, b_row, c, c_row);
    else
      multiply_last_rows<T, COLUMNS, ADD, LESS + 1>(rows, depth, a, row, step,
                                                    b, b_row, c, c_row);
  }
}

template <typename T, int COLUMNS, bool ADD>
inline void multiply_columns(Index rows, Index depth, const T* a, Index row,
                             Index step, const T* b, Index b_row, T* c,
                             Index c_row) {
  Index i = 0;
  for (; i + kBlockRows <= rows; i += kBlockRows)
    multiply_block<T, kBlockRows, COLUMNS, ADD>(
        depth, a + i * row, row, step, b, b_row, c + i * c_row, c_row);
  multiply_last_rows<T, COLUMNS, ADD>(rows - i, depth, a + i * row, row, step,
                                      b, b_row, c + i * c_row, c_row);
}

// C = A B, or C += A B. Element (i, k) of A is a[i * row + k * step]; rows of
// B and C are contiguous, and read and written up to a multiple of a vector.
template <typename T, bool ADD>
inline void multiply(Index rows, Index columns, Index depth, const T* a,
                     Index row, Index step, const T* b, Index b_row, T* c,
                     Index c_row) {
  constexpr int width = Simd<T>::width;
  constexpr int most = kBlockColumns;
  Index vectors = padded<T>(columns) / width;
  for (; vectors >= most; vectors -= most) {
    multiply_columns<T, most, ADD>(rows, depth, a, row, step, b, b_row, c,
                                   c_row);
    b += most * width;
    c += most * width;
  }
  if constexpr (most > 2)
    if (vectors == 3)
      multiply_columns<T, 3, ADD>(rows, depth, a, row, step, b, b_row, c,
                                  c_row);
  if constexpr (most > 2)
    if (vectors == 2)
      multiply_columns<T, 2, ADD>(rows, depth, a, row, step, b, b_row, c,
                                  c_row);
  if (vectors == 1)
    multiply_columns<T, 1, ADD>(rows, depth, a, row, step, b, b_row, c, c_row);
}

}  // namespace mmattn
