// Products of many tokens with a matrix, for what follows to stay in caches.

#pragma once

#include <algorithm>

#include "gelu.h"

namespace mmattn {

// Columns of a product that are computed together.
template <typename T>
constexpr Index kPanel = kBlockColumns * Simd<T>::width;

// How many panels columns make up; the last one is as wide as is left.
template <typename T>
inline Index panels(Index columns) {
  return (columns + kPanel<T> - 1) / kPanel<T>;
}

// How many columns of so many values fit into some bytes: whole panels.
template <typename T>
inline Index columns_that_fit(Index bytes, Index depth, Index columns) {
  const Index fit = bytes / Index(sizeof(T)) / depth / kPanel<T>;
  return std::min(std::max(fit, Index(1)), panels<T>(columns)) * kPanel<T>;
}

// Writes one panel of (columns, depth), multiples of a vector's width, as
// (depth, kPanel), to its place behind the others.
template <typename T>
void pack_panel(const T* from, Index step, Index columns, Index depth,
                Index number, T* to) {
  constexpr Index width = Simd<T>::width;
  const Index first = number * kPanel<T>;
  const Index wide = std::min(kPanel<T>, columns - first);
  from += first * step;
  to += first * depth;
  for (Index j = 0; j < wide; j += width)
    for (Index k = 0; k < depth; k += width) {
      Vector<T> square[width];
      for (Index i = 0; i < width; ++i)
        square[i] = vector_at(from + (j + i) * step + k);
      transpose_square(square, to + k * wide + j, wide);
    }
}

// C = A B, or C += A B, for few rows, with B in panels.
template <typename T, bool ADD>
void multiply_panels(Index rows, Index columns, Index depth, const T* a,
                     Index row, const T* b, T* c, Index c_row) {
  for (Index first = 0; first < columns; first += kPanel<T>) {
    const Index wide = std::min(kPanel<T>, columns - first);
    multiply<T, ADD>(rows, wide, depth, a, row, 1, b + first * depth, wide,
                     c + first, c_row);
  }
}

template <typename T>
inline void add_to_rows(Index rows, Index columns, const T* bias, T* to,
                        Index step) {
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; j += Simd<T>::width)
      vector_at(to + i * step + j) += vector_at(bias + j);
}

template <typename T>
inline void activate_rows(Index rows, Index columns, T* to, Index step) {
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; j += Simd<T>::width)
      vector_at(to + i * step + j) = gelu(vector_at(to + i * step + j));
}

}  // namespace mmattn
