// The GELU, x Phi(x) with the normal distribution's Phi, and its derivative.

#pragma once

#include "simd.h"

namespace mmattn {

template <typename T>
struct Gelu {
  Vector<T> value;
  Vector<T> slope;
};

// Beyond, Phi is taken as 0 or 1; it is so but for 2e-8.
constexpr float kFar = 5.5f;

// Phi is off by less than 3e-7, as PyTorch's own is. Without the slope it is
// computed for nothing, and left out by the compiler.
inline Gelu<float> gelu(Vector<float> x) {
  const Vector<float> far = Vector<float>{} + kFar;
  const Vector<float> near = x > far ? far : x < -far ? -far : x;
  // Phi(x) = 1 / 2 + x p(x^2) / q(x^2), where p and q leave the least largest
  // error of such, 7e-9, up to kFar. All they sum is positive.
  const Vector<float> z = near * near;
  Vector<float> p = 2.2749325475e-08f * z + 6.3521326476e-06f;
  Vector<float> q = 1.1975038585e-06f * z + 7.3648001935e-05f;
  p = p * z + 1.6882715668e-04f;
  q = q * z + 1.8844531957e-03f;
  p = p * z + 4.6772696926e-03f;
  q = q * z + 2.8645953183e-02f;
  p = p * z + 3.3852787140e-02f;
  q = q * z + 2.5152227170e-01f;
  p = p * z + 3.9894223462e-01f;
  q = q * z + 1.0f;
  const Vector<float> phi = 0.5f + near * (p / q);
  const Vector<float> below = x < -far  ? Vector<float>{}
                              : x > far ? Vector<float>{} + 1.0f
                                        : phi;
  // The density is exp(-x^2 / 2) / sqrt(2 pi); the factor is log2(e) / 2.
  const Vector<float> bell = power_of_two(-0.72134752044f * x * x);
  return {x * below, below + x * (0.39894228040f * bell)};
}

inline Gelu<double> gelu(Vector<double> x) {
  Gelu<double> out;
  for (int i = 0; i < Simd<double>::width; ++i) {
    const double below = 0.5 * std::erfc(-0.70710678118654752 * x[i]);
    const double density = 0.39894228040143268 * std::exp(-0.5 * x[i] * x[i]);
    out.value[i] = x[i] * below;
    out.slope[i] = below + x[i] * density;
  }
  return out;
}

}  // namespace mmattn
